//! A joiner is lost, or the guest ends, where something of before is still open: an answer of the
//! arbiter, a vCPU that comes to rest, beats.

use super::*;
use crate::question::CLOSE_ATTEMPTS;

fn nobody_knows() -> OpenAnswer {
    OpenAnswer::Unreachable("no route".into())
}

impl Rig {
    fn open_answer(&mut self, answer: OpenAnswer) -> Vec<A> {
        self.primary.handle_opened(self.now, answer);
        self.actions()
    }

    /// Its joiner is lost while generation 8 is being opened, and nobody knows whether it is.
    fn unsure() -> Rig {
        let mut rig = Rig::opening();
        assert_eq!(rig.open_answer(nobody_knows()), []);
        let lost = dropped(Loss::Suspected(Suspicion::Closed));
        assert_eq!(rig.disconnect(), lost);
        rig
    }
}

#[test]
fn a_generation_that_may_be_open_is_made_sure_of_before_the_next_joins() {
    let mut rig = Rig::unsure();
    assert!(!rig.primary.accepts_connection());
    assert!(rig.primary.may_run());
    assert_eq!(rig.pass(1000), [open(8)]);
    assert_eq!(rig.opened(), []);
    rig.offer();
    rig.capture(12, 5);
    assert_eq!(rig.copied(5), [open(9)]);
}

#[test]
fn a_guest_that_ends_closes_the_last_generation_that_is_open_and_no_other() {
    // It is open: closing 7 would leave 8 in a cold start's way.
    let mut rig = Rig::unsure();
    rig.append(13);
    rig.primary.handle_guest_end(rig.now, 13);
    assert_eq!(rig.actions(), []);
    assert_eq!(rig.pass(1000), [open(8)]);
    assert_eq!(rig.opened(), [A::Ask(Q::Close { generation: 8 })]);
    // Another's is: closing it would be wrong.
    let mut rig = Rig::unsure();
    rig.append(13);
    rig.primary.handle_guest_end(rig.now, 13);
    rig.pass(1000);
    let members = Members {
        primary: MemberId(50),
        backup: None,
    };
    let record = OpenRecord {
        vm: "demo".into(),
        generation: 8,
        members,
        nonce: Nonce(1),
        at: 0,
    };
    let others = rig.open_answer(OpenAnswer::AlreadyOpen { record });
    assert_eq!(others, [A::Ask(Q::Close { generation: 7 })]);
}

#[test]
fn an_arbiter_that_never_answers_does_not_keep_a_guest_that_has_ended() {
    let mut rig = Rig::unsure();
    rig.append(13);
    rig.primary.handle_guest_end(rig.now, 13);
    let mut asked = 1;
    let last = loop {
        assert_eq!(rig.pass(1000), [open(8)]);
        asked += 1;
        let actions = rig.open_answer(nobody_knows());
        if !actions.is_empty() {
            break actions;
        }
    };
    assert_eq!(last, [A::End(E::Finish { closed: false })]);
    assert_eq!(asked, CLOSE_ATTEMPTS);
}

#[test]
fn a_survivor_closes_the_generation_that_it_won() {
    let mut rig = Rig::survivor();
    rig.append(11);
    rig.primary.handle_guest_end(rig.now, 11);
    assert_eq!(rig.actions(), [A::Ask(Q::Close { generation: 7 })]);
}

#[test]
fn a_vcpu_that_comes_to_rest_for_a_backup_that_is_gone_runs_on_for_the_next() {
    let lost: fn() -> Rig = || {
        let mut rig = Rig::protected();
        assert!(rig.primary.handle_switchover(rig.now));
        rig.disconnect();
        rig.claim(ClaimAnswer::Won);
        rig
    };
    // While the next one is joining, and once it is armed.
    let mut rig = lost();
    rig.primary.handle_connected(rig.now);
    rig.say(hello());
    rig.primary.handle_parked(rig.now, 12);
    assert_eq!(rig.actions(), [A::Turn(T::Resume)]);
    let mut rig = lost();
    rig.primary.handle_connected(rig.now);
    rig.say(hello());
    rig.say(Message::Ready);
    rig.capture(12, 5);
    rig.copied(5);
    assert_eq!(rig.opened(), armed(9));
    rig.primary.handle_parked(rig.now, 12);
    assert_eq!(rig.actions(), [A::Turn(T::Resume)]);
}

#[test]
fn the_beats_of_the_next_backup_count_from_its_first() {
    let beat = |generation, count| Beat {
        generation,
        from: THEM,
        count,
    };
    let mut rig = Rig::protected();
    assert!(rig.primary.handle_beat(rig.now, beat(8, 900)));
    rig.disconnect();
    rig.claim(ClaimAnswer::Won);
    rig.primary.handle_connected(rig.now);
    rig.say(hello());
    assert!(rig.primary.handle_beat(rig.now, beat(8, 1)));
    // One that is lost before anything ran.
    let mut rig = Rig::joining();
    assert!(rig.primary.handle_beat(rig.now, beat(5, 900)));
    rig.disconnect();
    rig.claim(ClaimAnswer::Won);
    rig.join(6);
    assert!(rig.primary.handle_beat(rig.now, beat(6, 1)));
}
