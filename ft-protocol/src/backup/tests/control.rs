//! Beats, a vCPU that does not answer, fences, taking over on purpose, leaving.

use super::*;
use crate::wire::Beat;
use crate::wire::Request;

fn beat(count: u64) -> Beat {
    Beat {
        generation: 5,
        from: THEM,
        count,
    }
}

#[test]
fn beats_withdraw_a_suspicion_for_silence_but_not_a_stuck_channel() {
    let mut rig = Rig::behind(1);
    assert!(matches!(rig.pass(260)[..], [A::Turn(T::Suspect(_))]));
    rig.backup.handle_beat(rig.now, beat(1));
    assert_eq!(rig.actions(), [A::Turn(T::Withdraw)]);
    let mut count = 1;
    let suspected = loop {
        count += 1;
        rig.backup.handle_beat(rig.now, beat(count));
        let actions = rig.pass(100);
        if !actions.is_empty() {
            break actions;
        }
    };
    let stuck = Suspicion::Stuck(std::time::Duration::from_secs(2));
    assert!(
        matches!(
            &suspected[..],
            [A::Turn(T::Suspect(Loss::Suspected(Suspicion::Stuck(_))))]
        ),
        "{suspected:?}, {stuck} was due"
    );
    rig.backup.handle_beat(rig.now, beat(count + 1));
    assert_eq!(rig.actions(), []);
    // The channel itself withdraws it.
    assert_eq!(rig.say(Message::Heartbeat), [A::Turn(T::Withdraw)]);
}

#[test]
fn beats_of_others_and_old_ones_withdraw_nothing() {
    let mut rig = Rig::behind(1);
    rig.backup.handle_beat(rig.now, beat(3));
    rig.pass(300);
    let stranger = Beat {
        from: MemberId(9),
        ..beat(4)
    };
    let old = Beat {
        generation: 4,
        ..beat(4)
    };
    for bad in [beat(3), stranger, old] {
        rig.backup.handle_beat(rig.now, bad);
        assert_eq!(rig.actions(), [], "{bad:?}");
    }
}

#[test]
fn a_vcpu_that_hangs_makes_this_side_mute_and_what_it_owes_comes_when_it_answers() {
    let mut rig = Rig::following();
    rig.backup.handle_vcpu(false);
    let actions = rig.log(&[entry(1, Event::Progress)]);
    assert!(matches!(actions[..], [A::Deliver(_)]), "{actions:?}");
    for _ in 0..10 {
        rig.now = rig.backup.poll_timeout().unwrap();
        rig.backup.handle_tick(rig.now);
        assert_eq!(rig.all_actions(), []);
    }
    rig.backup.handle_vcpu(true);
    assert_eq!(rig.actions(), [ack(1, 0)]);
    rig.backup.handle_vcpu(true);
    assert_eq!(rig.actions(), []);
}

#[test]
fn what_was_executed_is_told_with_the_next_tick() {
    let mut rig = Rig::behind(2);
    rig.drained(2);
    let told = A::Send(Message::Ack {
        received: 2,
        consumed: 0,
        executed: 2,
    });
    assert_eq!(rig.pass(20), [told]);
    assert_eq!(rig.pass(20), []);
}

#[test]
fn nobody_is_live_before_the_fence_succeeds() {
    let mut rig = Rig::following();
    rig.disconnect();
    rig.backup.handle_claim(rig.now, ClaimAnswer::Won);
    let fence = A::Ask(Q::Fence { generation: 5 });
    assert_eq!(rig.actions(), std::slice::from_ref(&fence));
    for _ in 0..3 {
        rig.backup.handle_fenced(rig.now, false);
        assert_eq!(rig.actions(), []);
        assert!(!rig.backup.is_live());
        assert_eq!(rig.pass(1000), std::slice::from_ref(&fence));
    }
    rig.backup.handle_fenced(rig.now, true);
    assert_eq!(rig.actions()[0], A::Turn(T::EmitHeld));
    assert!(rig.backup.is_live());
}

#[test]
fn a_handover_is_claimed_without_a_suspicion_and_a_fence_and_bye_says_when_it_is_done() {
    let mut rig = Rig::behind(1);
    assert_eq!(rig.say(Message::Handover), [A::Turn(T::TakeOver)]);
    assert_eq!(rig.drained(1), [A::Ask(Q::Claim { generation: 5 })]);
    // What was on its way means nothing any more.
    assert_eq!(rig.say(Message::Released { output: 1 }), []);
    rig.backup.handle_claim(rig.now, ClaimAnswer::Won);
    assert_eq!(
        rig.actions(),
        [
            A::Turn(T::EmitHeld),
            A::Send(Message::Bye),
            A::Disconnect,
            A::Turn(T::Announce),
            A::End(E::Live { generation: 5 })
        ]
    );
}

#[test]
fn a_primary_that_dies_after_the_handover_changes_nothing() {
    let mut rig = Rig::behind(1);
    rig.say(Message::Handover);
    assert_eq!(rig.disconnect(), []);
    assert_eq!(rig.drained(1), [A::Ask(Q::Claim { generation: 5 })]);
    assert_eq!(rig.claim(ClaimAnswer::Won)[0], A::Turn(T::EmitHeld));
}

#[test]
fn a_backup_leaves_with_a_word_but_not_once_it_has_asked() {
    let mut rig = Rig::following();
    assert!(rig.backup.handle_leave(rig.now));
    assert_eq!(rig.actions(), [A::Send(Message::Leave), A::Disconnect]);
    assert_eq!(rig.pass(5000), []);
    let mut rig = Rig::new(Expectations::default());
    assert!(rig.backup.handle_leave(rig.now));
    assert_eq!(rig.actions(), []);
    let mut rig = Rig::following();
    rig.disconnect();
    assert!(!rig.backup.handle_leave(rig.now));
    rig.claim(ClaimAnswer::Won);
    assert!(!rig.backup.handle_leave(rig.now));
}

#[test]
fn what_an_operator_asks_for_goes_to_the_primary_if_there_is_one() {
    let mut rig = Rig::following();
    assert!(rig.backup.handle_request(rig.now, Request::Stop));
    let passed_on = A::Send(Message::Request(Request::Stop));
    assert_eq!(rig.actions(), [passed_on]);
    rig.disconnect();
    assert!(!rig.backup.handle_request(rig.now, Request::Stop));
}

#[test]
fn a_machine_that_is_not_as_it_was_told_is_refused() {
    let differing = [
        Expectations {
            image: Some(1),
            ..Expectations::default()
        },
        Expectations {
            quantum: Some(1),
            ..Expectations::default()
        },
        Expectations {
            gateway: Some([9; 4]),
            ..Expectations::default()
        },
    ];
    for (expect, word) in differing.into_iter().zip(["image", "quantum", "gw="]) {
        let mut rig = Rig::new(expect);
        rig.connect();
        let reason = refusal(&rig.say(welcome(5)));
        assert!(reason.contains(word), "{reason}");
    }
}
