//! What waits behind a copy, and for how long a joiner may have one.

use super::*;
use crate::wire::COPY_WINDOW_BYTES;

const PIECE: A = A::Copy(C::SendPiece);
const STATE: A = A::Copy(C::SendState);

impl Rig {
    /// Captured after entry 12, with half of the memory under way and a piece of the rest that waits for it.
    fn waiting() -> Rig {
        let mut rig = Rig::copying();
        rig.append(12);
        assert_eq!(rig.piece(COPY_WINDOW_BYTES), [PIECE]);
        assert_eq!(rig.piece(5), []);
        assert_eq!(rig.capture(12, 4), []);
        rig
    }

    fn loaded(&mut self, bytes: u64) -> Vec<A> {
        self.say(Message::Loaded { bytes })
    }
}

#[test]
fn only_a_window_of_the_copy_is_under_way_and_no_piece_is_made_before_there_is_room() {
    let mut rig = Rig::copying();
    assert!(rig.primary.wants_piece());
    assert_eq!(rig.piece(COPY_WINDOW_BYTES - 1), [PIECE]);
    // The last one may go over it.
    assert!(rig.primary.wants_piece());
    assert_eq!(rig.piece(9), [PIECE]);
    assert!(!rig.primary.wants_piece());
    assert_eq!(rig.piece(7), []);
    assert_eq!(rig.loaded(8), []);
    assert!(!rig.primary.wants_piece());
    assert_eq!(rig.loaded(9), [PIECE]);
    assert!(!rig.primary.wants_piece());
    assert_eq!(rig.loaded(17), []);
    assert!(rig.primary.wants_piece());
    // Nobody is there to take one any more.
    rig.disconnect();
    assert!(!rig.primary.wants_piece());
    assert_eq!(rig.piece(7), []);
}

#[test]
fn everything_that_follows_a_copy_waits_behind_it_but_heartbeats() {
    let mut rig = Rig::waiting();
    assert_eq!(rig.append(13), []);
    assert_eq!(rig.append(14), []);
    assert_eq!(rig.pass(20), [heartbeat()]);
    assert_eq!(rig.loaded(3), [PIECE, STATE, A::SendLog { up_to: 14 }]);
    assert_eq!(rig.append(15), [A::SendLog { up_to: 15 }]);
    assert_eq!(rig.copied(5), [open(8)]);
}

#[test]
fn nothing_that_waits_keeps_a_joiner_from_being_refused_nor_meets_the_next() {
    let mut rig = Rig::waiting();
    rig.append(13);
    rig.primary.handle_copy_failed(rig.now, "no memory".into());
    assert!(refused(&rig.actions()).contains("no memory"));
    rig.offer();
    assert_eq!(rig.piece(1), [PIECE]);
}

#[test]
fn a_copy_that_was_not_sent_whole_cannot_be_proved() {
    let mut rig = Rig::waiting();
    let actions = rig.copied(5);
    assert!(
        matches!(
            &actions[..],
            [
                A::Disconnect,
                A::Copy(C::Stop),
                A::Turn(T::BackupLost(Loss::Broke(_)))
            ]
        ),
        "{actions:?}"
    );
}

/// Lets so many ms pass in which it is heard.
fn wait(rig: &mut Rig, ms: u64) -> Vec<A> {
    let mut actions = Vec::new();
    for _ in 0..ms / 10 {
        actions.extend(rig.pass(10));
        rig.say(Message::Heartbeat);
    }
    actions.retain(|action| *action != heartbeat());
    actions
}

#[test]
fn a_joiner_that_has_a_copy_and_is_not_armed_in_time_is_refused() {
    // Proving; opening; arming, with an entry that is not acknowledged.
    let stages: [fn() -> Rig; 3] = [Rig::waiting, Rig::opening, || {
        let mut rig = Rig::opening();
        assert_eq!(rig.output(6, 13), [A::Release { up_to: 6 }]);
        rig.released(6);
        assert_eq!(rig.opened(), []);
        rig
    }];
    for stage in stages {
        let mut rig = stage();
        assert_eq!(wait(&mut rig, 4990), []);
        let actions = wait(&mut rig, 40);
        assert!(refused(&actions).contains("within 5 s"), "{actions:?}");
        assert!(rig.primary.is_solo() && rig.primary.may_run());
    }
    // However long the copy itself takes, and not once it is armed.
    assert_eq!(wait(&mut Rig::copying(), 9000), []);
    assert_eq!(wait(&mut Rig::protected(), 9000), []);
}
