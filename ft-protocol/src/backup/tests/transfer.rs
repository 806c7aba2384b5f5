//! Joining a VM that runs.

use super::*;
use crate::transfer::{Right, StateDigest};

const SOURCE: MemberId = MemberId(8);

/// The right by which the source runs alone.
fn right() -> Right {
    Right {
        generation: 7,
        members: Members {
            primary: MemberId(1),
            backup: Some(SOURCE),
        },
        nonce: Nonce(77),
    }
}

fn offer(source: MemberId) -> Message {
    Message::Offer {
        protocol: PROTOCOL_VERSION,
        generation: 7,
        members: right().members,
        nonce: right().nonce,
        source,
        header: Box::new(header()),
        image: vec![1, 2, 3],
    }
}

fn found(nonce: u128) -> ReadBackAnswer {
    ReadBackAnswer::Found(OpenRecord {
        vm: "demo".into(),
        generation: 7,
        members: right().members,
        nonce: Nonce(nonce),
        at: 0,
    })
}

fn digest() -> StateDigest {
    StateDigest(vec![("memory".into(), 1)])
}

impl Rig {
    /// There is room for the copy.
    fn receiving() -> Rig {
        let mut rig = Rig::greeting();
        assert_eq!(
            rig.say(offer(SOURCE)),
            [A::Ask(Q::ReadBack { generation: 7 })]
        );
        let (header, image) = (Box::new(header()), vec![1, 2, 3]);
        let boot = A::Build(B::Boot {
            generation: 7,
            header,
            image,
            copied: true,
        });
        assert_eq!(rig.read_back(found(77)), [boot]);
        rig.backup.handle_booted(rig.now, 7);
        assert_eq!(rig.actions(), [A::Send(Message::Ready)]);
        rig
    }

    /// Has the copy of a machine with 20 entries and 6 outputs.
    fn restoring() -> Rig {
        let mut rig = Rig::receiving();
        let pages = vec![4; 9];
        let load = A::Build(B::Load {
            pages: pages.clone(),
        });
        assert_eq!(rig.say(Message::Memory { pages }), [load]);
        rig.backup.handle_loaded(rig.now, 9);
        assert_eq!(rig.actions(), [A::Send(Message::Loaded { bytes: 9 })]);
        let (at, state) = (Position::exit(90), vec![5; 5]);
        let restore = A::Build(B::Restore {
            seq: 20,
            at,
            outputs: 6,
            state: state.clone(),
        });
        let says = Message::State {
            seq: 20,
            at,
            outputs: 6,
            state,
        };
        assert_eq!(rig.say(says), [restore]);
        rig.next_seq = 21;
        rig
    }

    fn unarmed() -> Rig {
        let mut rig = Rig::restoring();
        rig.backup.handle_restored(rig.now, digest());
        let copied = A::Send(Message::Copied { digest: digest() });
        assert_eq!(rig.actions(), [copied]);
        rig
    }

    fn armed() -> Rig {
        let mut rig = Rig::unarmed();
        let armed = Message::Armed {
            generation: 9,
            nonce: Nonce(99),
        };
        assert_eq!(rig.say(armed), [A::Turn(T::Armed { generation: 9 })]);
        rig
    }
}

/// The reason of a side that gives up without having been armed.
fn not_armed(actions: &[A]) {
    match actions {
        [.., A::End(E::Halt(reason @ HaltReason::NotArmed(_)))] => assert_eq!(reason.status(), 1),
        other => panic!("{other:?}"),
    }
    let asks = |a: &A| matches!(a, A::Ask(Q::Claim { .. }));
    assert!(!actions.iter().any(asks), "{actions:?}");
}

#[test]
fn who_is_armed_with_a_generation_that_no_vm_reaches_is_not() {
    let mut rig = Rig::unarmed();
    let armed = Message::Armed {
        generation: u64::MAX,
        nonce: Nonce(99),
    };
    not_armed(&rig.say(armed));
}

#[test]
fn it_follows_from_where_the_machine_was_copied_and_goes_live_once_armed() {
    let mut rig = Rig::restoring();
    // The log goes on while the machine is still being built: in the buffer, and acknowledged.
    let actions = rig.log(&[entry(90, Event::Progress), entry(91, Event::Progress)]);
    assert!(matches!(
        &actions[..],
        [A::Deliver(_), A::Send(Message::Ack { received: 22, .. })]
    ));
    rig.backup.handle_restored(rig.now, digest());
    assert!(matches!(
        &rig.actions()[..],
        [A::Send(Message::Copied { .. })]
    ));
    let armed = Message::Armed {
        generation: 9,
        nonce: Nonce(99),
    };
    assert_eq!(rig.say(armed), [A::Turn(T::Armed { generation: 9 })]);
    assert_eq!(
        rig.say(Message::Released { output: 8 }),
        [A::ForgetOutputs { up_to: 8 }]
    );
    assert_eq!(rig.disconnect(), [A::Turn(T::Suspect(closed()))]);
    assert_eq!(rig.drained(22), [A::Ask(Q::Claim { generation: 9 })]);
    let live = rig.claim(ClaimAnswer::Won);
    assert!(
        live.contains(&A::End(E::Live { generation: 9 })),
        "{live:?}"
    );
    let survivor = rig.backup.survivor(11);
    assert_eq!(survivor.right.generation, 9);
    assert_eq!(survivor.right.nonce, Nonce(99));
    assert!(survivor.right.is_of(ME) && survivor.right.is_of(SOURCE));
    assert_eq!((survivor.seq, survivor.outputs), (22, 11));
}

