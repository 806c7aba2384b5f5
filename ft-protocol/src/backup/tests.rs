mod broken;
mod control;
mod live;
mod transfer;

use super::*;
use crate::arbiter::{ClaimAnswer, CloseAnswer, Members, Nonce, OpenRecord, ReadBackAnswer};
use crate::detector::Timing;
use crate::log::{DeviceConfig, NetConfig};
use crate::log::{Entry, Event, codec, encode_entry};
use crate::testing::{entries, entry, header, host};
use crate::wire::PROTOCOL_VERSION;
use BackupAction as A;
use BackupEnd as E;
use BackupQuestion as Q;
use BackupTurn as T;
use Build as B;

const THEM: MemberId = MemberId(1);
const ME: MemberId = MemberId(2);
const MEMBERS: Members = Members {
    primary: THEM,
    backup: Some(ME),
};

/// A backup, its time, and short ways to feed it.
struct Rig {
    backup: Backup,
    now: Time,
    /// Sequence of the next entry that the primary sends.
    next_seq: u64,
}

impl Rig {
    fn new(expect: Expectations) -> Rig {
        let timing = Timing::default();
        let config = BackupConfig {
            vm: "demo".into(),
            me: ME,
            host: host(),
            expect,
            timing,
            mutant: None,
        };
        Rig {
            backup: Backup::new(config, Time(0)),
            now: Time(0),
            next_seq: 1,
        }
    }

    /// Connected, and has said Hello.
    fn greeting() -> Rig {
        let mut rig = Rig::new(Expectations::default());
        rig.connect();
        rig
    }

    fn booting() -> Rig {
        let mut rig = Rig::greeting();
        assert_eq!(rig.say(welcome(5)), [A::Ask(Q::ReadBack { generation: 5 })]);
        let (header, image) = (Box::new(header()), vec![1, 2, 3]);
        let boot = A::Build(B::Boot {
            generation: 5,
            header,
            image,
            copied: false,
        });
        assert_eq!(rig.read_back(ReadBackAnswer::Found(record(5))), [boot]);
        rig
    }

    /// Armed, and has received nothing yet.
    fn following() -> Rig {
        let mut rig = Rig::booting();
        rig.backup.handle_booted(rig.now, 5);
        assert_eq!(rig.actions(), [A::Send(Message::Ready)]);
        rig
    }

    /// Armed, with `n` entries received and none executed.
    fn behind(n: u64) -> Rig {
        let mut rig = Rig::following();
        for _ in 0..n {
            rig.log(&[entry(1, Event::Progress)]);
        }
        assert_eq!(rig.backup.received(), n);
        rig
    }

    fn connect(&mut self) {
        self.backup.handle_connected(self.now);
        assert!(!self.backup.wants_connection());
        assert!(matches!(
            &self.actions()[..],
            [A::Send(Message::Hello {
                protocol: PROTOCOL_VERSION,
                member: ME,
                ..
            })]
        ));
    }

    /// What it asks for, but for beats: `control.rs` looks at those.
    fn actions(&mut self) -> Vec<A> {
        let mut actions = self.all_actions();
        actions.retain(|action| !matches!(action, A::Beat(_)));
        actions
    }

    fn all_actions(&mut self) -> Vec<A> {
        std::iter::from_fn(|| self.backup.poll_action()).collect()
    }

    fn say(&mut self, message: Message) -> Vec<A> {
        self.backup.handle_message(self.now, message);
        self.actions()
    }

    fn read_back(&mut self, answer: ReadBackAnswer) -> Vec<A> {
        self.backup.handle_read_back(self.now, answer);
        self.actions()
    }

    fn frames(&mut self, entries: &[Entry]) -> Vec<u8> {
        let mut frames = Vec::new();
        for entry in entries {
            encode_entry(self.next_seq, entry, &mut frames);
            self.next_seq += 1;
        }
        frames
    }

