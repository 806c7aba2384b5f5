//! Beats by UDP, a vCPU that does not answer, and the lag.

use super::*;
use crate::lag::LAG_TARGET;

fn beat(count: u64) -> Beat {
    Beat {
        generation: 5,
        from: THEM,
        count,
    }
}

#[test]
fn every_tick_sends_a_beat_that_counts_up() {
    let mut rig = Rig::paired();
    let mut counts = Vec::new();
    while rig.now < Time(100_000_000) {
        rig.now = rig.primary.poll_timeout().unwrap();
        rig.primary.handle_tick(rig.now);
        counts.extend(rig.all_actions().into_iter().filter_map(|a| match a {
            A::Beat(Beat {
                generation: 5,
                from: ME,
                count,
            }) => Some(count),
            _ => None,
        }));
    }
    assert_eq!(counts, [1, 2, 3, 4, 5]);
}

#[test]
fn beats_keep_a_silent_backup_but_its_channel_must_speak_in_the_end() {
    let mut rig = Rig::paired();
    let mut count = 0;
    let lost = loop {
        count += 1;
        assert!(rig.primary.handle_beat(rig.now, beat(count)));
        let actions = rig.pass(100);
        if let Some(lost) = actions.into_iter().find(|a| *a != heartbeat()) {
            break lost;
        }
    };
    assert_eq!(lost, A::Disconnect);
    let given_up = Time(2_000_000_000)..Time(2_200_000_000);
    assert!(given_up.contains(&rig.now), "{:?}", rig.now);
    assert!(!rig.primary.handle_beat(rig.now, beat(count + 1)));
}

#[test]
fn beats_of_others_old_ones_and_repeated_ones_count_for_nothing() {
    let mut rig = Rig::paired();
    assert!(rig.primary.handle_beat(rig.now, beat(7)));
    let stranger = Beat {
        from: MemberId(9),
        ..beat(8)
    };
    let old = Beat {
        generation: 4,
        ..beat(8)
    };
    for bad in [beat(7), beat(1), stranger, old] {
        assert!(!rig.primary.handle_beat(rig.now, bad), "{bad:?}");
    }
    assert!(rig.primary.handle_beat(rig.now, beat(8)));
}

#[test]
fn a_vcpu_that_hangs_makes_this_side_mute_and_it_claims_only_once_it_answers() {
    let mut rig = Rig::paired();
    rig.primary.handle_vcpu(false);
    for _ in 0..10 {
        rig.now = rig.primary.poll_timeout().unwrap();
        rig.primary.handle_tick(rig.now);
        assert_eq!(rig.all_actions(), []);
    }
    assert_eq!(rig.disconnect(), [lost_closed()]);
    assert_eq!(rig.pass(5000), []);
    let looks_again = rig.primary.poll_timeout().expect("it may answer again");
    assert!(looks_again <= Time(rig.now.0 + 20_000_000));
    rig.primary.handle_vcpu(true);
    assert_eq!(rig.actions(), [A::Ask(Q::Claim { generation: 5 })]);
    rig.primary.handle_vcpu(true);
    assert_eq!(rig.actions(), []);
}

#[test]
fn the_lag_is_measured_by_what_was_executed_and_throttles() {
    let mut rig = Rig::paired();
    rig.append(4);
    rig.now = rig.now.after(LAG_TARGET * 3);
    assert_eq!(rig.primary.lag(rig.now), LAG_TARGET * 3);
    rig.primary.handle_tick(rig.now);
    let rest = rig.primary.rest();
    assert!(rest > 0);
    rig.say(Message::Ack {
        received: 4,
        consumed: 0,
        executed: 4,
    });
    assert!(rig.primary.lag(rig.now).is_zero());
    rig.pass(20);
    assert!(rig.primary.rest() < rest);
    // Alone there is nobody to wait for.
    rig.append(5);
    rig.now = rig.now.after(LAG_TARGET * 3);
    rig.disconnect();
    assert_eq!(rig.primary.rest(), 0);
}