#[test]
fn who_was_not_armed_never_asks_whatever_becomes_of_its_source() {
    for stage in [Rig::receiving, Rig::restoring, Rig::unarmed] {
        not_armed(&stage().disconnect());
        not_armed(&stage().pass(11_000));
        not_armed(&stage().say(Message::Ready));
    }
    let mut rig = Rig::restoring();
    rig.log(&[entry(91, Event::Progress)]);
    not_armed(&rig.disconnect());
    assert_eq!(rig.drained(21), [], "it is over");
}

#[test]
fn a_source_that_goes_before_there_is_a_copy_is_looked_for_again() {
    let mut rig = Rig::greeting();
    rig.say(offer(SOURCE));
    assert_eq!(rig.disconnect(), [A::Turn(T::PrimaryLost(closed()))]);
    rig.read_back(found(77));
    assert!(rig.backup.wants_connection());
}

#[test]
fn an_armed_side_watches_like_any_backup() {
    let mut rig = Rig::armed();
    assert_eq!(rig.drained(20), []);
    assert!(matches!(
        &rig.pass(260)[..],
        [
            A::Turn(T::Suspect(_)),
            A::Disconnect,
            A::Ask(Q::Claim { generation: 9 })
        ]
    ));
}

#[test]
fn it_asks_only_once_its_machine_has_waited_for_the_log() {
    // Where it was copied it may have been on its way already, with an output before the next position.
    let mut rig = Rig::armed();
    assert_eq!(rig.disconnect(), [A::Turn(T::Suspect(closed()))]);
    assert_eq!(rig.drained(20), [A::Ask(Q::Claim { generation: 9 })]);
}

#[test]
fn a_source_that_sends_what_cannot_be_is_left() {
    let mut rig = Rig::receiving();
    not_armed(&rig.say(Message::State {
        seq: u64::MAX,
        at: Position::START,
        outputs: 0,
        state: vec![],
    }));
    let mut rig = Rig::receiving();
    let piece = || Message::Memory {
        pages: vec![0; 1 << 20],
    };
    for _ in 0..16 {
        assert!(matches!(rig.say(piece())[..], [A::Build(B::Load { .. })]));
    }
    not_armed(&rig.say(piece()));
}

#[test]
fn a_source_in_another_arbiter_or_of_no_generation_is_refused() {
    let mut rig = Rig::greeting();
    rig.say(offer(SOURCE));
    let reason = refusal(&rig.read_back(found(78)));
    assert!(reason.contains("--arbiter"), "{reason}");
    let mut rig = Rig::greeting();
    let reason = refusal(&rig.say(offer(MemberId(3))));
    assert!(reason.contains("no member"), "{reason}");
}

#[test]
fn a_copy_that_cannot_be_built_is_refused_and_one_that_is_refused_ends() {
    for stage in [Rig::receiving, Rig::restoring] {
        let mut rig = stage();
        rig.backup.handle_boot_failed(rig.now, "no room".into());
        assert_eq!(refusal(&rig.actions()), "no room");
    }
    for stage in [Rig::receiving, Rig::restoring, Rig::unarmed] {
        let mut rig = stage();
        let reason = String::from("its memory differs");
        let actions = rig.say(Message::Refuse {
            reason: reason.clone(),
        });
        assert_eq!(
            actions,
            [A::Disconnect, A::End(E::Halt(HaltReason::Refused(reason)))]
        );
    }
}

#[test]
fn a_divergence_before_the_arming_is_told_and_ends_it() {
    let mut rig = Rig::unarmed();
    let (at, what) = (Position::exit(95), String::from("x"));
    rig.backup.handle_diverged(rig.now, at, what.clone());
    let told = A::Send(Message::Diverged {
        at,
        what: what.clone(),
    });
    assert_eq!(
        rig.actions(),
        [
            told,
            A::Disconnect,
            A::End(E::Halt(HaltReason::Diverged { at, what }))
        ]
    );
}

#[test]
fn who_is_told_to_leave_while_joining_says_so() {
    let mut rig = Rig::unarmed();
    assert!(rig.backup.handle_leave(rig.now));
    assert_eq!(rig.actions(), [A::Send(Message::Leave), A::Disconnect]);
}
