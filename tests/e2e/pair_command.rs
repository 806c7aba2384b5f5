//! `lockstep pair`: both halves on one machine, behind one process.

use crate::descriptors::redirected;
use crate::harness::{LIMIT, Process, Scratch, lockstep, replay_equal, run};
use crate::member::{is_an_event, stage};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Time between two checks whether a process has ended.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Starts a pair that keeps its files and recordings in the scratch directory.
#[track_caller]
fn start(scratch: &Scratch, guest: &str) -> Process {
    start_with(scratch, guest, &[])
}

#[track_caller]
fn start_with(scratch: &Scratch, guest: &str, more: &[&str]) -> Process {
    start_as(lockstep::<&str>([]), scratch, guest, more)
}

/// The same, with a command that ends in `lockstep`.
#[track_caller]
fn start_as(mut command: Command, scratch: &Scratch, guest: &str, more: &[&str]) -> Process {
    command.args(["pair", guest, "--record", &scratch.arg("logs")]);
    command.args(more);
    command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
    Process::with_input(&mut command)
}

/// The process ids of this pair's members with this role.
fn members(scratch: &Scratch, role: &str) -> Vec<Pid> {
    let place = scratch.arg("runtime/lockstep-pair-");
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

/// The process of this pair's member with events of this name.
#[track_caller]
fn named(scratch: &Scratch, name: &str) -> Pid {
    let events = format!("/{name}.events");
    let all = members(scratch, "primary").into_iter();
    let mut all = all.chain(members(scratch, "backup"));
    let told = |pid: &Pid| {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        let line = line.unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&events)
    };
    all.find(told).unwrap_or_else(|| panic!("{name} runs"))
}

/// The directories of the pairs that run.
fn places(scratch: &Scratch) -> Vec<PathBuf> {
    let paths = fs::read_dir(scratch.join("runtime")).into_iter().flatten();
    let paths = paths.map(|entry| entry.expect("an entry").path());
    let is_place = |path: &PathBuf| path.to_string_lossy().contains("lockstep-pair-");
    paths.filter(is_place).collect()
}

