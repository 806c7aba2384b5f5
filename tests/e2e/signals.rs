//! The end of a terminal (SIGHUP), and the limit on the size of files.

use crate::descriptors::redirected;
use crate::harness::{LOCKSTEP, Process, Scratch, replay_equal};
use crate::member::{Member, Told, both_stopped, echo, pair, stage};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// More than an arbiter's record, less than a recording that has begun.
const FILE_LIMIT: u64 = 1024;

/// Makes a file, to which text is appended, longer than [`FILE_LIMIT`].
fn fill(path: &Path) {
    let file = File::options().append(true).open(path);
    let lines = "\n".repeat(2 * FILE_LIMIT as usize);
    let written = file.expect("there").write_all(lines.as_bytes());
    written.expect("written");
}

/// Limits the size of files of this process to `bytes`; `None` removes the limit.
fn limit_files(pid: Pid, bytes: Option<u64>) {
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Some(pid), Resource::Fsize, limit).expect("limited");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_end_of_a_terminal_ends_a_pair_cleanly_however_often_it_is_told() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, backup) = pair(&scratch, "echo", &Told::new(&scratch));
    echo(&mut primary, "together");
    for _ in 0..3 {
        primary.process.signal(Signal::HUP);
    }
    both_stopped(&scratch, primary, backup);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_whose_terminal_ends_leaves() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
    backup.process.signal(Signal::HUP);
    backup.await_event("left");
    backup.process.end().expect(0);
    primary.await_event("solo");
    echo(&mut primary, "alone");
    primary.process.signal(Signal::HUP);
    primary.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn who_was_started_to_outlive_its_terminal_does() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", LOCKSTEP]);
    let solo = &["primary", "echo", "--solo"];
    let mut member = Member::start(&scratch, "primary", nohup, solo, &told);
    echo(&mut member, "before");
    member.process.signal(Signal::HUP);
    echo(&mut member, "after");
    member.process.end_input();
    let done = member.process.end().expect(0);
    assert!(done.stdout.ends_with("echo: done, 2 lines\n"), "{done:#?}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_end_of_a_terminal_ends_a_run_with_its_recording_whole() {
    let scratch = Scratch::new();
    let mut command = Command::new(LOCKSTEP);
    command.args(["run", "echo", "--record", &scratch.arg("recording")]);
    let running = Process::with_input(&mut command);
    running.await_stdout("it runs", |out| out.contains("echo: ready"));
    running.signal(Signal::HUP);
    running.signal(Signal::HUP);
    let done = running.end().expect(0);
    assert!(done.stderr.contains("stopped"), "{done:#?}");
    let verdict = replay_equal(&scratch.join("recording"));
    assert!(verdict["end"].to_string().contains("stopped"), "{verdict}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_limit_on_files_ends_a_members_recording_and_not_the_vm() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, backup) = pair(&scratch, "echo", &Told::new(&scratch));
    fill(&scratch.join("primary.events"));
    for member in [&primary, &backup] {
        limit_files(member.process.pid(), Some(FILE_LIMIT));
    }
    echo(&mut primary, "beyond the limit");
    let ended = |said: &str| said.contains("recording ends here") && said.contains("too large");
    primary.process.await_stderr("the recording ends", ended);
    backup
        .process
        .await_stderr("the other recording ends", ended);
    backup.kill();
    echo(&mut primary, "alone");
    // Its events could not be written either. Now they can, and say so.
    limit_files(primary.process.pid(), None);
    primary.process.end_input();
    let lost = primary.await_event("events_lost");
    assert!(lost["count"].as_u64() >= Some(3), "{lost}");
    assert!(lost["why"].to_string().contains("too large"), "{lost}");
    assert_eq!(primary.await_event("ended")["status"], 0);
    let done = primary.process.end().expect(0);
    assert!(done.stderr.contains("events for"), "{done:#?}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_limit_on_files_fails_a_run_that_is_to_be_recorded() {
    let scratch = Scratch::new();
    let mut command = Command::new(LOCKSTEP);
    command.args(["run", "echo", "--record", &scratch.arg("recording")]);
    let mut running = Process::with_input(&mut command);
    running.await_stdout("it runs", |out| out.contains("echo: ready"));
    limit_files(running.pid(), Some(FILE_LIMIT));
    for _ in 0..100 {
        running.input("beyond the limit\n");
    }
    running.end_input();
    let sentence = running.end().one_sentence(1);
    assert!(sentence.contains("too large"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_on_a_file_that_is_full_is_taken_up_again() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let log = scratch.join("log");
    let to_log = redirected("2>>", &log);
    let mut primary = Member::start(&scratch, "primary", to_log, &["primary", "echo"], &told);
    let mut backup = Member::backup(&scratch, "backup", &told);
    primary.await_event("started");
    backup.await_event("joined");
    fill(&log);
    limit_files(primary.process.pid(), Some(FILE_LIMIT));
    // The loss of the backup causes messages.
    backup.process.signal(Signal::KILL);
    backup.process.end();
    echo(&mut primary, "alone");
    limit_files(primary.process.pid(), None);
    primary.process.signal(Signal::TERM);
    primary.process.end().expect(0);
    let said = fs::read_to_string(&log).expect("a log");
    assert!(said.contains("messages were lost here"), "{said}");
    assert!(said.ends_with("lockstep: stopped\n"), "{said}");
}
