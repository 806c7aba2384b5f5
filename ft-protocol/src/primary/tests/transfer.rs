//! A new backup joins while this side runs alone.

mod order;
mod unsure;

use super::*;
use crate::transfer::{Capture, Right, StateDigest, Survivor};

/// The right by which a survivor of generation 7 runs.
fn right() -> Right {
    Right {
        generation: 7,
        members: Members {
            primary: MemberId(9),
            backup: Some(ME),
        },
        nonce: Nonce(77),
    }
}

fn digest(memory: u64) -> StateDigest {
    StateDigest(vec![("memory".into(), memory), ("8259".into(), 3)])
}

fn capture(seq: u64, outputs: u64) -> Capture {
    Capture {
        seq,
        outputs,
        digest: digest(5),
    }
}

impl Rig {
    /// Went live in generation 7 with 10 entries and 4 outputs.
    fn survivor() -> Rig {
        let mut rig = Rig::new(false);
        let survivor = Survivor {
            right: right(),
            seq: 10,
            outputs: 4,
        };
        rig.primary = Primary::survivor(rig.primary.config.clone(), survivor, rig.now);
        assert_eq!(rig.actions(), []);
        assert!(rig.primary.may_run() && rig.primary.is_solo());
        rig
    }

    /// Somebody connected and the machine is being copied.
    fn copying() -> Rig {
        let mut rig = Rig::survivor();
        rig.offer();
        rig
    }

    fn offer(&mut self) {
        self.primary.handle_connected(self.now);
        let offer = A::Offer {
            protocol: PROTOCOL_VERSION,
            right: right(),
        };
        assert_eq!(self.say(hello()), [offer]);
        assert_eq!(self.say(Message::Ready), [A::Copy(C::Begin)]);
    }

    fn piece(&mut self, bytes: u64) -> Vec<A> {
        self.primary.handle_piece(self.now, bytes);
        self.actions()
    }

    fn capture(&mut self, seq: u64, outputs: u64) -> Vec<A> {
        let capture = capture(seq, outputs);
        self.primary.handle_captured(self.now, capture);
        self.actions()
    }

    fn copied(&mut self, memory: u64) -> Vec<A> {
        let digest = digest(memory);
        self.say(Message::Copied { digest })
    }

    fn opened(&mut self) -> Vec<A> {
        self.primary.handle_opened(self.now, OpenAnswer::Opened);
        self.actions()
    }

    /// Copied after 12 entries and 5 outputs, all of which have left; the next generation is asked for.
    fn opening() -> Rig {
        let mut rig = Rig::copying();
        assert_eq!(rig.append(12), []);
        assert_eq!(rig.output(5, 12), [A::Release { up_to: 5 }]);
        assert_eq!(rig.released(5), []);
        assert_eq!(rig.capture(12, 5), [A::Copy(C::SendState)]);
        assert_eq!(rig.copied(5), [open(8)]);
        rig
    }

    /// Half of a pair in generation 8.
    fn protected() -> Rig {
        let mut rig = Rig::opening();
        assert_eq!(rig.opened(), armed(8));
        rig
    }
}

fn open(generation: u64) -> A {
    A::Ask(Q::Open(pair(generation)))
}

fn armed(generation: u64) -> [A; 2] {
    let nonce = Nonce(100 + u128::from(generation));
    [
        A::Send(Message::Armed { generation, nonce }),
        A::Turn(T::Protected { generation }),
    ]
}

/// What a side does whose joiner is lost before it was armed.
fn dropped(loss: Loss) -> [A; 2] {
    [A::Copy(C::Stop), A::Turn(T::BackupLost(loss))]
}

