//! The primary's runtime, as a model.

use super::link::{Arbiter, Link, Side};
use super::referee::Referee;
use super::{Fate, World, random_fence, soon};
use crate::Time;
use crate::arbiter::{ClaimAnswer, Members, Nonce, OpenRecord};
use crate::primary::{Primary, PrimaryAction};
use crate::testing::Rng;
use crate::wire::Message;
use crate::{HaltReason, testing};

/// What it asked the arbiter.
enum Asked {
    Open(OpenRecord),
    Claim(u64),
    Close(u64),
    Fence,
}

pub struct PrimarySide {
    pub machine: Primary,
    pub fate: Fate,
    pub hung_until: Time,
    /// Its vCPU does not answer before.
    pub mute_until: Time,
    pub started: bool,
    /// Asked the arbiter for a claim after the start.
    pub claimed: bool,
    asked: Option<(Time, Asked)>,
    /// Is to rest; rests.
    parking: bool,
    parked: bool,
    /// Rested, and ran on alone.
    pub taken_back: bool,
    /// The last generation that it won.
    won: u64,
    executed: u64,
    flushed: u64,
    sent: u64,
    /// Outputs: may leave, have left, and the protocol knows that they have.
    passed: u64,
    left: u64,
    told: u64,
}

impl PrimarySide {
    pub fn new(machine: Primary) -> PrimarySide {
        PrimarySide {
            machine,
            fate: Fate::Running,
            hung_until: Time(0),
            mute_until: Time(0),
            started: false,
            claimed: false,
            asked: None,
            parking: false,
            parked: false,
            taken_back: false,
            won: 0,
            executed: 0,
            flushed: 0,
            sent: 0,
            passed: 0,
            left: 0,
            told: 0,
        }
    }

