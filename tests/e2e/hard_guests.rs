//! Guests that do unusual things: interrupts at CPL 0, pending exceptions, no exits, halts under a
//! storm of timer expiries.

use crate::harness::{LIMIT, Process, Scratch, lockstep, replay_equal, run};
use crate::member::{Member, Told, pair, stage};
use ft_protocol::log::file::read_all;
use ft_protocol::log::{Entry, Event};
use rustix::process::Signal;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// The sentence about a guest that never exits with interrupts on.
const UNHEARD: &str = "the guest had interrupts off at each of its last";

fn entries(dir: &Path) -> Vec<Entry> {
    let log = File::open(dir.join("log")).expect("a log");
    read_all(log).expect("sound").1
}

fn clock_entries(dir: &Path) -> usize {
    let entries = entries(dir);
    let clock = |event: &Event| matches!(event, Event::Clock { .. });
    entries.iter().filter(|entry| clock(&entry.event)).count()
}

/// The output of `positions` depends on where interrupts come at CPL 0, with all ways to turn them on
/// and off there: if one place of a thousand is not exact, the replay diverges.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn interrupts_at_cpl_0_replay_to_the_bit() {
    let scratch = Scratch::new();
    for round in 0..3 {
        let name = format!("positions-{round}");
        run(["run", "positions", "--record", &scratch.arg(&name)]).expect(0);
        let first = replay_equal(&scratch.join(&name));
        for _ in 1..4 {
            assert_eq!(replay_equal(&scratch.join(&name)), first);
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_pair_agrees_where_interrupts_come_at_cpl_0() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (primary, backup) = pair(&scratch, "positions", &Told::new(&scratch));
    let primary = primary.process.end().expect(0);
    assert!(primary.stdout.contains("positions: done"), "{primary:#?}");
    backup.process.end().expect(0);
    let verdict = replay_equal(&scratch.join("primary"));
    assert_eq!(replay_equal(&scratch.join("backup")), verdict);
}

/// The guest turns interrupts on only between its exits. It gets none there, its user is warned once,
/// and it replays.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_guest_that_exits_with_interrupts_off_takes_none_and_its_user_is_told() {
    let scratch = Scratch::new();
    let done = run(["run", "deaf", "--record", &scratch.arg("deaf")]).expect(0);
    let none = "deaf: 0 interrupts came between exits\n";
    assert!(done.stdout.starts_with(none), "{done:#?}");
    assert_eq!(done.stderr.matches(UNHEARD).count(), 1, "{done:#?}");
    let first = replay_equal(&scratch.join("deaf"));
    for _ in 1..3 {
        assert_eq!(replay_equal(&scratch.join("deaf")), first);
    }
}

/// An 8254 that expires a million times a second, with its line masked, does not disturb a halt.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_halt_under_a_timer_that_cannot_interrupt_makes_no_entries() {
    const REST: Duration = Duration::from_secs(1);
    let scratch = Scratch::new();
    let dir = scratch.arg("deaf");
    let mut deaf = Process::with_input(&mut lockstep(["run", "deaf", "--record", &dir]));
    deaf.await_stdout("the guest halts", |out| out.contains("deaf: halts\n"));
    let began = clock_entries(&scratch.join("deaf"));
    // This sleep is the subject of the test: nothing must happen for this time.
    let rests = Instant::now();
    std::thread::sleep(REST);
    deaf.end_input();
    let rested = rests.elapsed();
    let done = deaf.end().expect(0);
    assert!(
        done.stdout.contains("deaf: done, woken 1 times"),
        "{done:#?}"
    );
    let grown = clock_entries(&scratch.join("deaf")) - began;
    assert!(grown < 100, "{grown} entries in {rested:?}");
    replay_equal(&scratch.join("deaf"));
}

/// The machine is copied at a HLT with a pending debug exception.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_vm_with_an_exception_due_is_joined_and_survives() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut primary = Member::primary(&scratch, "primary", "traps", &told.and(&["--solo"]));
    primary.await_event("started");
    let ready = |out: &str| out.contains("traps: ready\n");
    primary.process.await_stdout("the guest is ready", ready);
    let mut backup = Member::backup(&scratch, "backup", &told);
    backup.await_event("joined");
    primary.await_event("protected");
    primary.kill();
    backup.await_event("live");
    backup.process.end_input();
    let done = backup.process.end().expect(0);
    assert!(done.stdout.contains("traps: done, "), "{done:#?}");
    replay_equal(&scratch.join("backup"));
}

/// A log that ends while its guest is in a loop without an exit has no next position at which a replay
/// could stop.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_that_was_cut_in_a_loop_without_exits_replays_to_its_end() {
    let scratch = Scratch::new();
    let dir = scratch.arg("stuck");
    let stuck = Process::start(&mut lockstep(["run", "stuck", "--record", &dir]));
    stuck.await_stdout("the guest loops", |out| out.contains("stuck: no exit"));
    // Another thread writes the log: wait for the output, and for the mark that the guest left that
    // position.
    let deadline = Instant::now() + LIMIT;
    let left = |entries: &[Entry]| {
        let output = |entry: &Entry| matches!(entry.event, Event::Output(_));
        let [.., clock, progress] = entries else {
            return false;
        };
        entries.iter().any(output)
            && matches!(clock.event, Event::Clock { .. })
            && progress.event == Event::Progress
    };
    while !left(&entries(&scratch.join("stuck"))) {
        assert!(Instant::now() < deadline, "the log is not written");
        std::thread::sleep(Duration::from_millis(5));
    }
    stuck.signal(Signal::KILL);
    stuck.end();
    let verdict = replay_equal(&scratch.join("stuck"));
    assert_eq!(verdict["cut"], true, "{verdict}");
    assert_eq!(verdict["outputs"], 1, "{verdict}");
    let told = run(["replay", &dir, "--verify"]).expect(0).stdout;
    assert!(told.contains("the log was cut"), "{told}");
    let printed = run(["replay", &dir]).expect(0).stdout;
    assert_eq!(printed, "stuck: no exit from here on\n");
    // An exit that the guest never makes.
    let until = run(["replay", &dir, "--until", "1000000", "--json"]).expect(0);
    assert_eq!(until.json()["position"], verdict["position"]);
}

/// A backup goes live even if its guest makes no exit any more.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_goes_live_inside_a_loop_without_exits() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (primary, mut backup) = pair(&scratch, "stuck", &Told::new(&scratch));
    let looping = |out: &str| out.contains("stuck: no exit");
    primary.process.await_stdout("the guest loops", looping);
    primary.kill();
    assert_eq!(backup.await_event("live")["generation"], 1);
    backup.kill();
    // The backup's log ends where the guest left its last position; it took over after that.
    let verdict = replay_equal(&scratch.join("backup"));
    assert_eq!(verdict["cut"], true, "{verdict}");
}
