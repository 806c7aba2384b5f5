//! What healthy sides must bear: threads that get no processor for a while, and strangers that connect.

use crate::harness::Scratch;
use crate::member::{Member, Told, echo, pair, records, stage};
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Strangers that connect and send nothing.
const IDLE: usize = 16;
/// Strangers that connect again as soon as their connection is closed, or after that time.
const BUSY: usize = 3;
const AGAIN: Duration = Duration::from_millis(100);
/// A backup must join within this time: a second for the work, and one for a busy host.
const JOINS: Duration = Duration::from_secs(2);

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_runtime_that_gets_no_processor_for_a_while_is_not_given_up() {
    for side in ["primary", "backup"] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let told = Told::new(&scratch);
        let stalls = told.planting("runtime-stalls:30");
        let of = |name| if name == side { &stalls } else { &told };
        let mut primary = Member::primary(&scratch, "primary", "echo", of("primary"));
        let mut backup = Member::backup(&scratch, "backup", of("backup"));
        primary.await_event("started");
        backup.await_event("joined");
        let stalled = if side == "primary" { &primary } else { &backup };
        let over = |err: &str| err.contains("goes on");
        stalled.process.await_stderr("the stall is over", over);
        echo(&mut primary, "both are there");
        primary.process.signal(Signal::TERM);
        primary.process.end().expect(0);
        backup.await_event("ended");
        assert!(
            !backup.has_told("suspect") && !backup.has_told("live"),
            "{side}: {backup:?}"
        );
        backup.process.end().expect(0);
        assert_eq!(records(&scratch), ["1.close", "1.open"], "{side}");
    }
}

/// Strangers that connect again and again, until this is dropped.
struct Returning {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Returning {
    fn to(address: &str) -> Returning {
        let over = Arc::new(AtomicBool::new(false));
        let stranger = |_| {
            let (over, address) = (over.clone(), address.to_owned());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(&address) else {
                        continue;
                    };
                    stream.set_read_timeout(Some(AGAIN)).expect("set");
                    let _closed = stream.read(&mut [0]);
                }
            })
        };
        Returning {
            threads: (0..BUSY).map(stranger).collect(),
            over,
        }
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only connects");
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn strangers_at_the_channels_port_keep_no_backup_out() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut primary = Member::primary(&scratch, "primary", "echo", &told);
    primary.await_event("waiting");
    let connect = |_| TcpStream::connect(&told.channel).expect("it listens");
    let idle: Vec<TcpStream> = (0..IDLE).map(connect).collect();
    let returning = Returning::to(&told.channel);
    let mut backup = Member::backup(&scratch, "backup", &told);
    backup.await_event("connecting");
    let began = Instant::now();
    let generation = primary.await_event("started")["generation"].clone();
    let took = began.elapsed();
    assert!(took < JOINS, "{took:?}");
    assert_eq!(generation, 1, "no stranger costs a generation");
    // And after that none of them costs the VM anything, nor its next backup.
    echo(&mut primary, "undisturbed");
    backup.kill();
    primary.await_event("solo");
    let began = Instant::now();
    let mut next = Member::backup(&scratch, "next", &told);
    next.await_event("joined");
    let took = began.elapsed();
    assert!(took < 2 * JOINS, "{took:?}");
    drop((idle, returning));
    primary.process.end_input();
    primary.process.end().expect(0);
    next.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_digests_of_a_large_memory_that_nobody_uses_are_those_of_a_replay() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch).and(&["--mem", "3072"]);
    let (mut primary, backup) = pair(&scratch, "echo", &told);
    echo(&mut primary, "there");
    primary.process.signal(Signal::TERM);
    primary.process.end().expect(0);
    backup.process.end().expect(0);
    let verdict = crate::harness::replay_equal(&scratch.join("primary"));
    assert_eq!(
        crate::harness::replay_equal(&scratch.join("backup")),
        verdict
    );
}
