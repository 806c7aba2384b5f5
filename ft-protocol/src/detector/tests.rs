use super::*;

const MS: u64 = 1_000_000;

fn ms(n: u64) -> Time {
    Time(n * MS)
}

fn detector() -> Detector {
    let timing = Timing::default();
    Detector::new(&timing, timing.silence, ms(0))
}

/// Ticks on time from after `from` to `to`; the first suspicion and when.
fn run(detector: &mut Detector, from: u64, to: u64) -> Option<(u64, Suspicion)> {
    (from + 1..=to).find_map(|t| {
        let ticked = detector.tick(ms(t));
        detector.suspicion().filter(|_| ticked).map(|s| (t, s))
    })
}

#[test]
fn silence_is_suspected_after_its_limit_and_not_before() {
    let mut detector = detector();
    let silent = Suspicion::Silent(Duration::from_millis(250));
    assert_eq!(run(&mut detector, 0, 1000), Some((250, silent)));
}

#[test]
fn a_peer_that_is_heard_is_not_suspected_and_a_suspicion_is_withdrawn() {
    let mut detector = detector();
    for t in (0..2000).step_by(240) {
        assert_eq!(run(&mut detector, t, t + 240), None);
        detector.heard(ms(t + 240));
    }
    assert!(run(&mut detector, 2160, 5000).is_some());
    detector.heard(ms(5000));
    assert_eq!(detector.suspicion(), None);
    // News that comes out of order takes nothing back.
    detector.heard(ms(1));
    assert_eq!(run(&mut detector, 5000, 5240), None);
}

#[test]
fn a_side_that_did_not_run_itself_accuses_nobody() {
    let mut detector = detector();
    assert_eq!(run(&mut detector, 0, 240), None);
    // Nothing ran for a second: that silence is our own.
    assert!(detector.tick(ms(1240)));
    assert_eq!(detector.suspicion(), None);
    assert_eq!(run(&mut detector, 1240, 1480), None);
    assert!(run(&mut detector, 1480, 1500).is_some());
}

#[test]
fn a_side_that_is_always_late_finds_a_dead_peer_all_the_same() {
    let mut detector = detector();
    let t = (1..100).map(|n| n * 100).find(|&t| {
        assert!(detector.tick(ms(t)));
        detector.suspicion().is_some()
    });
    // The first is forgiven, each of the others counts 60 ms.
    assert_eq!(t, Some(600));
}

#[test]
fn a_side_that_is_always_late_and_hears_its_peer_accuses_nobody() {
    let mut detector = detector();
    for t in (0..10_000).step_by(200) {
        detector.heard_beat(ms(t));
        assert!(detector.tick(ms(t + 200)));
        assert_eq!(detector.suspicion(), None);
    }
}

#[test]
fn a_tick_a_little_late_still_counts() {
    let mut detector = detector();
    let late = Timing::default().heartbeat.as_millis() as u64 * u64::from(LATE_TICKS);
    let t = (1..).map(|n| n * late).find(|&t| {
        assert!(detector.tick(ms(t)));
        detector.suspicion().is_some()
    });
    assert_eq!(t, Some(300));
}

#[test]
fn a_tick_that_was_put_off_is_late_later() {
    let mut detector = detector();
    detector.put_off(Duration::from_millis(35));
    assert!(!detector.is_late(ms(95)) && detector.is_late(ms(96)));
    assert!(detector.tick(ms(55)));
    // That holds for one tick.
    assert!(!detector.is_late(ms(115)) && detector.is_late(ms(116)));
    // The limit of silence is the same.
    detector.put_off(Duration::from_millis(35));
    assert!(detector.tick(ms(150)));
    detector.put_off(Duration::from_millis(35));
    assert!(detector.tick(ms(245)));
    assert_eq!(detector.next_tick(), ms(250));
    let suspected = run(&mut detector, 245, 255).map(|(t, _)| t);
    assert_eq!(suspected, Some(250));
}

#[test]
fn a_closed_connection_skips_the_wait_and_is_not_withdrawn() {
    let mut detector = detector();
    detector.closed();
    assert_eq!(detector.suspicion(), Some(Suspicion::Closed));
    detector.heard(ms(1));
    assert_eq!(detector.suspicion(), Some(Suspicion::Closed));
}

#[test]
fn another_limit_starts_anew() {
    let mut detector = detector();
    detector.relimit(Duration::from_secs(10), ms(200));
    assert_eq!(run(&mut detector, 200, 10_190), None);
    assert!(run(&mut detector, 10_190, 10_220).is_some());
}

#[test]
fn ticks_are_due_every_heartbeat() {
    let mut detector = detector();
    assert_eq!(detector.next_tick(), ms(20));
    assert!(!detector.tick(ms(19)));
    assert!(detector.tick(ms(23)));
    assert_eq!(detector.next_tick(), ms(43));
}

#[test]
fn beats_by_udp_keep_a_silent_channel_alive_but_not_for_ever() {
    let mut detector = detector();
    let suspected = (1..10_000).find_map(|t| {
        if t % 20 == 0 {
            detector.heard_beat(ms(t));
        }
        let ticked = detector.tick(ms(t));
        detector.suspicion().filter(|_| ticked).map(|s| (t, s))
    });
    let stuck = Suspicion::Stuck(Duration::from_secs(2));
    assert_eq!(suspected, Some((2000, stuck)));
    detector.heard(ms(2001));
    assert_eq!(detector.suspicion(), None);
}

#[test]
fn the_patience_with_a_pair_in_the_making_ends_when_it_is_made() {
    let timing = Timing::default();
    let mut detector = Detector::new(&timing, timing.joining, ms(0));
    detector.relimit(timing.silence, ms(0));
    for t in (20..2000).step_by(20) {
        detector.heard_beat(ms(t));
        assert!(detector.tick(ms(t)) && detector.suspicion().is_none());
    }
    detector.heard_beat(ms(2000));
    assert!(detector.tick(ms(2000)));
    let stuck = Suspicion::Stuck(Duration::from_secs(2));
    assert_eq!(detector.suspicion(), Some(stuck));
}

#[test]
fn a_channel_that_speaks_needs_no_beats() {
    let mut detector = detector();
    for t in 1..3000 {
        detector.heard(ms(t));
        detector.tick(ms(t));
        assert_eq!(detector.suspicion(), None);
    }
}

#[test]
fn silence_is_looked_at_when_it_becomes_suspicious_not_a_tick_later() {
    let mut detector = detector();
    detector.heard(ms(5));
    for t in (20..=240).step_by(20) {
        assert!(detector.tick(ms(t)));
    }
    assert_eq!(detector.next_tick(), ms(255));
    assert!(detector.tick(ms(255)));
    let silent = Suspicion::Silent(Duration::from_millis(250));
    assert_eq!(detector.suspicion(), Some(silent));
    assert_eq!(detector.next_tick(), ms(275));
}
