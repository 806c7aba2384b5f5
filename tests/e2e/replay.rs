//! Replays: to the bit, any number of times, also of recordings without an end.

use crate::harness::{Process, Scratch, lockstep, record, replay_equal, run};
use ft_protocol::log::file::read_all;
use rustix::process::Signal;
use std::process::Command;

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn ticker_replays_twenty_times_with_identical_digests() {
    let scratch = Scratch::new();
    let printed = record("ticker", &scratch.join("ticker"));
    assert!(printed.contains("ticker: done"), "{printed}");
    let log = std::fs::File::open(scratch.join("ticker/log")).expect("a log");
    let (_, entries, _) = read_all(log).expect("sound");

    let first = replay_equal(&scratch.join("ticker"));
    assert!(first["digest"].is_string(), "{first}");
    assert!(first["interrupts"].as_u64() >= Some(100), "{first}");
    let lines = printed.lines().count() as u64;
    assert_eq!(first["outputs"].as_u64(), Some(lines), "{first}");
    assert_eq!(first["entries"].as_u64(), Some(entries.len() as u64));
    assert_eq!(first["cut"], false, "{first}");
    for _ in 1..20 {
        assert_eq!(replay_equal(&scratch.join("ticker")), first);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_replay_prints_what_the_run_printed() {
    let scratch = Scratch::new();
    for guest in ["hello", "ticker", "positions", "compute"] {
        let printed = record(guest, &scratch.join(guest));
        let replayed = run(["replay", &scratch.arg(guest)]).expect(0);
        assert_eq!(replayed.stdout, printed, "{guest}");
        let verified = run(["replay", &scratch.arg(guest), "--verify"]).expect(0);
        assert!(verified.stdout.contains("digest"), "{verified:#?}");
        assert!(!verified.stdout.contains(&printed), "{verified:#?}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_guest_that_crashed_crashes_again() {
    let scratch = Scratch::new();
    let dir = scratch.arg("crash");
    let printed = run(["run", "crash", "--record", &dir]).expect(1).stdout;
    let replayed = run(["replay", &dir]).expect(0);
    assert_eq!(replayed.stdout, printed);
    let verdict = replay_equal(&scratch.join("crash"));
    let end = verdict["end"].as_str().expect("an end");
    assert!(end.contains("status 142"), "{verdict}");
}

/// What the guest `positions` does before its first line, its second and so on.
pub const KINDS: [&str; 10] = [
    "out",
    "in",
    "mmio-read",
    "mmio-read-8",
    "mmio-read-straddling",
    "mmio-write",
    "hlt",
    "idle",
    "late",
    "kernel",
];

/// The injection rule: an interrupt after OUT, IN, MMIO reads and writes, HLT and idling, one that had
/// to wait, and one at CPL 0 come again at the same instruction.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn interrupts_at_every_kind_of_position_replay_to_the_bit() {
    let scratch = Scratch::new();
    let printed = record("positions", &scratch.join("positions"));
    let mut counted = 0;
    for kind in KINDS {
        let prefix = format!("positions: {kind} ");
        let line = printed.lines().find_map(|line| line.strip_prefix(&prefix));
        let count = line.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        let count = count.unwrap_or_else(|| panic!("no count of {kind} in {printed}"));
        assert!(count >= 20, "{kind}: {count}");
        counted += count;
    }
    let first = replay_equal(&scratch.join("positions"));
    assert!(first["interrupts"].as_u64() >= Some(counted), "{first}");
    for _ in 0..3 {
        let replayed = run(["replay", &scratch.arg("positions")]).expect(0);
        assert_eq!(replayed.stdout, printed, "the checksum is of the places");
        assert_eq!(replay_equal(&scratch.join("positions")), first);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_replay_stops_where_it_is_told() {
    let scratch = Scratch::new();
    let printed = record("ticker", &scratch.join("ticker"));
    let dir = scratch.arg("ticker");
    for until in ["0", "1", "57", "100"] {
        let verdict = run(["replay", &dir, "--until", until, "--json"]).expect(0);
        let verdict = verdict.json();
        assert_eq!(verdict["position"].to_string(), until, "{verdict}");
        assert_eq!(verdict["digest"], serde_json::Value::Null, "{verdict}");
        assert_eq!(verdict["cut"], false, "{verdict}");
        let part = run(["replay", &dir, "--until", until]).expect(0).stdout;
        assert!(printed.starts_with(&part), "{part}");
        assert!(part.len() < printed.len(), "{until}");
    }
    // Beyond the end, a replay stops at the end.
    let whole = replay_equal(&scratch.join("ticker"));
    let beyond = run(["replay", &dir, "--until", "1000000", "--json"]).expect(0);
    let mut beyond = beyond.json();
    let parts = beyond.as_object_mut().expect("an object").remove("parts");
    assert_eq!(beyond, whole);
    // The digest begins with that of memory.
    let memory = parts.expect("parts")["memory"].take();
    let digest = whole["digest"].as_str().expect("a digest");
    assert!(
        digest.starts_with(memory.as_str().expect("text")),
        "{memory}"
    );
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_recording_that_was_killed_replays_to_its_last_whole_entry() {
    let scratch = Scratch::new();
    let dir = scratch.arg("killed");
    let mut echo = Process::with_input(&mut lockstep(["run", "echo", "--record", &dir]));
    echo.await_stdout("the guest is ready", |out| out.contains("echo: ready\n"));
    echo.input("a line\n");
    echo.await_stdout("the line comes back", |out| out.contains("a line\n"));
    echo.signal(Signal::KILL);
    assert_eq!(echo.end().signal, Some(Signal::KILL.as_raw()));

    let verdict = replay_equal(&scratch.join("killed"));
    assert_eq!(verdict["cut"], true, "{verdict}");
    let told = run(["replay", &dir, "--verify"]).expect(0).stdout;
    assert!(told.contains("cut"), "{told}");
    let stat = run(["log", "stat", &dir]).expect(0).stdout;
    assert!(stat.contains("cut"), "{stat}");
}

/// A limit on file size is used in place of a full disk, which only root could make.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_full_disk_ends_the_run_with_a_sentence_and_leaves_a_log_that_replays() {
    /// In blocks of 512 bytes: more than the guest's image, less than the log.
    const LIMIT_BLOCKS: &str = "300";
    let scratch = Scratch::new();
    let script = format!(
        "trap '' XFSZ; ulimit -f {LIMIT_BLOCKS}; exec \"$0\" run echo --record \"$1\" < \"$2\""
    );
    let line = "a line that goes into the log twice: typed, and printed\n";
    std::fs::write(scratch.join("typed"), line.repeat(20_000)).expect("written");
    let done = Process::start(
        Command::new("sh")
            .args(["-c", &script, crate::harness::LOCKSTEP])
            .args([scratch.join("full"), scratch.join("typed")]),
    )
    .end();
    let sentence = done.one_sentence(1);
    assert!(sentence.contains("free space"), "{sentence}");
    let verdict = replay_equal(&scratch.join("full"));
    assert_eq!(verdict["cut"], true, "{verdict}");
    assert!(verdict["entries"].as_u64() > Some(10), "{verdict}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let scratch = Scratch::new();
    for command in [&["replay"][..], &["log", "stat"], &["log", "show"]] {
        let missing = scratch.arg("missing");
        let args = command.iter().copied().chain([missing.as_str()]);
        let sentence = run(args).refused();
        assert!(sentence.contains("--record"), "{sentence}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_shows_every_entry() {
    let scratch = Scratch::new();
    record("hello", &scratch.join("hello"));
    let dir = scratch.arg("hello");
    let stat = run(["log", "stat", &dir, "--json"]).expect(0).json();
    assert_eq!(stat["tail"], "ended");
    let shown = run(["log", "show", &dir, "--json"]).expect(0).stdout;
    let entries: Vec<serde_json::Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect();
    assert_eq!(stat["entries"].as_u64(), Some(entries.len() as u64));
    let last = entries.last().expect("an entry");
    assert_eq!(
        (&last["kind"], &last["seq"]),
        (&"end".into(), &stat["entries"])
    );
    let text = run(["log", "show", &dir]).expect(0).stdout;
    assert_eq!(text.lines().count(), entries.len() + 1);
}
