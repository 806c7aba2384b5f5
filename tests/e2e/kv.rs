//! The guest `kv` on a segment, alone and as a pair, and Redis's tools as its clients.

use crate::harness::{Done, LOCKSTEP, Process, Scratch};
use crate::member::{Member, Told};
use crate::network::{Place, Segment};
use rustix::process::Signal;
use std::process::Stdio;

/// The guest's address.
pub const GUEST: &str = "10.77.0.2";

/// `redis-benchmark` against the guest, in the middle of the segment.
pub fn benchmark(segment: &Segment, args: &[&str]) -> Process {
    let mut command = segment.command(Place::Middle, "redis-benchmark");
    Process::start(command.args(["-h", GUEST]).args(args))
}

/// `redis-cli` against the guest, in the middle of the segment.
pub fn redis_cli(segment: &Segment, args: &[&str]) -> Process {
    let mut command = segment.command(Place::Middle, "redis-cli");
    Process::start(command.args(["-h", GUEST]).args(args))
}

/// The output of `redis-cli` for one command.
#[track_caller]
pub fn cli(segment: &Segment, args: &[&str]) -> String {
    let done = redis_cli(segment, args).end().expect(0);
    done.stdout.trim_end().to_owned()
}

/// Fails unless a benchmark ended well: it prints errors as lines among the others.
#[track_caller]
pub fn no_error(done: Done) -> Done {
    let done = done.expect(0);
    for word in ["rror", "reset", "refused", "losed", "WARNING: -"] {
        let said = done.stdout.contains(word) || done.stderr.contains(word);
        assert!(!said, "{word:?}: {done:#?}");
    }
    done
}

/// Waits until the guest answers a connection.
#[track_caller]
pub fn await_ping(segment: &Segment) {
    let script = format!("until redis-cli -h {GUEST} ping 2>&1 | grep -q PONG; do :; done");
    let mut command = segment.command(Place::Middle, "sh");
    Process::start(command.args(["-c", &script]))
        .end()
        .expect(0);
}

/// A machine with `kv` on the segment's first host, which is recorded into `scratch/kv`.
pub fn recorded_kv(scratch: &Scratch, segment: &Segment) -> Process {
    let mut command = segment.command(Place::A, LOCKSTEP);
    command.args(["run", "kv", "--net", "tap=tap0", "--record"]);
    let kv = Process::start(command.arg(scratch.join("kv")));
    await_ping(segment);
    kv
}

/// Stops the machine, so that its recording has an end entry.
#[track_caller]
pub fn stop(kv: Process) {
    kv.signal(Signal::TERM);
    kv.end().expect(0);
}

/// A pair with `kv`, whose members each have a TAP on a host of their own. The guest answers.
pub fn kv_pair(scratch: &Scratch, segment: &Segment) -> (Member, Member) {
    let told = Told {
        vm: "kv".into(),
        channel: "10.78.0.1:7700".into(),
        ..Told::new(scratch)
    };
    let told = told.and(&["--net", "tap=tap0"]);
    let host = |place| segment.command(place, LOCKSTEP);
    let mut backup = Member::start(scratch, "backup", host(Place::B), &["backup"], &told);
    let role = ["primary", "kv"];
    let mut primary = Member::start(scratch, "primary", host(Place::A), &role, &told);
    primary.await_event("started");
    backup.await_event("joined");
    await_ping(segment);
    (primary, backup)
}

/// Widens limits of the hosts for a benchmark that opens a connection per command.
pub fn widen(segment: &Segment) {
    for setting in [
        "net.ipv4.ip_local_port_range=1024 65535",
        "net.ipv4.tcp_tw_reuse=1",
    ] {
        let mut sysctl = segment.command(Place::Middle, "sysctl");
        let done = sysctl.args(["-qw", setting]).stdin(Stdio::null()).status();
        assert!(done.expect("sysctl is there").success(), "{setting}");
    }
}
