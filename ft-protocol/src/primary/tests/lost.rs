//! The backup is lost.

use super::*;
use crate::log::Position;
use crate::reason::HaltReason;

#[test]
fn a_lost_backup_is_claimed_and_a_win_lets_everything_out_in_order() {
    let mut rig = Rig::paired();
    rig.append(9);
    rig.output(1, 3);
    rig.output(2, 9);
    assert_eq!(
        rig.disconnect(),
        [lost_closed(), A::Ask(Q::Claim { generation: 5 })]
    );
    assert!(!rig.primary.may_run() && !rig.primary.accepts_connection());
    // Neither late news nor time lets anything out.
    assert_eq!(rig.ack(9), []);
    assert_eq!(rig.pass(5000), []);
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [
            A::Turn(T::GoSolo { generation: 5 }),
            A::Release { up_to: 2 }
        ]
    );
    assert!(rig.primary.may_run() && rig.primary.is_solo());
    assert_eq!(rig.append(12), []);
    assert_eq!(rig.output(3, 12), [A::Release { up_to: 3 }]);
    assert_eq!(
        rig.claim(ClaimAnswer::Lost { by: THEM }),
        [],
        "nothing was asked"
    );
}

#[test]
fn a_silent_backup_is_lost_after_the_limit_and_an_answer_withdraws_it() {
    let mut rig = Rig::paired();
    for _ in 0..20 {
        let actions = rig.pass(240);
        assert_eq!(actions, vec![heartbeat(); actions.len()]);
        rig.say(Message::Heartbeat);
    }
    let actions = rig.pass(300);
    let [
        ..,
        A::Disconnect,
        A::Turn(T::BackupLost(Loss::Suspected(Suspicion::Silent(_)))),
        claim,
    ] = &actions[..]
    else {
        panic!("{actions:?}");
    };
    assert_eq!(*claim, A::Ask(Q::Claim { generation: 5 }));
}

#[test]
fn a_primary_that_itself_did_not_run_does_not_accuse() {
    let mut rig = Rig::paired();
    rig.now = Time(rig.now.0 + 10_000_000_000);
    rig.primary.handle_tick(rig.now);
    let probe = A::Send(Message::Probe { number: 1 });
    assert_eq!(rig.actions(), [probe]);
    assert_eq!(rig.say(Message::Heartbeat), []);
    assert!(rig.primary.may_run());
}

#[test]
fn a_lost_arbitration_halts_with_status_4_and_nothing_leaves_any_more() {
    let mut rig = Rig::paired();
    rig.append(3);
    rig.output(1, 3);
    rig.disconnect();
    let reason = HaltReason::LostArbitration {
        generation: 5,
        by: THEM,
    };
    assert_eq!(reason.status(), 4);
    assert_eq!(
        rig.claim(ClaimAnswer::Lost { by: THEM }),
        [A::End(E::Halt(reason))]
    );
    assert_eq!(rig.output(2, 3), []);
    assert_eq!(rig.append(4), []);
    assert_eq!(rig.ack(4), []);
    rig.primary.handle_guest_end(rig.now, 4);
    assert_eq!(rig.claim(ClaimAnswer::Won), []);
    assert_eq!(rig.pass(5000), []);
    assert!(!rig.primary.may_run() && !rig.primary.accepts_connection());
}

#[test]
fn an_unreachable_arbiter_is_asked_every_second_and_holds_the_outputs() {
    let mut rig = Rig::paired();
    rig.output(1, 3);
    rig.disconnect();
    for _ in 0..5 {
        assert_eq!(rig.claim(unreachable()), []);
        assert_eq!(rig.pass(999), []);
        assert_eq!(rig.pass(1), [A::Ask(Q::Claim { generation: 5 })]);
        assert_eq!(rig.pass(3000), [], "one question at a time");
    }
    let won = rig.claim(ClaimAnswer::Won);
    assert_eq!(
        won,
        [
            A::Turn(T::GoSolo { generation: 5 }),
            A::Release { up_to: 1 }
        ]
    );
}

#[test]
fn who_has_no_right_to_ask_halts() {
    let mut rig = Rig::paired();
    rig.disconnect();
    let reason = HaltReason::NoRight("gone".into());
    assert_eq!(reason.status(), 1);
    assert_eq!(
        rig.claim(ClaimAnswer::Refused("gone".into())),
        [A::End(E::Halt(reason))]
    );
}