/// Waits until the member of this name has reported this event.
#[track_caller]
fn await_event(scratch: &Scratch, name: &str, event: &str) {
    is_an_event(event);
    let deadline = Instant::now() + LIMIT;
    let wanted = format!(r#""event":"{event}""#);
    let told = || {
        let paths = places(scratch).into_iter();
        let paths = paths.map(|place| place.join(format!("{name}.events")));
        let mut texts = paths.filter_map(|path| fs::read_to_string(path).ok());
        texts.any(|text| text.contains(&wanted))
    };
    while !told() {
        assert!(Instant::now() < deadline, "no {event:?} of {name}");
        std::thread::sleep(BETWEEN_LOOKS);
    }
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
    let left = places(scratch);
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
    // The primary never learns that it lost.
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
    // An error that only a member can find ends the other member too.
    let scratch = Scratch::new();
    let mut command = lockstep(["pair", "hello", "--net", "tap=no-such-a"]);
    command.args(["--backup-tap", "no-such-b"]);
    command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
    let done = Process::start(&mut command).end();
    let done = done.expect(2);
    assert!(done.stderr.contains("no-such-"), "{done:#?}");
    nothing_is_left(&scratch);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_kept_pair_outlives_one_member_after_the_other() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut pair = start_with(&scratch, "echo", &["--keep"]);
    // The side that runs the guest, the side that follows, and whether the first one dies.
    let rounds = [
        ("primary", "backup", true),
        ("backup", "backup-2", true),
        ("backup-2", "backup-3", false),
        ("backup-2", "backup-4", true),
    ];
    for (round, (runs, follows, first)) in rounds.into_iter().enumerate() {
        await_event(&scratch, follows, "joined");
        // Each line is different, so that the echo of an earlier one is not taken for it.
        echo(&mut pair, &format!("{runs} runs in round {round}"));
        let (killed, role) = if first {
            (runs, "primary")
        } else {
            (follows, "backup")
        };
        kill_process(named(&scratch, killed), Signal::KILL).expect("it runs");
        let said = format!("the {role} was killed by signal 9; a new backup joins");
        pair.await_stderr("it is said", |err| {
            err.matches("a new backup joins").count() > round && err.contains(&said)
        });
        echo(&mut pair, &format!("{killed} was killed"));
    }
    await_event(&scratch, "backup-5", "joined");
    pair.end_input();
    let done = pair.end().expect(0);
    assert!(done.stdout.ends_with("echo: done, 8 lines\n"), "{done:#?}");
    nothing_is_left(&scratch);
    let verdict = replay_equal(&scratch.join("logs/backup-4"));
    assert_eq!(verdict["go_lives"], 1, "{verdict}");
    replay_equal(&scratch.join("logs/backup-5"));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_kept_pair_whose_members_both_die_is_down() {
    for together in [true, false] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let mut pair = start_with(&scratch, "echo", &["--keep"]);
        await_event(&scratch, "backup", "joined");
        echo(&mut pair, "together");
        let (primary, backup) = (named(&scratch, "primary"), named(&scratch, "backup"));
        if together {
            kill_process(primary, Signal::KILL).expect("it runs");
        } else {
            // The primary runs alone, beside a backup that only hangs.
            kill_process(backup, Signal::STOP).expect("it runs");
            await_event(&scratch, "primary", "solo");
            kill_process(primary, Signal::KILL).expect("it runs");
        }
        kill_process(backup, Signal::KILL).expect("it runs");
        let done = pair.end().expect(1);
        assert!(done.stderr.contains("VM pair is down"), "{done:#?}");
        assert_eq!(done.stdout, "echo: ready\ntogether\n", "one history");
        nothing_is_left(&scratch);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_kept_pair_ends_when_it_is_told_to_and_hands_over_at_will() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut pair = start_with(&scratch, "echo", &["--keep"]);
    await_event(&scratch, "backup", "joined");
    echo(&mut pair, "before");
    let mut command = lockstep(["switchover", "--vm", "pair"]);
    command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
    Process::start(&mut command).end().expect(0);
    pair.await_stderr("it is said", |err| {
        err.contains("the primary left; a new backup joins")
    });
    await_event(&scratch, "backup-2", "joined");
    echo(&mut pair, "after");
    pair.signal(Signal::TERM);
    let done = pair.end().expect(0);
    assert!(!done.stderr.contains("is down"), "{done:#?}");
    nothing_is_left(&scratch);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn events_that_a_cleaner_removes_cost_nobody_the_survivor() {
    for keeps in [&[][..], &["--keep"]] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let mut pair = start_with(&scratch, "echo", keeps);
        await_event(&scratch, "backup", "joined");
        echo(&mut pair, "together");
        let (primary, place) = (named(&scratch, "primary"), places(&scratch).pop());
        for name in ["primary", "backup"] {
            let events = place
                .as_ref()
                .expect("a place")
                .join(format!("{name}.events"));
            fs::remove_file(events).expect("there");
        }
        kill_process(primary, Signal::KILL).expect("it runs");
        echo(&mut pair, "on the survivor");
        pair.end_input();
        let done = pair.end().expect(0);
        assert!(done.stdout.ends_with("echo: done, 2 lines\n"), "{done:#?}");
        nothing_is_left(&scratch);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn backups_that_fail_at_once_are_followed_by_others_ever_more_slowly() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut pair = start_with(&scratch, "echo", &["--keep"]);
    await_event(&scratch, "backup", "joined");
    echo(&mut pair, "together");
    // A directory in the place of their events makes the next backups fail.
    let place = places(&scratch).pop().expect("a place");
    for refused in ["backup-2", "backup-3", "backup-4"] {
        fs::create_dir(place.join(format!("{refused}.events"))).expect("made");
    }
    kill_process(named(&scratch, "primary"), Signal::KILL).expect("it runs");
    await_event(&scratch, "backup-5", "joined");
    echo(&mut pair, "together again");
    pair.end_input();
    let done = pair.end().expect(0);
    assert!(done.stdout.ends_with("echo: done, 2 lines\n"), "{done:#?}");
    let said = "the backup ended with status 2; a new backup joins in ";
    let pauses = done.stderr.split(said).skip(1);
    let pauses: Vec<_> = pauses.filter_map(|text| text.lines().next()).collect();
    // The first pause depends on how long the primary had lived.
    let wanted = [["100ms", "200ms", "400ms"], ["200ms", "400ms", "800ms"]];
    assert!(wanted.iter().any(|w| pauses == w), "{pauses:?}: {done:#?}");
    nothing_is_left(&scratch);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_end_of_a_terminal_ends_a_pair_that_is_kept_and_all_its_files() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut pair = start_with(&scratch, "echo", &["--keep"]);
    echo(&mut pair, "together");
    // A terminal signals all three processes.
    signal(&scratch, "primary", Signal::HUP);
    pair.signal(Signal::HUP);
    pair.end().expect(0);
    nothing_is_left(&scratch);
    let verdict = replay_equal(&scratch.join("logs/primary"));
    assert!(verdict["end"].to_string().contains("stopped"), "{verdict}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_pair_runs_on_when_the_reader_of_its_messages_is_gone() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let path = scratch.join("messages");
    mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).expect("made");
    // As `2> >(head -1)` does: the shell waits until the reader opens it.
    let mut pair = start_as(redirected("2>", &path), &scratch, "echo", &["--keep"]);
    let mut reader = BufReader::new(File::open(&path).expect("opened"));
    let mut first = String::new();
    reader.read_line(&mut first).expect("a line");
    drop(reader);
    echo(&mut pair, "together");
    signal(&scratch, "primary", Signal::KILL);
    await_event(&scratch, "backup-2", "joined");
    echo(&mut pair, "together again");
    pair.end_input();
    pair.end().expect(0);
    nothing_is_left(&scratch);
}

/// A number that an environment variable may set.
fn told(name: &str, otherwise: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Processes that compute for no purpose, until they are dropped.
fn busy(count: usize) -> Vec<Process> {
    let one = |_| Process::start(Command::new("sh").args(["-c", "while :; do :; done"]));
    (0..count).map(one).collect()
}

/// `LOCKSTEP_ROUNDS` failovers one after the other, beside `LOCKSTEP_BUSY` busy processes. Each
/// failover must come from a kill.
#[test]
#[ignore = "plays for some minutes"]
fn a_kept_pair_outlives_fifty_deaths_on_a_busy_host() {
    let rounds = told("LOCKSTEP_ROUNDS", 50);
    let (_stage, scratch) = (stage(), Scratch::new());
    let busy = busy(told("LOCKSTEP_BUSY", 2));
    let mut pair = start_with(&scratch, "echo", &["--keep"]);
    let name = |number: usize| match number {
        0 => "primary".to_owned(),
        1 => "backup".to_owned(),
        _ => format!("backup-{number}"),
    };
    for round in 0..rounds {
        let (runs, follows) = (name(round), name(round + 1));
        await_event(&scratch, &follows, "joined");
        echo(&mut pair, &format!("{runs} runs"));
        kill_process(named(&scratch, &runs), Signal::KILL).expect("it runs");
        echo(&mut pair, &format!("{runs} was killed"));
    }
    await_event(&scratch, &name(rounds + 1), "joined");
    drop(busy);
    pair.end_input();
    let done = pair.end().expect(0);
    let lines = format!("echo: done, {} lines\n", 2 * rounds);
    assert!(done.stdout.ends_with(&lines), "{done:#?}");
    let replaced = done.stderr.matches("a new backup joins").count();
    assert_eq!(replaced, rounds, "one for each death: {done:#?}");
    println!("{rounds} deaths, {replaced} failovers");
    nothing_is_left(&scratch);
}