    /// Everything that may happen here now.
    pub fn step(&mut self, world: &mut World) {
        let World {
            now,
            rng,
            link,
            arbiter,
            referee,
            ..
        } = world;
        let now = *now;
        if self.fate != Fate::Running || now < self.hung_until {
            return;
        }
        while let Some(packet) = link.receive(Side::Primary, now) {
            match packet {
                Some(message) => self.machine.handle_message(now, message),
                None => self.machine.handle_disconnected(now),
            }
            self.act(now, rng, link, referee);
        }
        for beat in link.beats(Side::Primary, now) {
            self.machine.handle_beat(now, beat);
        }
        if self.asked.as_ref().is_some_and(|(due, _)| *due <= now) {
            self.answer(now, rng, arbiter);
        }
        self.act(now, rng, link, referee);
        self.execute(now, rng, referee);
        self.emit(now, rng, referee);
        self.act(now, rng, link, referee);
        self.machine.handle_vcpu(self.mute_until <= now);
        self.act(now, rng, link, referee);
        if self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.machine.handle_tick(now);
        }
        self.act(now, rng, link, referee);
    }

    fn answer(&mut self, now: Time, rng: &mut Rng, arbiter: &mut Arbiter) {
        let Some((_, asked)) = self.asked.take() else {
            return;
        };
        match asked {
            Asked::Fence => self.machine.handle_fenced(now, random_fence(rng)),
            Asked::Open(record) => {
                let answer = arbiter.open(record, now, rng);
                self.machine.handle_opened(now, answer);
            }
            Asked::Claim(generation) => {
                let answer = arbiter.claim(generation, super::PRIMARY, now, rng);
                if answer == ClaimAnswer::Won {
                    self.won = generation;
                }
                self.machine.handle_claim(now, answer);
            }
            Asked::Close(generation) => {
                self.machine
                    .handle_closed(now, arbiter.close(generation, now, rng));
            }
        }
    }

    /// The process is gone. What it asked the arbiter may still get there.
    pub fn crash(&mut self, now: Time, rng: &mut Rng, arbiter: &mut Arbiter) {
        self.fate = Fate::Crashed;
        if rng.one_in(2) {
            self.answer(now, rng, arbiter);
        }
    }

    fn execute(&mut self, now: Time, rng: &mut Rng, referee: &Referee) {
        if now < self.mute_until {
            return;
        }
        let guest = &referee.guest;
        for _ in 0..rng.below(4) {
            if self.started && !self.parked && self.machine.may_run() && self.executed < guest.len()
            {
                self.executed += 1;
                if let Some(number) = guest.output(self.executed) {
                    self.machine.handle_output(now, number, self.executed);
                }
            }
        }
        if self.flushed < self.executed && !rng.one_in(3) {
            self.flushed = self.executed;
            let bytes = guest.bytes_up_to(self.flushed);
            self.machine.handle_appended(now, self.flushed, bytes);
            if self.flushed == guest.len() {
                self.machine.handle_guest_end(now, self.flushed);
            }
        }
        let ended = self.executed == guest.len();
        if self.parking && !self.parked && !ended && self.flushed == self.executed {
            self.parked = true;
            self.machine.handle_parked(now, self.flushed);
        }
    }

    fn emit(&mut self, now: Time, rng: &mut Rng, referee: &mut Referee) {
        while self.left < self.passed && !rng.one_in(4) {
            self.left += 1;
            referee.primary_emits(self.left);
        }
        if self.told < self.left && rng.one_in(2) {
            self.told = self.left;
            self.machine.handle_released(now, self.told);
        }
    }

    fn act(&mut self, now: Time, rng: &mut Rng, link: &mut Link, referee: &mut Referee) {
        while let Some(action) = self.machine.poll_action() {
            assert_eq!(self.fate, Fate::Running, "{action:?} after the end");
            match action {
                PrimaryAction::Send(message) => link.send(Side::Primary, message, now, rng),
                PrimaryAction::Beat(beat) => link.beat(Side::Primary, beat, now, rng),
                PrimaryAction::Fence { .. } => self.ask(now, rng, Asked::Fence),
                PrimaryAction::Park => self.parking = true,
                PrimaryAction::Resume => {
                    let right = self.parked && referee.is_alone(Side::Primary);
                    assert!(right, "runs on without the right to");
                    (self.parking, self.parked) = (false, false);
                    self.taken_back = true;
                }
                PrimaryAction::HandedOver { .. } => self.fate = Fate::HandedOver,
                PrimaryAction::Offer { .. }
                | PrimaryAction::Copy
                | PrimaryAction::StopCopy
                | PrimaryAction::Protected { .. }
                | PrimaryAction::Requested(_)
                | PrimaryAction::Leave => {
                    panic!("{action:?}: nobody asked for that")
                }
                PrimaryAction::Welcome {
                    protocol,
                    generation,
                    members,
                    nonce,
                } => {
                    let (header, image) = (Box::new(testing::header()), vec![1]);
                    let welcome = Message::Welcome {
                        protocol,
                        generation,
                        members,
                        nonce,
                        header,
                        image,
                    };
                    link.send(Side::Primary, welcome, now, rng);
                }
                PrimaryAction::SendLog { up_to } => {
                    let frames = referee.guest.frames(self.sent + 1, up_to);
                    self.sent = up_to;
                    link.send(Side::Primary, Message::Log { frames }, now, rng);
                }
                PrimaryAction::Release { up_to } => {
                    assert!(up_to > self.passed, "a release of nothing");
                    self.passed = up_to;
                }
                PrimaryAction::Open {
                    generation,
                    members,
                    nonce,
                } => {
                    self.ask(now, rng, Asked::Open(record(generation, members, nonce)));
                }
                PrimaryAction::Claim { generation } => {
                    self.claimed |= self.started;
                    self.ask(now, rng, Asked::Claim(generation));
                }
                PrimaryAction::Close { generation } => self.ask(now, rng, Asked::Close(generation)),
                PrimaryAction::Start => {
                    let fresh = self.machine.generation() > self.won;
                    assert!(fresh, "I4: a pair in a generation that was won before");
                    self.started = true;
                }
                PrimaryAction::GoSolo { generation } => {
                    referee.goes_alone(Side::Primary, generation);
                }
                PrimaryAction::Disconnect => link.close(Side::Primary, now, rng),
                PrimaryAction::BackupLost(_) => {}
                PrimaryAction::Halt(HaltReason::LostArbitration { .. }) => self.fate = Fate::Lost,
                PrimaryAction::Halt(other) => panic!("{other}"),
                PrimaryAction::Finish { closed } => {
                    assert!(closed, "the arbiter is never down for so long");
                    referee.finishes(Side::Primary);
                    self.fate = Fate::Finished;
                }
            }
        }
    }

    fn ask(&mut self, now: Time, rng: &mut Rng, question: Asked) {
        assert!(self.asked.is_none(), "one question at a time");
        self.asked = Some((soon(now, rng, 5), question));
    }
}

fn record(generation: u64, members: Members, nonce: Nonce) -> OpenRecord {
    OpenRecord {
        vm: "demo".into(),
        generation,
        members,
        nonce,
        at: 0,
    }
}