fn refused(actions: &[A]) -> String {
    match actions {
        // What waits of the copy is dropped first: the reason must not wait behind it.
        [
            A::Copy(C::Stop),
            A::Send(Message::Refuse { reason }),
            A::Disconnect,
            A::Turn(T::BackupLost(Loss::Unfit(why))),
        ] => {
            assert_eq!(why, reason);
            reason.clone()
        }
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn a_backup_joins_who_runs_alone_and_from_its_arming_on_outputs_wait_for_it() {
    let mut rig = Rig::copying();
    assert_eq!(rig.piece(9), [A::Copy(C::SendPiece)]);
    assert_eq!(rig.say(Message::Loaded { bytes: 9 }), []);
    // As long as it copies, the guest runs and nobody is waited for.
    assert_eq!(rig.append(12), []);
    assert_eq!(rig.output(5, 12), [A::Release { up_to: 5 }]);
    assert_eq!(rig.released(5), []);
    assert_eq!(rig.capture(12, 5), [A::Copy(C::SendState)]);
    // From the copy on the log follows; outputs still leave by the right of generation 7.
    assert_eq!(rig.append(13), [A::SendLog { up_to: 13 }]);
    assert_eq!(rig.output(6, 13), [A::Release { up_to: 6 }]);
    assert_eq!(rig.released(6), []);
    assert_eq!(rig.copied(5), [open(8)]);
    assert_eq!(rig.output(7, 14), [A::Release { up_to: 7 }]);
    assert_eq!(rig.released(7), []);
    // Opened: what left needs entry 14, and the backup does not have it yet.
    assert_eq!(rig.opened(), []);
    assert_eq!(rig.output(8, 14), []);
    assert_eq!(rig.append(14), [A::SendLog { up_to: 14 }]);
    assert_eq!(rig.ack(13), []);
    assert!(rig.primary.is_solo());
    let mut expected = vec![A::Release { up_to: 8 }];
    expected.extend(armed(8));
    let told = A::Send(Message::Released { output: 7 });
    expected.insert(2, told);
    assert_eq!(rig.ack(14), expected);
    assert!(!rig.primary.is_solo() && rig.primary.generation() == 8);
    // A pair like any other.
    assert_eq!(rig.output(9, 15), []);
    assert_eq!(rig.append(15), [A::SendLog { up_to: 15 }]);
    assert_eq!(rig.ack(15), [A::Release { up_to: 9 }]);
}

#[test]
fn an_output_from_before_the_copy_must_have_left_before_anybody_is_armed() {
    let mut rig = Rig::copying();
    rig.append(12);
    assert_eq!(rig.output(5, 12), [A::Release { up_to: 5 }]);
    assert_eq!(rig.capture(12, 5), [A::Copy(C::SendState)]);
    assert_eq!(rig.copied(5), [open(8)]);
    assert_eq!(rig.opened(), []);
    assert_eq!(rig.released(5), armed(8));
}

#[test]
fn a_pair_that_was_made_by_joining_is_claimed_when_it_breaks_and_joined_again() {
    let mut rig = Rig::protected();
    rig.output(6, 13);
    assert_eq!(
        rig.disconnect(),
        [lost_closed(), A::Ask(Q::Claim { generation: 8 })]
    );
    assert!(!rig.primary.may_run());
    assert_eq!(
        rig.claim(ClaimAnswer::Won),
        [
            A::Turn(T::GoSolo { generation: 8 }),
            A::Release { up_to: 6 }
        ]
    );
    rig.released(6);
    rig.primary.handle_connected(rig.now);
    let right = Right {
        generation: 8,
        members: Members {
            primary: ME,
            backup: Some(THEM),
        },
        nonce: Nonce(108),
    };
    let offer = A::Offer {
        protocol: PROTOCOL_VERSION,
        right,
    };
    assert_eq!(rig.say(hello()), [offer]);
    rig.say(Message::Ready);
    rig.append(14);
    rig.capture(14, 6);
    assert_eq!(rig.copied(5), [open(9)]);
    assert_eq!(rig.opened(), armed(9));
}

#[test]
fn whoever_started_alone_is_joined_too() {
    let mut rig = Rig::new(true);
    rig.actions();
    rig.primary.handle_opened(rig.now, OpenAnswer::Opened);
    rig.primary.handle_claim(rig.now, ClaimAnswer::Won);
    assert!(rig.actions().contains(&A::Turn(T::Start)));
    rig.primary.handle_connected(rig.now);
    let offers = rig.say(hello());
    let members = Members {
        primary: ME,
        backup: None,
    };
    assert!(
        matches!(&offers[..], [A::Offer { right, .. }] if right.generation == 5 && right.members == members),
        "{offers:?}"
    );
    rig.say(Message::Ready);
    rig.append(3);
    rig.capture(3, 0);
    assert_eq!(rig.copied(5), [open(6)]);
    assert_eq!(rig.opened(), armed(6));
}

#[test]
fn a_joiner_lost_before_it_was_armed_costs_nothing_but_a_number() {
    let stages: [fn() -> Rig; 4] = [
        Rig::copying,
        || {
            let mut rig = Rig::copying();
            rig.append(12);
            rig.capture(12, 4);
            rig
        },
        Rig::opening,
        || {
            let mut rig = Rig::opening();
            rig.output(6, 13);
            rig.primary.handle_released(rig.now, 6);
            rig.actions();
            assert_eq!(rig.opened(), []);
            assert_eq!(rig.output(7, 13), []);
            rig
        },
    ];
    for (index, stage) in stages.into_iter().enumerate() {
        let mut rig = stage();
        let mut expected = dropped(Loss::Suspected(Suspicion::Closed)).to_vec();
        if index == 3 {
            expected.push(A::Release { up_to: 7 });
        }
        assert_eq!(rig.disconnect(), expected, "stage {index}");
        assert!(rig.primary.may_run() && rig.primary.is_solo());
        assert_eq!(rig.primary.generation(), 7);
        if index == 2 {
            assert!(
                !rig.primary.accepts_connection(),
                "the answer of the arbiter is due first"
            );
            assert_eq!(rig.opened(), []);
        }
        // The next one may come, and gets a number that nobody ever had.
        rig.offer();
        let seq = 20;
        rig.append(seq);
        let outputs = [4, 4, 5, 7][index];
        rig.primary.handle_released(rig.now, outputs);
        rig.capture(seq, outputs);
        let next = 8 + u64::from(index >= 2);
        assert_eq!(rig.copied(5), [open(next)], "stage {index}");
        assert_eq!(rig.opened(), armed(next), "stage {index}");
    }
}

#[test]
fn a_copy_that_differs_is_refused_by_the_name_of_what_differs() {
    let mut rig = Rig::copying();
    rig.append(12);
    rig.capture(12, 4);
    let reason = refused(&rig.copied(6));
    assert!(
        reason.contains("memory") && !reason.contains("8259"),
        "{reason}"
    );
    assert!(rig.primary.may_run() && rig.primary.accepts_connection());
}

#[test]
fn a_machine_that_cannot_be_copied_runs_on() {
    let mut rig = Rig::copying();
    rig.primary.handle_copy_failed(rig.now, "no memory".into());
    assert!(refused(&rig.actions()).contains("no memory"));
    rig.offer();
    rig.append(12);
    rig.capture(12, 4);
    rig.primary.handle_copy_failed(rig.now, "too slow".into());
    assert!(refused(&rig.actions()).contains("too slow"));
    assert!(rig.primary.is_solo() && rig.primary.may_run());
    // Who is armed is half of a pair.
    let mut rig = Rig::protected();
    rig.primary.handle_copy_failed(rig.now, "too slow".into());
    assert_eq!(rig.actions(), []);
}

#[test]
fn a_generation_that_others_opened_is_left_to_them() {
    let mut rig = Rig::opening();
    let record = OpenRecord {
        vm: "demo".into(),
        generation: 8,
        members: Members {
            primary: MemberId(50),
            backup: None,
        },
        nonce: Nonce(1),
        at: 0,
    };
    rig.primary
        .handle_opened(rig.now, OpenAnswer::AlreadyOpen { record });
    assert!(refused(&rig.actions()).contains("by force"));
    // The guest's end closes this side's own generation.
    rig.append(13);
    rig.primary.handle_guest_end(rig.now, 13);
    assert_eq!(rig.actions(), [A::Ask(Q::Close { generation: 7 })]);
}

#[test]
fn an_arbiter_out_of_reach_delays_the_arming_and_nothing_else() {
    let mut rig = Rig::opening();
    rig.primary
        .handle_opened(rig.now, OpenAnswer::Unreachable("no route".into()));
    assert_eq!(rig.output(6, 13), [A::Release { up_to: 6 }]);
    rig.say(Message::Heartbeat);
    let mut asked = Vec::new();
    for _ in 0..10 {
        rig.say(Message::Heartbeat);
        asked.extend(rig.pass(100));
    }
    asked.retain(|a| *a != heartbeat());
    assert_eq!(asked, [open(8)]);
}

#[test]
fn a_guest_that_ends_while_somebody_joins_has_ended() {
    let mut rig = Rig::opening();
    assert_eq!(rig.append(13), [A::SendLog { up_to: 13 }]);
    rig.primary.handle_guest_end(rig.now, 13);
    assert!(refused(&rig.actions()).contains("ended"));
    // Generation 8 is the last that is open, and what a cold start looks at.
    assert_eq!(rig.opened(), [A::Ask(Q::Close { generation: 8 })]);
    assert_eq!(
        rig.closed(CloseAnswer::Closed),
        [A::End(E::Finish { closed: true })]
    );
}

#[test]
fn a_connection_that_has_not_said_hello_when_the_guest_ends_is_closed() {
    let mut rig = Rig::survivor();
    rig.primary.handle_connected(rig.now);
    rig.append(11);
    rig.primary.handle_guest_end(rig.now, 11);
    let close = A::Ask(Q::Close { generation: 7 });
    assert_eq!(rig.actions(), [A::Disconnect, close]);
}

#[test]
fn a_joiner_that_falls_silent_or_talks_nonsense_is_given_up() {
    let mut rig = Rig::opening();
    let mut actions = rig.pass(260);
    actions.retain(|a| *a != heartbeat());
    assert!(
        matches!(
            &actions[..],
            [
                A::Disconnect,
                A::Copy(C::Stop),
                A::Turn(T::BackupLost(Loss::Suspected(_)))
            ]
        ),
        "{actions:?}"
    );
    let mut rig = Rig::copying();
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
    let mut rig = Rig::copying();
    rig.piece(9);
    let more_than_there_was = rig.say(Message::Loaded { bytes: 10 });
    assert!(
        matches!(
            &more_than_there_was[..],
            [
                A::Disconnect,
                A::Copy(C::Stop),
                A::Turn(T::BackupLost(Loss::Broke(_)))
            ]
        ),
        "{more_than_there_was:?}"
    );
    let mut rig = Rig::opening();
    let loss = Loss::Diverged {
        at: crate::log::Position::exit(9),
        what: "x".into(),
    };
    let says = Message::Diverged {
        at: crate::log::Position::exit(9),
        what: "x".into(),
    };
    let mut expected = vec![A::Disconnect];
    expected.extend(dropped(loss));
    assert_eq!(rig.say(says), expected);
}

#[test]
fn a_joiner_that_does_not_keep_up_makes_the_vcpu_wait() {
    let mut rig = Rig::copying();
    rig.primary
        .handle_appended(rig.now, 11, 2 * LOG_WINDOW_BYTES);
    assert!(
        rig.primary.may_run(),
        "what came before the copy does not count"
    );
    rig.capture(11, 4);
    let all = 3 * LOG_WINDOW_BYTES;
    rig.primary.handle_appended(rig.now, 12, all + 1);
    assert!(!rig.primary.may_run());
    rig.say(Message::Ack {
        received: 12,
        consumed: 1,
        executed: 11,
    });
    assert!(rig.primary.may_run());
}
