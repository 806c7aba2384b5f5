//! Handing over on purpose, and leaving before anything ran.

use super::*;

/// Parked with entry 3 the last, acknowledged, its output released; told to take over.
fn handed_over() -> Rig {
    let mut rig = Rig::paired();
    rig.append(2);
    assert!(rig.primary.handle_switchover(rig.now));
    assert_eq!(rig.actions(), [A::Turn(T::Park)]);
    assert!(
        rig.primary.handle_switchover(rig.now),
        "asked for once more"
    );
    assert_eq!(rig.actions(), []);
    rig.output(1, 3);
    rig.append(3);
    rig.primary.handle_parked(rig.now, 3);
    assert_eq!(rig.actions(), []);
    assert_eq!(rig.ack(3), [A::Release { up_to: 1 }]);
    let told = A::Send(Message::Released { output: 1 });
    assert_eq!(rig.released(1), [told, A::Send(Message::Handover)]);
    assert!(!rig.primary.may_run());
    rig
}

#[test]
fn a_handover_waits_for_the_last_acknowledgement_and_output_and_ends_with_bye() {
    let mut rig = handed_over();
    assert_eq!(rig.ack(3), []);
    assert_eq!(rig.pass(20), [heartbeat()]);
    assert_eq!(
        rig.say(Message::Bye),
        [A::Disconnect, A::End(E::HandedOver { generation: 5 })]
    );
    assert_eq!(rig.pass(5000), []);
}

#[test]
fn a_backup_that_took_over_and_was_not_heard_has_taken_over() {
    let mut rig = handed_over();
    assert_eq!(rig.disconnect(), [A::Ask(Q::Claim { generation: 5 })]);
    assert_eq!(
        rig.claim(ClaimAnswer::Lost { by: THEM }),
        [A::End(E::HandedOver { generation: 5 })]
    );
}

#[test]
fn a_backup_that_dies_on_the_way_costs_nothing() {
    let mut rig = handed_over();
    let mut actions = rig.pass(300);
    actions.retain(|a| *a != heartbeat());
    assert_eq!(actions, [A::Disconnect, A::Ask(Q::Claim { generation: 5 })]);
    assert!(!rig.primary.may_run());
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [A::Turn(T::GoSolo { generation: 5 }), A::Turn(T::Resume)]
    );
    assert!(rig.primary.may_run());
}

#[test]
fn a_backup_lost_while_the_vcpu_comes_to_rest_lets_it_run_on() {
    let mut rig = Rig::paired();
    rig.primary.handle_switchover(rig.now);
    rig.disconnect();
    rig.claim(ClaimAnswer::Won);
    rig.primary.handle_parked(rig.now, 0);
    assert_eq!(rig.actions(), [A::Turn(T::Resume)]);
    // It rests before the arbiter has answered.
    let mut rig = Rig::paired();
    rig.primary.handle_switchover(rig.now);
    rig.disconnect();
    rig.primary.handle_parked(rig.now, 0);
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [A::Turn(T::GoSolo { generation: 5 }), A::Turn(T::Resume)]
    );
}

#[test]
fn a_guest_that_ends_first_has_ended_and_without_a_pair_nothing_is_handed_over() {
    let mut rig = Rig::paired();
    rig.primary.handle_guest_end(rig.now, 1);
    assert!(!rig.primary.handle_switchover(rig.now));
    let mut rig = Rig::new(false);
    assert!(!rig.primary.handle_switchover(rig.now));
    let mut rig = Rig::paired();
    rig.disconnect();
    assert!(!rig.primary.handle_switchover(rig.now));
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [A::Turn(T::GoSolo { generation: 5 })]
    );
    assert!(!rig.primary.handle_switchover(rig.now));
}

#[test]
fn who_leaves_before_the_start_wins_what_it_has_opened() {
    let mut rig = Rig::new(false);
    rig.primary.handle_leave(rig.now);
    assert_eq!(rig.actions(), [A::End(E::Leave)]);
    let mut rig = Rig::joining();
    rig.primary.handle_leave(rig.now);
    assert_eq!(
        rig.actions(),
        [A::Disconnect, A::Ask(Q::Claim { generation: 5 })]
    );
    assert_eq!(rig.claim(ClaimAnswer::Won), [A::End(E::Leave)]);
    let mut rig = Rig::new(false);
    rig.primary.handle_connected(rig.now);
    rig.say(hello());
    rig.primary.handle_leave(rig.now);
    assert_eq!(rig.actions(), [A::Disconnect]);
    rig.primary.handle_opened(rig.now, OpenAnswer::Opened);
    assert_eq!(rig.actions(), [A::Ask(Q::Claim { generation: 5 })]);
    // A backup that had just armed goes on: that is its right.
    let halted = rig.claim(ClaimAnswer::Lost { by: THEM });
    assert!(matches!(halted[..], [A::End(E::Halt(_))]), "{halted:?}");
}

#[test]
fn what_the_backups_operator_asks_for_is_passed_on() {
    let mut rig = Rig::paired();
    for request in [Request::Stop, Request::Switchover] {
        assert_eq!(
            rig.say(Message::Request(request)),
            [A::Turn(T::Requested(request))]
        );
    }
}