    fn log(&mut self, entries: &[Entry]) -> Vec<A> {
        let frames = self.frames(entries);
        self.say(Message::Log { frames })
    }

    fn drained(&mut self, seq: u64) -> Vec<A> {
        self.backup.handle_drained(self.now, seq);
        self.actions()
    }

    fn disconnect(&mut self) -> Vec<A> {
        self.backup.handle_disconnected(self.now);
        self.actions()
    }

    /// The arbiter's answer, and a fence that succeeds if there is to be one.
    fn claim(&mut self, answer: ClaimAnswer) -> Vec<A> {
        self.backup.handle_claim(self.now, answer);
        let mut actions = self.actions();
        if matches!(actions[..], [A::Ask(Q::Fence { .. })]) {
            self.backup.handle_fenced(self.now, true);
            actions = self.actions();
        }
        actions
    }

    fn closed(&mut self, answer: CloseAnswer) -> Vec<A> {
        self.backup.handle_closed(self.now, answer);
        self.actions()
    }

    /// Lets time pass, with every tick on time; what else than heartbeats comes of it.
    fn pass(&mut self, ms: u64) -> Vec<A> {
        let end = Time(self.now.0 + ms * 1_000_000);
        let mut actions = Vec::new();
        while let Some(next) = self.backup.poll_timeout().filter(|next| *next <= end) {
            assert!(next > self.now, "a timeout that its tick does not serve");
            self.now = next;
            self.backup.handle_tick(next);
            actions.extend(self.actions());
        }
        self.now = end;
        actions.retain(|a| *a != A::Send(Message::Heartbeat));
        actions
    }
}

fn welcome(generation: u64) -> Message {
    Message::Welcome {
        protocol: PROTOCOL_VERSION,
        generation,
        members: MEMBERS,
        nonce: Nonce(9),
        header: Box::new(header()),
        image: vec![1, 2, 3],
    }
}

fn record(generation: u64) -> OpenRecord {
    OpenRecord {
        vm: "demo".into(),
        generation,
        members: MEMBERS,
        nonce: Nonce(9),
        at: 0,
    }
}

fn ack(received: u64, consumed: u64) -> A {
    A::Send(Message::Ack {
        received,
        consumed,
        executed: 0,
    })
}

fn ack_executed(received: u64, executed: u64) -> A {
    A::Send(Message::Ack {
        received,
        consumed: 0,
        executed,
    })
}

fn closed() -> Loss {
    Loss::Suspected(Suspicion::Closed)
}

/// The reason, if this is a refusal that was sent and then halted for.
fn refusal(actions: &[A]) -> String {
    match actions {
        [
            A::Send(Message::Refuse { reason }),
            A::Disconnect,
            A::End(E::Halt(halt)),
        ] => {
            assert_eq!(*halt, HaltReason::Refused(reason.clone()));
            assert_eq!(halt.status(), 2);
            reason.clone()
        }
        other => panic!("no refusal: {other:?}"),
    }
}

/// Armed, having received a log's end as entry 2, not executed.
fn at_the_end() -> Rig {
    let mut rig = Rig::behind(1);
    rig.log(&[entries().pop().unwrap()]);
    rig
}

#[test]
fn it_joins_and_acknowledges_on_receipt() {
    let mut rig = Rig::following();
    let sent = &entries()[..3];
    let mut actions = rig.log(sent);
    assert_eq!(actions.pop(), Some(ack(3, 0)));
    let Some(A::Deliver(Delivery { items, frames })) = actions.pop() else {
        panic!("{actions:?}");
    };
    let got: Vec<_> = items.iter().map(|i| i.entry.clone()).collect();
    assert_eq!(got, sent);
    assert_eq!(
        items.iter().map(|i| i.bytes).sum::<u64>(),
        frames.len() as u64
    );
    assert_eq!(items.iter().map(|i| i.seq).collect::<Vec<_>>(), [1, 2, 3]);
    // What its vCPU takes is told with the next acknowledgement.
    rig.backup.handle_consumed(rig.now, items[0].bytes, 0);
    assert_eq!(rig.actions(), []);
    let actions = rig.log(&entries()[3..4]);
    assert_eq!(actions[1], ack(4, items[0].bytes));
}

