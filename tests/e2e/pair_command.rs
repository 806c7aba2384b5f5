//! `lockstep pair`: both halves on one machine, behind one process.

use crate::harness::{LIMIT, Process, Scratch, lockstep, replay_equal, run};
use crate::member::stage;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::{Duration, Instant};

/// Between two looks for a process that is about to end.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A pair that keeps its own files, and its recordings, in the scratch directory.
#[track_caller]
fn start(scratch: &Scratch, guest: &str) -> Process {
    fs::create_dir(scratch.join("tmp")).expect("made");
    let mut command = lockstep(["pair", guest, "--record", &scratch.arg("logs")]);
    command.env("TMPDIR", scratch.join("tmp"));
    command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
    Process::with_input(&mut command)
}

/// The process ids of this pair's members with this role.
fn members(scratch: &Scratch, role: &str) -> Vec<Pid> {
    let place = scratch.arg("tmp");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains(&place) && line.split('\0').nth(1) == Some(role) {
            let pid = entry.file_name().to_string_lossy().parse().ok();
            found.extend(pid.and_then(Pid::from_raw));
        }
    }
    found
}

#[track_caller]
fn signal(scratch: &Scratch, role: &str, signal: Signal) {
    let pids = members(scratch, role);
    let [pid] = pids[..] else {
        panic!("one {role}: {pids:?}");
    };
    kill_process(pid, signal).expect("it runs");
}

/// Types a line and waits until it comes back.
#[track_caller]
fn echo(pair: &mut Process, line: &str) {
    pair.input(&format!("{line}\n"));
    let wanted = format!("\n{line}\n");
    pair.await_stdout("the line comes back", |out| out.contains(&wanted));
}

/// Fails unless the pair has left no process and no file behind.
#[track_caller]
fn nothing_is_left(scratch: &Scratch) {
    let deadline = Instant::now() + LIMIT;
    while ["primary", "backup"]
        .iter()
        .any(|role| !members(scratch, role).is_empty())
    {
        assert!(Instant::now() < deadline, "a member still runs");
        std::thread::sleep(BETWEEN_LOOKS);
    }
    let left: Vec<_> = fs::read_dir(scratch.join("tmp")).expect("there").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_pair_on_one_machine_ends_with_its_guest() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut pair = start(&scratch, "echo");
    echo(&mut pair, "through both");
    pair.end_input();
    let done = pair.end().expect(0);
    let said = "echo: ready\nthrough both\necho: done, 1 lines\n";
    assert_eq!(done.stdout, said, "one side prints");
    nothing_is_left(&scratch);
    let verdict = replay_equal(&scratch.join("logs/primary"));
    assert_eq!(replay_equal(&scratch.join("logs/backup")), verdict);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_pair_whose_primary_is_killed_runs_on_with_the_same_console() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut pair = start(&scratch, "echo");
    echo(&mut pair, "on the primary");
    signal(&scratch, "primary", Signal::KILL);
    echo(&mut pair, "on the survivor");
    pair.end_input();
    let done = pair.end().expect(0);
    assert!(done.stdout.ends_with("echo: done, 2 lines\n"), "{done:#?}");
    nothing_is_left(&scratch);
    let verdict = replay_equal(&scratch.join("logs/backup"));
    assert_eq!(verdict["go_lives"], 1, "{verdict}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn sigterm_ends_the_guest_wherever_it_runs() {
    for killed in [None, Some("primary"), Some("backup")] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let mut pair = start(&scratch, "echo");
        echo(&mut pair, "together");
        if let Some(role) = killed {
            signal(&scratch, role, Signal::KILL);
            echo(&mut pair, "alone");
        }
        pair.signal(Signal::TERM);
        let done = pair.end().expect(0);
        assert!(!done.stdout.contains("done"), "{killed:?}: {done:#?}");
        nothing_is_left(&scratch);
        let survivor = if killed == Some("primary") {
            "backup"
        } else {
            "primary"
        };
        let verdict = replay_equal(&scratch.join("logs").join(survivor));
        assert!(verdict["end"].to_string().contains("stopped"), "{verdict}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_second_sigterm_reaches_a_survivor_whose_primary_hangs() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut pair = start(&scratch, "echo");
    echo(&mut pair, "together");
    signal(&scratch, "primary", Signal::STOP);
    pair.await_stderr("the backup went live", |err| err.contains("INFO live"));
    pair.signal(Signal::TERM);
    pair.await_stderr("it was passed on", |err| err.contains("a second signal"));
    pair.signal(Signal::TERM);
    // The primary never gets to know that it lost.
    pair.end().expect(0);
    nothing_is_left(&scratch);
    replay_equal(&scratch.join("logs/backup"));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_guests_own_status_and_a_pair_that_cannot_be_show_in_the_status() {
    let (_stage, scratch) = (stage(), Scratch::new());
    start(&scratch, "crash").end().expect(1);
    nothing_is_left(&scratch);
    let sentence = run(["pair", "no-such-guest"]).refused();
    assert!(sentence.contains("no guest"), "{sentence}");
    let sentence = run(["pair", "hello", "--net", "tap=a"]).refused();
    assert!(sentence.contains("--backup-tap"), "{sentence}");
    // What only a member finds out ends the other one too.
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("tmp")).expect("made");
    let mut command = lockstep(["pair", "hello", "--net", "tap=no-such-a"]);
    command.args(["--backup-tap", "no-such-b"]);
    let done = Process::start(command.env("TMPDIR", scratch.join("tmp"))).end();
    let done = done.expect(2);
    assert!(done.stderr.contains("no-such-"), "{done:#?}");
    nothing_is_left(&scratch);
}
