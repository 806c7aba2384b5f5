//! A side that was away, and what it was told before.

use super::*;

fn probe(number: u64) -> A {
    A::Send(Message::Probe { number })
}

impl Rig {
    /// With output 1 held for entry 3.
    fn holding() -> Rig {
        let mut rig = Rig::paired();
        rig.append(3);
        assert_eq!(rig.output(1, 3), []);
        rig
    }

    /// Stopped for so long, and not looked at since.
    fn stop(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
    }

    fn tick(&mut self) -> Vec<A> {
        self.primary.handle_tick(self.now);
        self.actions()
    }

    fn may_release(&self) -> bool {
        self.primary.may_release(self.now)
    }
}

#[test]
fn who_was_away_lets_nothing_go_on_old_words_until_the_backup_answers_anew() {
    let mut rig = Rig::holding();
    rig.stop(5000);
    assert_eq!(rig.tick(), [probe(1)]);
    assert_eq!(rig.ack(3), [], "it was said before");
    assert!(!rig.may_release());
    rig.pass(100);
    assert!(!rig.may_release(), "time proves nothing");
    assert_eq!(
        rig.say(Message::Echo { number: 1 }),
        [A::Release { up_to: 1 }]
    );
    assert!(rig.may_release());
}

#[test]
fn what_had_left_the_gate_when_it_was_stopped_is_kept_back_as_well() {
    let mut rig = Rig::holding();
    assert_eq!(rig.ack(3), [A::Release { up_to: 1 }]);
    assert!(rig.may_release());
    rig.stop(5000);
    assert!(
        !rig.may_release(),
        "whatever comes first, no tick is needed"
    );
    assert_eq!(rig.tick(), [probe(1)]);
    assert_eq!(
        rig.say(Message::Echo { number: 1 }),
        [A::Release { up_to: 1 }],
        "it is let go again"
    );
}

#[test]
fn an_acknowledgement_that_is_read_before_the_first_tick_lets_nothing_leave() {
    let mut rig = Rig::holding();
    rig.stop(5000);
    rig.ack(3);
    assert!(!rig.may_release());
    assert_eq!(rig.tick(), [probe(1)]);
}

#[test]
fn who_was_away_again_needs_another_answer() {
    let mut rig = Rig::holding();
    rig.stop(100);
    assert_eq!(rig.tick(), [probe(1)]);
    rig.stop(100);
    assert_eq!(rig.tick(), [probe(2)]);
    rig.ack(3);
    assert_eq!(rig.say(Message::Echo { number: 1 }), []);
    assert!(!rig.may_release());
    assert_eq!(
        rig.say(Message::Echo { number: 2 }),
        [A::Release { up_to: 1 }]
    );
}

#[test]
fn the_arbiter_ends_a_doubt() {
    let mut rig = Rig::holding();
    rig.stop(5000);
    rig.tick();
    rig.ack(3);
    rig.disconnect();
    assert!(!rig.may_release());
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [
            A::Turn(T::GoSolo { generation: 5 }),
            A::Release { up_to: 1 }
        ]
    );
    assert!(rig.may_release());
    rig.stop(5000);
    assert!(rig.may_release(), "alone, nobody takes its place");
}

#[test]
fn who_is_a_little_late_is_in_no_doubt_and_one_that_shows_itself_neither() {
    let mut rig = Rig::holding();
    rig.stop(60);
    assert_eq!(rig.tick(), [heartbeat()]);
    assert_eq!(rig.ack(3), [A::Release { up_to: 1 }]);
    assert!(rig.may_release());
}

#[test]
fn who_hangs_lets_nothing_go_and_asks_once_it_answers() {
    let mut rig = Rig::holding();
    rig.primary.handle_vcpu(false);
    rig.stop(20);
    assert_eq!(rig.tick(), [], "nothing shows that it is there");
    assert_eq!(rig.ack(3), []);
    assert!(!rig.may_release());
    rig.primary.handle_vcpu(true);
    assert_eq!(rig.actions(), [probe(1)], "at once");
    assert_eq!(
        rig.say(Message::Echo { number: 1 }),
        [A::Release { up_to: 1 }]
    );
}

#[test]
fn an_end_and_a_handover_wait_for_the_answer_too() {
    let mut rig = Rig::holding();
    rig.primary.handle_guest_end(rig.now, 3);
    rig.stop(5000);
    assert_eq!(rig.tick(), [probe(1)]);
    assert_eq!(rig.ack(3), []);
    assert_eq!(
        rig.say(Message::Echo { number: 1 }),
        [A::Release { up_to: 1 }]
    );
    assert!(rig.released(1).contains(&A::Send(Message::Bye)));
}

#[test]
fn an_answer_to_nothing_breaks_the_protocol() {
    let mut rig = Rig::paired();
    let actions = rig.say(Message::Echo { number: 1 });
    assert!(
        matches!(
            &actions[..],
            [A::Disconnect, A::Turn(T::BackupLost(Loss::Broke(_))), ..]
        ),
        "{actions:?}"
    );
}

/// The runtime may find itself late in the middle of a release, and hand in a tick that is not late.
#[test]
fn what_was_kept_back_without_a_late_tick_leaves_at_the_next() {
    let mut rig = Rig::holding();
    assert_eq!(rig.output(2, 3), []);
    assert_eq!(rig.ack(3), [A::Release { up_to: 2 }]);
    assert_eq!(rig.released(1), []);
    rig.primary.handle_kept_back();
    rig.stop(20);
    let actions = rig.tick();
    assert!(actions.contains(&A::Release { up_to: 2 }), "{actions:?}");
    rig.released(2);
    rig.stop(20);
    let actions = rig.tick();
    assert!(!actions.contains(&A::Release { up_to: 2 }), "{actions:?}");
}