#[test]
fn consumption_is_told_by_the_next_heartbeat_or_when_it_is_much() {
    let mut rig = Rig::following();
    let big = entry(
        1,
        Event::Frame {
            data: vec![0; MAX_ENTRY_PAYLOAD / 2],
        },
    );
    rig.log(&[big.clone(), big.clone(), big]);
    rig.backup.handle_consumed(rig.now, 10, 0);
    assert_eq!(rig.actions(), []);
    assert_eq!(rig.pass(20), [ack(3, 10)]);
    assert_eq!(rig.pass(20), []);
    rig.backup
        .handle_consumed(rig.now, 10 + ACK_CONSUMED_BYTES - 1, 0);
    assert_eq!(rig.actions(), []);
    rig.backup
        .handle_consumed(rig.now, 10 + ACK_CONSUMED_BYTES, 0);
    rig.backup
        .handle_consumed(rig.now, 10 + ACK_CONSUMED_BYTES, 0);
    assert_eq!(rig.actions(), [ack(3, 10 + ACK_CONSUMED_BYTES)]);
}

#[test]
#[should_panic(expected = "bytes consumed")]
fn nobody_consumes_what_never_came() {
    let mut rig = Rig::following();
    rig.backup.handle_consumed(rig.now, 1, 0);
}

#[test]
#[should_panic(expected = "1 received")]
fn nobody_executes_what_never_came() {
    Rig::behind(1).drained(2);
}

