//! The primary is lost, or done.

use super::*;
use crate::question::{ASK_AGAIN, CLOSE_ATTEMPTS};

#[test]
fn it_replays_everything_acknowledged_before_it_asks() {
    let mut rig = Rig::behind(3);
    assert_eq!(rig.drained(2), []);
    assert_eq!(rig.disconnect(), [A::Turn(T::Suspect(closed()))]);
    assert_eq!(rig.pass(5000), []);
    assert_eq!(rig.drained(3), [A::Ask(Q::Claim { generation: 5 })]);
    assert_eq!(rig.drained(3), []);
    let live = A::End(E::Live { generation: 5 });
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [A::Turn(T::EmitHeld), A::Turn(T::Announce), live]
    );
    assert!(rig.backup.is_live());
    assert_eq!(rig.backup.survivor(2).outputs, 2);
}

#[test]
fn a_backup_whose_record_is_gone_is_not_live_and_asks_again() {
    let mut rig = Rig::following();
    let right = rig.backup.standing().expect("it is half of a pair").right;
    assert_eq!(right.generation, 5);
    rig.disconnect();
    assert_eq!(rig.backup.standing(), None);
    for _ in 0..5 {
        assert_eq!(rig.claim(ClaimAnswer::Missing("gone".into())), []);
        assert_eq!(rig.pass(1000), [A::Ask(Q::Claim { generation: 5 })]);
    }
    assert!(!rig.backup.is_live());
    rig.claim(ClaimAnswer::Won);
    assert!(rig.backup.is_live());
}

#[test]
fn with_everything_replayed_it_asks_at_once() {
    let mut rig = Rig::behind(3);
    rig.drained(3);
    assert_eq!(
        rig.disconnect(),
        [
            A::Turn(T::Suspect(closed())),
            A::Ask(Q::Claim { generation: 5 })
        ]
    );
    let mut rig = Rig::following();
    assert_eq!(
        rig.disconnect(),
        [
            A::Turn(T::Suspect(closed())),
            A::Ask(Q::Claim { generation: 5 })
        ]
    );
}

#[test]
fn a_suspicion_of_silence_is_withdrawn_until_it_asked() {
    let mut rig = Rig::behind(2);
    let silent = rig.pass(300);
    assert!(matches!(
        silent[..],
        [A::Turn(T::Suspect(Loss::Suspected(Suspicion::Silent(_))))]
    ));
    assert_eq!(rig.say(Message::Heartbeat), [A::Turn(T::Withdraw)]);
    assert_eq!(rig.drained(2), []);
    // The next entry is acknowledged as ever; silent again, it asks, and now it is too late.
    assert_eq!(rig.log(&[entry(2, Event::Progress)])[1], ack_executed(3, 2));
    rig.drained(3);
    let actions = rig.pass(300);
    let [
        A::Send(Message::Ack { executed: 3, .. }),
        A::Turn(T::Suspect(_)),
        A::Disconnect,
        A::Ask(Q::Claim { generation: 5 }),
    ] = &actions[..]
    else {
        panic!("{actions:?}");
    };
    assert_eq!(rig.log(&[entry(3, Event::Progress)]), []);
    assert_eq!(rig.say(Message::Heartbeat), []);
    assert_eq!(rig.backup.received(), 3);
}

#[test]
fn a_backup_that_itself_did_not_run_does_not_accuse() {
    let mut rig = Rig::following();
    rig.now = Time(10_000_000_000);
    rig.backup.handle_tick(rig.now);
    assert_eq!(rig.actions(), [A::Send(Message::Heartbeat)]);
    assert_eq!(rig.pass(200), []);
}

#[test]
fn who_loses_halts_with_status_4() {
    let mut rig = Rig::following();
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
    assert_eq!(rig.claim(ClaimAnswer::Won), []);
    assert!(!rig.backup.is_live() && !rig.backup.wants_connection());
}

#[test]
fn an_unreachable_arbiter_is_asked_every_second() {
    let mut rig = Rig::following();
    rig.disconnect();
    for _ in 0..5 {
        assert_eq!(rig.claim(ClaimAnswer::Unreachable("no route".into())), []);
        assert_eq!(rig.pass(999), []);
        assert_eq!(rig.pass(1), [A::Ask(Q::Claim { generation: 5 })]);
        assert_eq!(rig.pass(3000), []);
    }
    assert_eq!(rig.claim(ClaimAnswer::Won)[0], A::Turn(T::EmitHeld));
}

