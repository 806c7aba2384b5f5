mod beats;
mod doubt;
mod end;
mod handover;
mod lost;
mod transfer;
mod watch;

use super::*;
use crate::arbiter::{ClaimAnswer, CloseAnswer, Nonce, OpenAnswer, OpenRecord};
use crate::detector::Timing;
use crate::gate::{GATE_BYTES, GATE_OUTPUTS};
use crate::log::{Counts, HostPrint, SOFTWARE_CPU};
use crate::testing::host;
use crate::wire::{Beat, Request};
use Copying as C;
use PrimaryAction as A;
use PrimaryEnd as E;
use PrimaryQuestion as Q;
use PrimaryTurn as T;

const ME: MemberId = MemberId(1);
const THEM: MemberId = MemberId(2);

/// A primary, its time, and short ways to feed it.
struct Rig {
    primary: Primary,
    now: Time,
}

impl Rig {
    fn new(solo: bool) -> Rig {
        let config = PrimaryConfig {
            vm: "demo".into(),
            me: ME,
            host: host(),
            counts: Counts::BranchEdges,
            generation: 5,
            nonce: Nonce(100),
            solo,
            timing: Timing::default(),
            mutant: None,
        };
        Rig {
            primary: Primary::new(config, Time(0)),
            now: Time(0),
        }
    }

    /// Connected, welcomed, and executing.
    fn paired() -> Rig {
        let mut rig = Rig::joining();
        assert_eq!(rig.say(Message::Ready), [A::Turn(T::Start)]);
        assert!(rig.primary.may_run());
        rig
    }

    fn joining() -> Rig {
        let mut rig = Rig::new(false);
        rig.join(5);
        rig
    }

    /// A backup connects and is welcomed into this generation.
    fn join(&mut self, generation: u64) {
        self.primary.handle_connected(self.now);
        let right = pair(generation);
        assert_eq!(self.say(hello()), [A::Ask(Q::Open(right))]);
        let protocol = PROTOCOL_VERSION;
        self.primary.handle_opened(self.now, OpenAnswer::Opened);
        assert_eq!(self.actions(), [A::Welcome { protocol, right }]);
        assert!(!self.primary.may_run());
    }

    /// What it asks for, but for beats: `beats.rs` looks at those.
    fn actions(&mut self) -> Vec<A> {
        let mut actions = self.all_actions();
        actions.retain(|action| !matches!(action, A::Beat(_)));
        actions
    }

    fn all_actions(&mut self) -> Vec<A> {
        std::iter::from_fn(|| self.primary.poll_action()).collect()
    }

    fn say(&mut self, message: Message) -> Vec<A> {
        self.primary.handle_message(self.now, message);
        self.actions()
    }

    fn ack(&mut self, received: u64) -> Vec<A> {
        self.say(Message::Ack {
            received,
            consumed: 0,
            executed: 0,
        })
    }

    fn append(&mut self, seq: u64) -> Vec<A> {
        self.primary.handle_appended(self.now, seq, seq * 100);
        self.actions()
    }

    fn output(&mut self, number: u64, needs: u64) -> Vec<A> {
        self.large_output(number, needs, 100)
    }

    fn large_output(&mut self, number: u64, needs: u64, bytes: u64) -> Vec<A> {
        self.primary.handle_output(self.now, number, needs, bytes);
        self.actions()
    }

    fn released(&mut self, up_to: u64) -> Vec<A> {
        self.primary.handle_released(self.now, up_to);
        self.actions()
    }

    fn disconnect(&mut self) -> Vec<A> {
        self.primary.handle_disconnected(self.now);
        self.actions()
    }

    /// The arbiter's answer, and a fence that succeeds if there is to be one.
    fn claim(&mut self, answer: ClaimAnswer) -> Vec<A> {
        self.primary.handle_claim(self.now, answer);
        let mut actions = self.actions();
        if matches!(actions[..], [A::Ask(Q::Fence { .. })]) {
            self.primary.handle_fenced(self.now, true);
            actions = self.actions();
        }
        actions
    }

    fn closed(&mut self, answer: CloseAnswer) -> Vec<A> {
        self.primary.handle_closed(self.now, answer);
        self.actions()
    }

    /// Lets time pass, with every tick on time.
    fn pass(&mut self, ms: u64) -> Vec<A> {
        let end = Time(self.now.0 + ms * 1_000_000);
        let mut actions = Vec::new();
        while let Some(next) = self.primary.poll_timeout().filter(|next| *next <= end) {
            assert!(next > self.now, "a timeout that its tick does not serve");
            self.now = next;
            self.primary.handle_tick(next);
            actions.extend(self.actions());
        }
        self.now = end;
        actions
    }
}

/// A generation as it is opened for the two.
fn pair(generation: u64) -> Right {
    Right {
        generation,
        members: Members {
            primary: ME,
            backup: Some(THEM),
        },
        nonce: Nonce(100 + u128::from(generation)),
    }
}