fn net_of(header: &mut crate::log::Header) -> &mut NetConfig {
    match header.machine.devices.last_mut() {
        Some(DeviceConfig::VirtioNet(net)) => net,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_welcome_that_is_not_the_pair_it_wants_is_refused() {
    let change = |f: &dyn Fn(&mut u32, &mut Members, &mut crate::log::Header)| {
        let mut message = welcome(5);
        let Message::Welcome {
            protocol,
            members,
            header,
            ..
        } = &mut message
        else {
            unreachable!();
        };
        f(protocol, members, header);
        message
    };
    let cases = [
        (welcome(u64::MAX), "which no VM reaches"),
        (change(&|p, _, _| *p += 1), "protocol version"),
        (
            change(&|_, m, _| m.backup = Some(MemberId(7))),
            "another backup",
        ),
        (change(&|_, _, h| h.vm = "other".into()), "VM \"other\""),
        (change(&|_, _, h| h.host.cpu = "AMD".into()), "hosts differ"),
        (change(&|_, _, h| h.machine.mem_mib = 65), "65 MiB"),
        (change(&|_, _, h| h.machine.model += 1), "machine model"),
        (change(&|_, _, h| h.machine.devices.truncate(4)), "mac="),
        (change(&|_, _, h| net_of(h).mac[5] = 9), "mac="),
        (change(&|_, _, h| net_of(h).ip[3] = 9), "ip="),
        (change(&|_, _, h| net_of(h).prefix_len = 8), "ip="),
    ];
    let net = header().machine.net().unwrap();
    let expect = Expectations {
        mem_mib: Some(64),
        mac: Some(net.mac),
        ip: Some((net.ip, net.prefix_len)),
        ..Expectations::default()
    };
    for (message, why) in cases {
        let mut rig = Rig::new(expect);
        rig.connect();
        let reason = refusal(&rig.say(message));
        assert!(reason.contains(why), "{why}: {reason}");
        assert!(!rig.backup.wants_connection());
    }
    let mut rig = Rig::new(expect);
    rig.connect();
    assert_eq!(rig.say(welcome(5)), [A::Ask(Q::ReadBack { generation: 5 })]);
}

#[test]
fn a_refused_backup_stops_with_the_primarys_sentence() {
    let mut rig = Rig::greeting();
    let actions = rig.say(Message::Refuse {
        reason: "no".into(),
    });
    let halt = A::End(E::Halt(HaltReason::Refused("no".into())));
    assert_eq!(actions, [A::Disconnect, halt]);
}

#[test]
fn two_arbiters_are_found_out() {
    let other_nonce = OpenRecord {
        nonce: Nonce(8),
        ..record(5)
    };
    let other_pair = OpenRecord {
        members: Members {
            backup: None,
            ..MEMBERS
        },
        ..record(5)
    };
    for answer in [
        ReadBackAnswer::Missing,
        ReadBackAnswer::Found(other_nonce),
        ReadBackAnswer::Found(other_pair),
    ] {
        let mut rig = Rig::greeting();
        rig.say(welcome(5));
        let reason = refusal(&rig.read_back(answer));
        assert!(reason.contains("different places"), "{reason}");
    }
}

#[test]
fn an_unreachable_arbiter_is_read_again_every_second() {
    let mut rig = Rig::greeting();
    rig.say(welcome(5));
    for _ in 0..3 {
        assert_eq!(
            rig.read_back(ReadBackAnswer::Unreachable("no route".into())),
            []
        );
        assert_eq!(rig.pass(999), []);
        assert_eq!(rig.pass(1), [A::Ask(Q::ReadBack { generation: 5 })]);
    }
    assert!(matches!(
        rig.read_back(ReadBackAnswer::Found(record(5)))[..],
        [A::Build(B::Boot { .. })]
    ));
}

#[test]
fn a_machine_that_cannot_be_built_is_a_refusal() {
    let mut rig = Rig::booting();
    rig.backup
        .handle_boot_failed(rig.now, "there is no TAP tap0".into());
    assert!(refusal(&rig.actions()).contains("tap0"));
}

#[test]
fn before_it_is_armed_it_never_asks_but_connects_again() {
    let lost = |why| A::Turn(T::PrimaryLost(why));
    let mut rig = Rig::greeting();
    assert_eq!(rig.disconnect(), [lost(closed())]);
    rig.connect();
    let silent = rig.pass(11_000);
    assert!(matches!(
        silent[..],
        [A::Disconnect, A::Turn(T::PrimaryLost(Loss::Suspected(_)))]
    ));
    rig.connect();
    rig.say(welcome(5));
    assert_eq!(rig.disconnect(), [lost(closed())]);
    // The answer is still to come, and means nothing when it does.
    assert!(!rig.backup.wants_connection());
    assert_eq!(rig.read_back(ReadBackAnswer::Found(record(5))), []);
    assert!(rig.backup.wants_connection());
    rig.connect();
    rig.say(welcome(6));
    rig.read_back(ReadBackAnswer::Found(record(6)));
    assert_eq!(rig.disconnect(), [A::Build(B::Discard), lost(closed())]);
    rig.backup.handle_booted(rig.now, 6);
    assert_eq!(rig.actions(), [], "that machine was thrown away");
    rig.connect();
    rig.say(welcome(7));
    rig.read_back(ReadBackAnswer::Found(record(7)));
    rig.backup.handle_booted(rig.now, 6);
    assert_eq!(rig.actions(), [], "another machine");
    rig.backup.handle_booted(rig.now, 7);
    assert_eq!(rig.actions(), [A::Send(Message::Ready)]);
}

#[test]
fn a_lost_connection_gives_up_a_read_back_that_waits_to_be_repeated() {
    let mut rig = Rig::greeting();
    rig.say(welcome(5));
    rig.read_back(ReadBackAnswer::Unreachable("no route".into()));
    rig.disconnect();
    assert!(rig.backup.wants_connection());
    assert_eq!(rig.pass(5000), []);
}