#[test]
fn who_has_no_right_to_ask_halts() {
    let mut rig = Rig::following();
    rig.disconnect();
    let halt = A::End(E::Halt(HaltReason::NoRight("gone".into())));
    assert_eq!(rig.claim(ClaimAnswer::Refused("gone".into())), [halt]);
}

#[test]
fn a_diverged_backup_says_so_and_never_asks() {
    let (at, what) = (Position::exit(7), String::from("RIP"));
    let halt = HaltReason::Diverged {
        at,
        what: what.clone(),
    };
    assert_eq!(halt.status(), 3);
    let mut rig = Rig::behind(2);
    rig.backup.handle_diverged(rig.now, at, what.clone());
    let said = A::Send(Message::Diverged {
        at,
        what: what.clone(),
    });
    assert_eq!(
        rig.actions(),
        [said, A::Disconnect, A::End(E::Halt(halt.clone()))]
    );
    assert_eq!(rig.drained(2), []);
    // While it replays the rest of a dead primary's log, too.
    let mut rig = Rig::behind(2);
    rig.disconnect();
    rig.backup.handle_diverged(rig.now, at, what);
    assert_eq!(rig.actions(), [A::End(E::Halt(halt))]);
    assert_eq!(rig.drained(2), []);
    assert_eq!(rig.pass(5000), []);
}

#[test]
fn marks_of_released_outputs_are_cumulative() {
    let mut rig = Rig::following();
    let released = |output| Message::Released { output };
    assert_eq!(rig.say(released(4)), [A::ForgetOutputs { up_to: 4 }]);
    assert_eq!(rig.say(released(4)), []);
    assert_eq!(rig.say(released(2)), []);
    assert_eq!(rig.say(released(5)), [A::ForgetOutputs { up_to: 5 }]);
}

#[test]
fn after_bye_it_executes_the_rest_and_finishes() {
    let mut rig = at_the_end();
    assert_eq!(
        rig.say(Message::Bye),
        [A::Send(Message::Bye), A::Disconnect]
    );
    assert_eq!(rig.disconnect(), []);
    assert_eq!(rig.pass(5000), []);
    assert_eq!(rig.drained(1), []);
    let close = A::Ask(Q::Close { generation: 5 });
    assert_eq!(rig.drained(2), std::slice::from_ref(&close));
    rig.backup.handle_closed(rig.now, CloseAnswer::Closed);
    assert_eq!(rig.actions(), [A::End(E::Finish { closed: true })]);
    let mut rig = at_the_end();
    rig.drained(2);
    assert_eq!(
        rig.say(Message::Bye),
        [A::Send(Message::Bye), A::Disconnect, close]
    );
}

#[test]
fn after_bye_a_generation_that_cannot_be_closed_is_said_to_be_open() {
    let mut rig = at_the_end();
    rig.drained(2);
    rig.say(Message::Bye);
    for attempt in 1..=CLOSE_ATTEMPTS {
        let unknown = CloseAnswer::Unreachable("away".into());
        rig.backup.handle_closed(rig.now, unknown);
        let wanted = match attempt {
            CLOSE_ATTEMPTS => A::End(E::Finish { closed: false }),
            _ => {
                assert_eq!(rig.actions(), []);
                rig.now = rig.now.after(ASK_AGAIN);
                rig.backup.handle_tick(rig.now);
                A::Ask(Q::Close { generation: 5 })
            }
        };
        assert_eq!(rig.actions(), [wanted], "{attempt}");
    }
}

#[test]
fn after_bye_a_divergence_still_shows() {
    let mut rig = at_the_end();
    rig.say(Message::Bye);
    rig.backup
        .handle_diverged(rig.now, Position::exit(3), "RAM".into());
    assert!(matches!(
        rig.actions()[..],
        [A::End(E::Halt(HaltReason::Diverged { .. }))]
    ));
}

#[test]
fn a_primary_that_dies_between_the_end_and_bye_leaves_its_outputs_to_the_backup() {
    let mut rig = at_the_end();
    assert_eq!(rig.disconnect(), [A::Turn(T::Suspect(closed()))]);
    assert_eq!(rig.drained(2), [A::Ask(Q::Claim { generation: 5 })]);
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [A::Turn(T::EmitHeld), A::Ask(Q::Close { generation: 5 })]
    );
    let unreachable = || CloseAnswer::Unreachable("no route".into());
    for _ in 1..CLOSE_ATTEMPTS {
        assert_eq!(rig.closed(unreachable()), []);
        assert_eq!(rig.pass(1000), [A::Ask(Q::Close { generation: 5 })]);
    }
    assert_eq!(
        rig.closed(unreachable()),
        [A::End(E::Finish { closed: false })]
    );
}
