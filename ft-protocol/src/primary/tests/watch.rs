//! Records that vanish while the VM runs.

use super::*;
use crate::arbiter::{Look, Standing};

fn missing() -> Look {
    Look::Missing("gone".into())
}

impl Rig {
    fn standing(&self) -> Standing {
        self.primary.standing().expect("it has a part")
    }

    fn looked(&mut self, look: &Look) -> Vec<A> {
        let standing = self.standing();
        self.primary.handle_looked(self.now, standing, look);
        self.actions()
    }
}

#[test]
fn a_claim_whose_record_is_gone_holds_everything_and_is_asked_again() {
    let mut rig = Rig::paired();
    rig.output(1, 1);
    rig.append(1);
    rig.disconnect();
    for _ in 0..5 {
        let missing = ClaimAnswer::Missing("gone".into());
        assert_eq!(rig.claim(missing), []);
        assert!(!rig.primary.may_run());
        assert_eq!(rig.pass(1000), [A::Ask(Q::Claim { generation: 5 })]);
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
fn a_pairs_record_is_put_back_once_the_backup_shows_that_it_has_not_asked() {
    let mut rig = Rig::paired();
    rig.append(3);
    rig.ack(2);
    let standing = rig.standing();
    assert!(!standing.won);
    assert_eq!(rig.looked(&Look::Sound), []);
    assert_eq!(rig.looked(&missing()), []);
    // Made before the look: it may have been under way since before the record vanished.
    assert_eq!(rig.ack(3), []);
    rig.append(4);
    assert_eq!(rig.ack(4), [A::PutBack(standing)]);
    rig.append(5);
    assert_eq!(rig.ack(5), [], "once for each look");
}

#[test]
fn a_record_that_is_there_again_is_not_put_back() {
    for found in [Look::Sound, Look::Others("force".into())] {
        let mut rig = Rig::paired();
        rig.looked(&missing());
        rig.looked(&found);
        rig.append(4);
        assert_eq!(rig.ack(4), [], "{found:?}");
    }
}

#[test]
fn a_pair_that_is_none_any_more_puts_nothing_back() {
    let mut rig = Rig::paired();
    let before = rig.standing();
    rig.looked(&missing());
    rig.disconnect();
    assert_eq!(rig.primary.standing(), None);
    rig.primary.handle_looked(rig.now, before, &missing());
    assert_eq!(rig.actions(), []);
    rig.claim(ClaimAnswer::Won);
    // What was looked at as half of a pair says nothing about who runs alone.
    rig.primary.handle_looked(rig.now, before, &missing());
    assert_eq!(rig.actions(), []);
}

#[test]
fn who_runs_alone_puts_its_claim_back_as_well() {
    let mut rig = Rig::paired();
    rig.disconnect();
    rig.claim(ClaimAnswer::Won);
    let standing = rig.standing();
    assert!(standing.won);
    assert_eq!(rig.looked(&Look::Others("force".into())), []);
    assert_eq!(rig.looked(&missing()), [A::PutBack(standing)]);
    assert_eq!(rig.looked(&missing()), [A::PutBack(standing)]);
}