fn hello() -> Message {
    let vm = "demo".into();
    Message::Hello {
        protocol: PROTOCOL_VERSION,
        vm,
        member: THEM,
        host: host(),
    }
}

fn heartbeat() -> A {
    A::Send(Message::Heartbeat)
}

fn lost_closed() -> A {
    A::Turn(T::BackupLost(Loss::Suspected(Suspicion::Closed)))
}

fn unreachable() -> ClaimAnswer {
    ClaimAnswer::Unreachable("no route".into())
}

#[test]
fn nothing_executes_before_the_backup_is_ready() {
    let mut rig = Rig::new(false);
    assert!(!rig.primary.may_run() && rig.primary.poll_timeout().is_none());
    rig.join(5);
    assert_eq!(rig.pass(60), [heartbeat(), heartbeat(), heartbeat()]);
    assert_eq!(rig.say(Message::Ready), [A::Turn(T::Start)]);
    assert!(rig.primary.may_run() && !rig.primary.is_solo());
}

#[test]
fn who_cannot_be_a_backup_is_refused_and_the_next_may_come() {
    let mut other = host();
    other.exits += 1;
    let cases = [
        (
            PROTOCOL_VERSION + 2,
            "demo",
            THEM,
            host(),
            "protocol version",
        ),
        (0, "demo", THEM, host(), "protocol version"),
        (PROTOCOL_VERSION, "other", THEM, host(), "wants \"other\""),
        (PROTOCOL_VERSION, "demo", ME, host(), "own member id"),
        (PROTOCOL_VERSION, "demo", THEM, other, "hosts differ"),
    ];
    let mut rig = Rig::new(false);
    for (protocol, vm, member, host, why) in cases {
        rig.primary.handle_connected(rig.now);
        let actions = rig.say(Message::Hello {
            protocol,
            vm: vm.into(),
            member,
            host,
        });
        match &actions[..] {
            [A::Send(Message::Refuse { reason }), A::Disconnect] => {
                assert!(reason.contains(why), "{reason}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
    rig.join(5);
}

/// A host with this CPU, and these exits.
fn host_with(cpu: &str, exits: u64) -> HostPrint {
    HostPrint {
        cpu: cpu.into(),
        exits,
    }
}

#[test]
fn which_hosts_may_be_a_pair_depends_on_what_is_counted() {
    let soft = |model| format!("{SOFTWARE_CPU}, model {model}");
    let (one, other) = (host_with("AMD", 1), host_with("Intel", 1));
    let (ours, newer) = (host_with(&soft(1), 1), host_with(&soft(2), 1));
    for (primary, backup, edges) in [
        (&one, &one, true),
        (&one, &other, false),
        (&one, &ours, true),
        (&ours, &other, true),
        (&ours, &ours, true),
        (&ours, &newer, false),
        (&one, &host_with("AMD", 2), false),
        (&one, &host_with(&soft(1), 2), false),
    ] {
        let fits = |counts| host_refusal(counts, primary, backup).is_none();
        assert_eq!(fits(Counts::BranchEdges), edges, "{primary:?}, {backup:?}");
        assert!(fits(Counts::Instructions), "{primary:?}, {backup:?}");
    }
}

#[test]
fn a_newer_neighbour_version_is_spoken_to_in_ours() {
    let mut rig = Rig::new(false);
    rig.primary.handle_connected(rig.now);
    let protocol = PROTOCOL_VERSION + 1;
    rig.say(Message::Hello {
        protocol,
        vm: "demo".into(),
        member: THEM,
        host: host(),
    });
    rig.primary.handle_opened(rig.now, OpenAnswer::Opened);
    assert!(matches!(
        rig.actions()[..],
        [A::Welcome {
            protocol: PROTOCOL_VERSION,
            ..
        }]
    ));
}

#[test]
fn a_connection_that_says_nothing_or_nonsense_is_closed() {
    let mut rig = Rig::new(false);
    rig.primary.handle_connected(rig.now);
    assert!(!rig.primary.accepts_connection());
    assert_eq!(rig.pass(6000), [A::Disconnect]);
    rig.primary.handle_connected(rig.now);
    assert_eq!(rig.say(Message::Heartbeat), [A::Disconnect]);
    assert_eq!(
        rig.say(hello()),
        [],
        "what a closed connection still says means nothing"
    );
    rig.primary.handle_connected(rig.now);
    assert_eq!(rig.disconnect(), []);
    rig.join(5);
}

#[test]
fn a_generation_that_is_open_is_not_taken() {
    let mut rig = Rig::new(false);
    rig.primary.handle_connected(rig.now);
    rig.say(hello());
    let members = Members {
        primary: MemberId(9),
        backup: None,
    };
    let record = OpenRecord {
        vm: "demo".into(),
        generation: 5,
        members,
        nonce: Nonce(1),
        at: 0,
    };
    rig.primary
        .handle_opened(rig.now, OpenAnswer::AlreadyOpen { record });
    match &rig.actions()[..] {
        [A::Disconnect, A::End(E::Halt(reason))] => assert_eq!(reason.status(), 2, "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unreachable_arbiter_is_asked_to_open_again_every_second() {
    let mut rig = Rig::new(false);
    rig.primary.handle_connected(rig.now);
    let open = rig.say(hello());
    for _ in 0..3 {
        rig.primary
            .handle_opened(rig.now, OpenAnswer::Unreachable("no route".into()));
        rig.say(Message::Heartbeat);
        let mut asked = rig.pass(1000);
        asked.retain(|a| *a != heartbeat());
        assert_eq!(asked, open);
    }
    // An answer to no question changes nothing.
    rig.primary.handle_opened(rig.now, OpenAnswer::Opened);
    rig.actions();
    rig.primary.handle_opened(rig.now, OpenAnswer::Opened);
    assert_eq!(rig.actions(), []);
}

#[test]
fn outputs_leave_with_the_acknowledgement_and_the_backup_is_told() {
    let mut rig = Rig::paired();
    assert_eq!(rig.output(1, 3), []);
    assert_eq!(rig.append(3), [A::SendLog { up_to: 3 }]);
    assert_eq!(rig.ack(2), []);
    assert_eq!(rig.ack(3), [A::Release { up_to: 1 }]);
    assert_eq!(rig.ack(3), []);
    assert_eq!(rig.released(1), []);
    assert_eq!(rig.pass(20), [A::Send(Message::Released { output: 1 })]);
    assert_eq!(rig.pass(20), [heartbeat()]);
    // Acknowledged before the guest emits it: nothing to wait for.
    rig.append(9);
    rig.ack(9);
    assert_eq!(rig.output(2, 9), [A::Release { up_to: 2 }]);
    rig.released(2);
    let told = A::Send(Message::Released { output: 2 });
    assert_eq!(rig.append(10), [A::SendLog { up_to: 10 }, told]);
    // An old acknowledgement that comes again takes nothing back.
    assert_eq!(rig.ack(3), []);
    assert_eq!(rig.output(3, 9), [A::Release { up_to: 3 }]);
}

#[test]
fn sends_of_the_log_that_nobody_took_yet_are_one() {
    let mut rig = Rig::paired();
    rig.primary.handle_appended(rig.now, 1, 10);
    rig.primary.handle_appended(rig.now, 4, 40);
    assert_eq!(rig.actions(), [A::SendLog { up_to: 4 }]);
}

#[test]
#[should_panic(expected = "before it was let go")]
fn the_runtime_cannot_release_on_its_own() {
    let mut rig = Rig::paired();
    rig.output(1, 3);
    rig.released(1);
}

#[test]
fn the_vcpu_waits_for_a_backup_that_is_too_far_behind() {
    let mut rig = Rig::paired();
    rig.primary.handle_appended(rig.now, 1, LOG_WINDOW_BYTES);
    assert!(rig.primary.may_run());
    rig.primary
        .handle_appended(rig.now, 2, LOG_WINDOW_BYTES + 5);
    rig.primary
        .handle_appended(rig.now, 3, LOG_WINDOW_BYTES + 6);
    assert!(!rig.primary.may_run());
    assert_eq!(rig.primary.stalls(), Stalls { window: 1, gate: 0 });
    rig.say(Message::Ack {
        received: 2,
        consumed: 5,
        executed: 0,
    });
    assert!(!rig.primary.may_run());
    rig.say(Message::Ack {
        received: 2,
        consumed: 6,
        executed: 0,
    });
    assert!(rig.primary.may_run());
    assert_eq!(rig.primary.lag_bytes(), LOG_WINDOW_BYTES);
    assert_eq!(rig.primary.stalls(), Stalls { window: 1, gate: 0 });
}

#[test]
fn the_vcpu_waits_for_a_gate_that_is_full_of_few_large_outputs() {
    const LARGE: u64 = 64 << 10;
    let mut rig = Rig::paired();
    rig.append(2);
    for number in 1..=GATE_BYTES / LARGE {
        assert!(rig.primary.may_run());
        rig.large_output(number, 1 + number / 100, LARGE);
    }
    assert!(!rig.primary.may_run());
    rig.ack(1);
    assert!(rig.primary.may_run());
    assert_eq!(rig.primary.stalls(), Stalls { window: 0, gate: 1 });
}

#[test]
fn the_vcpu_waits_for_a_full_gate() {
    let mut rig = Rig::paired();
    rig.append(2);
    for number in 1..=GATE_OUTPUTS as u64 {
        assert!(rig.primary.may_run());
        rig.output(number, 1 + number / 100);
    }
    assert!(!rig.primary.may_run());
    assert_eq!(rig.primary.held_outputs(), GATE_OUTPUTS);
    rig.ack(1);
    assert!(rig.primary.may_run());
    assert_eq!(rig.primary.stalls(), Stalls { window: 0, gate: 1 });
}