#[test]
fn a_diverged_backup_is_no_backup() {
    let mut rig = Rig::paired();
    let (at, what) = (Position::exit(7), String::from("RIP"));
    let actions = rig.say(Message::Diverged {
        at,
        what: what.clone(),
    });
    let lost = A::Turn(T::BackupLost(Loss::Diverged { at, what }));
    assert_eq!(
        actions,
        [A::Disconnect, lost, A::Ask(Q::Claim { generation: 5 })]
    );
}

#[test]
fn a_backup_that_breaks_the_protocol_is_lost() {
    let nonsense = [
        Message::Ack {
            received: 4,
            consumed: 0,
            executed: 0,
        },
        Message::Ack {
            received: 3,
            consumed: 301,
            executed: 0,
        },
        Message::Ack {
            received: 2,
            consumed: 0,
            executed: 3,
        },
        Message::Handover,
        Message::Ready,
        hello(),
        Message::Log { frames: vec![] },
        Message::Bye,
        Message::Released { output: 1 },
    ];
    for message in nonsense {
        let mut rig = Rig::paired();
        rig.append(3);
        let actions = rig.say(message.clone());
        let claim = A::Ask(Q::Claim { generation: 5 });
        let good = matches!(
            &actions[..],
            [A::Disconnect, A::Turn(T::BackupLost(Loss::Broke(_))), c] if *c == claim
        );
        assert!(good, "{message:?}: {actions:?}");
    }
}

#[test]
fn a_backup_lost_before_the_start_makes_room_for_the_next_generation() {
    for lose in [0, 1, 2] {
        let mut rig = Rig::joining();
        let mut actions = match lose {
            0 => rig.disconnect(),
            1 => rig.pass(11_000),
            _ => rig.say(Message::Refuse {
                reason: "no TAP".into(),
            }),
        };
        assert_eq!(actions.pop(), Some(A::Ask(Q::Claim { generation: 5 })));
        assert!(matches!(actions.pop(), Some(A::Turn(T::BackupLost(_)))));
        assert!(!rig.primary.accepts_connection());
        assert_eq!(rig.claim(ClaimAnswer::Won), []);
        assert!(!rig.primary.may_run() && rig.primary.accepts_connection());
        rig.join(6);
        assert_eq!(rig.say(Message::Ready), [A::Turn(T::Start)]);
        assert_eq!(
            rig.disconnect(),
            [lost_closed(), A::Ask(Q::Claim { generation: 6 })]
        );
    }
}

#[test]
fn a_backup_lost_before_the_start_may_have_won() {
    let mut rig = Rig::joining();
    rig.disconnect();
    let reason = HaltReason::LostArbitration {
        generation: 5,
        by: THEM,
    };
    assert_eq!(
        rig.claim(ClaimAnswer::Lost { by: THEM }),
        [A::End(E::Halt(reason))]
    );
}

#[test]
fn a_backup_lost_while_the_generation_opens_is_claimed_once_it_is_open() {
    let mut rig = Rig::new(false);
    rig.primary.handle_connected(rig.now);
    rig.say(hello());
    assert_eq!(rig.disconnect(), [lost_closed()]);
    assert!(!rig.primary.accepts_connection());
    rig.primary.handle_opened(rig.now, OpenAnswer::Opened);
    assert_eq!(rig.actions(), [A::Ask(Q::Claim { generation: 5 })]);
    rig.claim(ClaimAnswer::Won);
    rig.join(6);
}

#[test]
fn a_fence_that_fails_is_tried_again_and_holds_everything() {
    let mut rig = Rig::paired();
    rig.append(3);
    rig.output(1, 3);
    rig.disconnect();
    rig.primary.handle_claim(rig.now, ClaimAnswer::Won);
    let fence = A::Ask(Q::Fence { generation: 5 });
    assert_eq!(rig.actions(), std::slice::from_ref(&fence));
    for _ in 0..3 {
        rig.primary.handle_fenced(rig.now, false);
        assert_eq!(rig.actions(), []);
        assert!(!rig.primary.may_run() && !rig.primary.is_solo());
        assert_eq!(rig.pass(1000), std::slice::from_ref(&fence));
    }
    rig.primary.handle_fenced(rig.now, true);
    let alone = [
        A::Turn(T::GoSolo { generation: 5 }),
        A::Release { up_to: 1 },
    ];
    assert_eq!(rig.actions(), alone);
    rig.primary.handle_fenced(rig.now, true);
    assert_eq!(rig.actions(), [], "nothing was asked");
}

#[test]
fn a_backup_that_leaves_is_lost_without_a_wait() {
    let mut rig = Rig::paired();
    assert_eq!(
        rig.say(Message::Leave),
        [
            A::Disconnect,
            A::Turn(T::BackupLost(Loss::Left)),
            A::Ask(Q::Claim { generation: 5 })
        ]
    );
}
