//! The guest ends; and a guest that runs alone from the start.

use super::*;
use crate::log::Position;

/// Paired, the guest at its end with entry 4, one output held for entry 3.
fn at_the_end() -> Rig {
    let mut rig = Rig::paired();
    rig.output(1, 3);
    rig.append(4);
    rig.primary.handle_guest_end(rig.now, 4);
    assert_eq!(rig.actions(), []);
    rig
}

/// At the end, with everything acknowledged and released, and Bye said.
fn said_bye() -> Rig {
    let mut rig = at_the_end();
    assert_eq!(rig.ack(4), [A::Release { up_to: 1 }]);
    let told = A::Send(Message::Released { output: 1 });
    let close = A::Ask(Q::Close { generation: 5 });
    assert_eq!(rig.released(1), [told, A::Send(Message::Bye), close]);
    rig
}

#[test]
fn the_end_waits_for_the_last_entry_and_the_last_output() {
    let mut rig = at_the_end();
    assert_eq!(rig.ack(3), [A::Release { up_to: 1 }]);
    assert_eq!(rig.released(1), [], "the end entry is not acknowledged");
    let told = A::Send(Message::Released { output: 1 });
    assert_eq!(
        rig.ack(4),
        [
            told,
            A::Send(Message::Bye),
            A::Ask(Q::Close { generation: 5 })
        ]
    );
    assert_eq!(rig.closed(CloseAnswer::Closed), []);
    // What the backup said before it heard the Bye.
    assert_eq!(rig.ack(4), []);
    let finish = A::End(E::Finish { closed: true });
    assert_eq!(rig.say(Message::Bye), [A::Disconnect, finish]);
    assert_eq!(rig.pass(5000), []);
}

#[test]
fn a_finished_primary_waits_for_the_backup_to_hear_it_but_not_for_ever() {
    let finish = A::End(E::Finish { closed: true });
    let mut rig = said_bye();
    assert_eq!(rig.disconnect(), []);
    assert_eq!(
        rig.closed(CloseAnswer::Closed),
        std::slice::from_ref(&finish)
    );
    let mut rig = said_bye();
    rig.closed(CloseAnswer::Closed);
    let mut actions = Vec::new();
    for _ in 0..30 {
        actions.extend(rig.pass(100));
        rig.say(Message::Heartbeat);
    }
    actions.retain(|a| *a != heartbeat());
    assert_eq!(actions, [A::Disconnect, finish.clone()]);
    let mut rig = said_bye();
    rig.closed(CloseAnswer::Closed);
    let mut actions = rig.pass(300);
    actions.retain(|a| *a != heartbeat());
    assert_eq!(actions, [A::Disconnect, finish]);
}

#[test]
fn a_generation_that_cannot_be_closed_is_left_open_and_said_so() {
    let mut rig = said_bye();
    rig.say(Message::Bye);
    let unreachable = || CloseAnswer::Unreachable("no route".into());
    for _ in 1..crate::question::CLOSE_ATTEMPTS {
        assert_eq!(rig.closed(unreachable()), []);
        assert_eq!(rig.pass(1000), [A::Ask(Q::Close { generation: 5 })]);
    }
    assert_eq!(
        rig.closed(unreachable()),
        [A::End(E::Finish { closed: false })]
    );
}

#[test]
fn a_backup_that_diverges_after_bye_is_reported() {
    let mut rig = said_bye();
    rig.closed(CloseAnswer::Closed);
    let (at, what) = (Position::exit(7), String::from("RAM"));
    let actions = rig.say(Message::Diverged {
        at,
        what: what.clone(),
    });
    let lost = A::Turn(T::BackupLost(Loss::Diverged { at, what }));
    assert_eq!(
        actions,
        [lost, A::Disconnect, A::End(E::Finish { closed: true })]
    );
}

#[test]
fn a_backup_lost_at_the_end_is_claimed_before_the_last_output_leaves() {
    let mut rig = at_the_end();
    assert_eq!(
        rig.disconnect(),
        [lost_closed(), A::Ask(Q::Claim { generation: 5 })]
    );
    let won = rig.claim(ClaimAnswer::Won);
    assert_eq!(
        won,
        [
            A::Turn(T::GoSolo { generation: 5 }),
            A::Release { up_to: 1 }
        ]
    );
    assert_eq!(rig.released(1), [A::Ask(Q::Close { generation: 5 })]);
    assert_eq!(
        rig.closed(CloseAnswer::Closed),
        [A::End(E::Finish { closed: true })]
    );
}

#[test]
fn a_solo_primary_opens_and_claims_and_runs_with_an_open_gate() {
    let mut rig = Rig::new(true);
    let members = Members {
        primary: ME,
        backup: None,
    };
    let open = A::Ask(Q::Open(Right {
        generation: 5,
        members,
        nonce: Nonce(105),
    }));
    assert_eq!(rig.actions(), [open]);
    rig.primary.handle_opened(rig.now, OpenAnswer::Opened);
    assert_eq!(rig.actions(), [A::Ask(Q::Claim { generation: 5 })]);
    assert!(!rig.primary.may_run());
    assert_eq!(rig.claim(ClaimAnswer::Won), [A::Turn(T::Start)]);
    assert!(rig.primary.may_run() && rig.primary.is_solo());
    assert_eq!(rig.append(2), []);
    assert_eq!(rig.output(1, 2), [A::Release { up_to: 1 }]);
    rig.primary.handle_guest_end(rig.now, 3);
    assert_eq!(rig.actions(), [], "output 1 has not left");
    assert_eq!(rig.released(1), [A::Ask(Q::Close { generation: 5 })]);
    assert_eq!(
        rig.closed(CloseAnswer::Closed),
        [A::End(E::Finish { closed: true })]
    );
}
