//! Changes of a host's network under a running guest.

use crate::harness::{LOCKSTEP, Process, Scratch};
use crate::kv::{GUEST, await_ping, benchmark, cli, kv_pair, recorded_kv, stop};
use crate::member::stage;
use crate::network::{Place, Segment};
use crate::operator::{operator, status};
use lockstep_events::LinkState;
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a side is stopped: until long after its peer went live.
const STOPPED: Duration = Duration::from_secs(5);
/// How long a backup rests while its primary's outputs wait for it: too short for a suspicion.
const REST: Duration = Duration::from_millis(80);
/// How long a primary is stopped without being suspected: long enough that it distrusts itself.
const MOMENT: Duration = Duration::from_millis(100);
/// Bridges must know where the survivor is within this time.
const KNOWN_LIMIT: Duration = Duration::from_secs(5);

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn a_primary_that_was_stopped_under_load_says_nothing_once_it_wakes_up() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let (primary, mut backup) = kv_pair(&scratch, &segment);
    let mac = segment.mac_of(GUEST);
    let args = ["-c", "50", "-P", "4", "-n", "100000000", "-t", "get"];
    let load = benchmark(&segment, &args);
    load.await_stdout("the load is on", |out| out.contains("rps="));
    // The primary's outputs wait for the backup, which rests. When the backup acknowledges them, the
    // primary is stopped: the acknowledgements, which would let the outputs go, wait in its socket.
    backup.process.signal(Signal::STOP);
    std::thread::sleep(REST);
    primary.process.signal(Signal::STOP);
    backup.process.signal(Signal::CONT);
    let stopped = Instant::now();
    backup.await_event("live");
    drop(load);
    std::thread::sleep(STOPPED.saturating_sub(stopped.elapsed()));
    assert_eq!(segment.port_of(&mac).as_deref(), Some("to-b"));

    let before = segment.frames_from(Place::A);
    // Nothing that the primary sends to its peer arrives: a reset would come before it could read the
    // acknowledgements.
    segment.ip(Place::A, &["route", "add", "blackhole", "10.78.0.2"]);
    primary.process.signal(Signal::CONT);
    primary.process.end().one_sentence(4);
    assert_eq!(
        segment.frames_from(Place::A) - before,
        0,
        "frames from the dead"
    );
    assert_eq!(segment.port_of(&mac).as_deref(), Some("to-b"));
    assert_eq!(cli(&segment, &["PING"]), "PONG");
    backup.process.signal(Signal::TERM);
    backup.process.end().expect(0);
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn a_primary_that_was_stopped_for_a_moment_serves_on_once_its_backup_has_answered() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let (primary, backup) = kv_pair(&scratch, &segment);
    for _ in 0..5 {
        primary.process.signal(Signal::STOP);
        std::thread::sleep(MOMENT);
        primary.process.signal(Signal::CONT);
        assert_eq!(cli(&segment, &["PING"]), "PONG");
    }
    let members = status(&scratch, "kv");
    let mut states: Vec<&str> = members.iter().map(|m| &*m.state).collect();
    states.sort_unstable();
    assert_eq!(states, ["protected", "protecting"]);
    drop((primary, backup));
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn a_survivor_tells_bridges_that_learn_otherwise_where_the_guest_is() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let (primary, mut backup) = kv_pair(&scratch, &segment);
    let mac = segment.mac_of(GUEST);
    primary.kill();
    backup.await_event("live");
    // No client asks the guest anything, and it sends nothing by itself.
    std::thread::sleep(STOPPED);
    segment.forget("to-b");
    let forgotten = Instant::now();
    while segment.port_of(&mac).as_deref() != Some("to-b") {
        assert!(
            forgotten.elapsed() < KNOWN_LIMIT,
            "{:?}",
            segment.port_of(&mac)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    backup.process.signal(Signal::TERM);
    backup.process.end().expect(0);
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn a_machine_whose_tap_is_removed_runs_on_and_takes_it_up_again() {
    let (_stage, segment) = (stage(), Segment::new());
    let mut command = segment.command(Place::A, LOCKSTEP);
    let kv = Process::start(command.args(["run", "kv", "--net", "tap=tap0"]));
    await_ping(&segment);
    assert_eq!(cli(&segment, &["SET", "kept", "yes"]), "OK");
    segment.ip(Place::A, &["link", "set", "tap0", "down"]);
    kv.await_stderr("it is told", |err| err.contains("TAP tap0 is down"));
    segment.ip(Place::A, &["link", "set", "tap0", "up"]);
    assert_eq!(cli(&segment, &["GET", "kept"]), "yes");
    for _ in 0..2 {
        segment.ip(Place::A, &["link", "del", "tap0"]);
        segment.make_tap(Place::A);
        await_ping(&segment);
        assert_eq!(cli(&segment, &["GET", "kept"]), "yes");
    }
    kv.signal(Signal::TERM);
    let done = kv.end().expect(0);
    let warnings = done.stderr.matches("WARN").count();
    assert_eq!(warnings, 1, "one for all of that within seconds: {done:#?}");
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn trouble_with_a_members_tap_is_told_and_a_guest_without_network_is_handed_over() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let (mut primary, mut backup) = kv_pair(&scratch, &segment);
    for (place, member) in [(Place::A, &mut primary), (Place::B, &mut backup)] {
        segment.ip(place, &["link", "set", "tap0", "down"]);
        let event = member.await_event("network");
        assert_eq!(
            (&event["tap"], &event["link"]),
            (&"tap0".into(), &"down".into())
        );
    }
    for member in status(&scratch, "kv") {
        let network = member.network.expect("a TAP");
        assert_eq!((&*network.tap, network.link), ("tap0", LinkState::Down));
    }
    let text = operator(&scratch, ["status", "--vm", "kv"]).end().expect(0);
    assert_eq!(text.stdout.matches("TAP tap0 is down").count(), 2);
    for (place, member) in [(Place::A, &mut primary), (Place::B, &mut backup)] {
        segment.ip(place, &["link", "set", "tap0", "up"]);
        assert_eq!(member.await_nth("network", 2)["link"], "up");
    }
    await_ping(&segment);

    segment.ip(Place::A, &["link", "del", "tap0"]);
    assert_eq!(primary.await_nth("network", 3)["link"], "gone");
    primary.await_event("handed_over");
    let done = primary.process.end().expect(0);
    assert!(done.stderr.contains("TAP tap0 is"), "{done:#?}");
    backup.await_event("live");
    await_ping(&segment);

    // Alone, the backup goes on without a TAP until there is one again.
    segment.ip(Place::B, &["link", "del", "tap0"]);
    assert_eq!(backup.await_nth("network", 3)["link"], "gone");
    segment.make_tap(Place::B);
    // The TAP may be seen before it is up.
    let mut events = 4..;
    while backup.await_nth("network", events.next().expect("a number"))["link"] != "up" {}
    await_ping(&segment);
    backup.process.signal(Signal::TERM);
    backup.process.end().expect(0);
}

/// Length of a recording's log, bytes.
fn log_bytes(recording: &Path) -> u64 {
    let log = recording.join("log").metadata();
    log.expect("it is recorded").len()
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn frames_for_others_are_not_logged() {
    const FRAMES: u64 = 3000;
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let recording = scratch.join("kv");
    let kv = recorded_kv(&scratch, &segment);
    // An address that no bridge knows: frames to it go to every port.
    let other = ["10.77.0.9", "lladdr", "02:00:00:00:00:77", "dev", "br0"];
    let add = ["neigh", "add"];
    segment.ip(Place::Middle, &[&add[..], &other].concat());
    let before = log_bytes(&recording);
    let script = format!("for n in $(seq {FRAMES}); do echo > /dev/udp/10.77.0.9/9; done");
    let mut flood = segment.command(Place::Middle, "bash");
    Process::start(flood.args(["-c", &script])).end().expect(0);
    // This request is answered only after everything before it was handled.
    assert_eq!(cli(&segment, &["PING"]), "PONG");
    stop(kv);
    let grew = log_bytes(&recording) - before;
    assert!(
        grew < FRAMES * 20,
        "{grew} bytes of log for {FRAMES} foreign frames"
    );
}
