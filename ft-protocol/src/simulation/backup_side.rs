//! The backup's runtime, as a model.

use super::link::{Arbiter, Link, Side};
use super::referee::Referee;
use super::{Fate, World, random_fence, soon};
use crate::backup::{Backup, BackupAction, LogItem};
use crate::log::Position;
use crate::testing::Rng;
use crate::wire::Message;
use crate::{HaltReason, Time};
use std::collections::VecDeque;

/// What it asked the arbiter.
enum Asked {
    ReadBack(u64),
    Claim(u64),
    Close(u64),
    Fence,
}

pub struct BackupSide {
    pub machine: Backup,
    pub fate: Fate,
    pub hung_until: Time,
    /// Its vCPU does not answer before.
    pub mute_until: Time,
    pub armed: bool,
    /// Asked the arbiter for a claim.
    pub claimed: bool,
    diverged: bool,
    pub withdrawn: u64,
    /// Its vCPU runs once in so many steps.
    lazy: u64,
    asked: Option<(Time, Asked)>,
    boot: Option<(Time, u64)>,
    buffer: VecDeque<LogItem>,
    consumed: u64,
    executed: u64,
    /// Outputs that were not reported as released.
    held: Vec<u64>,
    forgotten: u64,
    /// The fence succeeded; the primary handed over; what was held was emitted.
    fenced: bool,
    planned: bool,
    emitted: bool,
    live: bool,
    announced: bool,
}

impl BackupSide {
    pub fn new(machine: Backup, lazy: u64) -> BackupSide {
        BackupSide {
            machine,
            fate: Fate::Running,
            hung_until: Time(0),
            mute_until: Time(0),
            armed: false,
            claimed: false,
            diverged: false,
            withdrawn: 0,
            lazy,
            asked: None,
            boot: None,
            buffer: VecDeque::new(),
            consumed: 0,
            executed: 0,
            held: Vec::new(),
            forgotten: 0,
            fenced: false,
            planned: false,
            emitted: false,
            live: false,
            announced: false,
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
        while let Some(packet) = link.receive(Side::Backup, now) {
            match packet {
                Some(message) => self.machine.handle_message(now, message),
                None => self.machine.handle_disconnected(now),
            }
            self.act(now, rng, link, referee);
        }
        for beat in link.beats(Side::Backup, now) {
            self.machine.handle_beat(now, beat);
        }
        if self.asked.as_ref().is_some_and(|(due, _)| *due <= now) {
            self.answer(now, rng, arbiter);
        }
        if let Some((_, generation)) = self.boot.take_if(|(due, _)| *due <= now) {
            self.machine.handle_booted(now, generation);
        }
        self.act(now, rng, link, referee);
        match self.live {
            true => self.execute_live(now, rng, referee),
            false => self.execute(now, rng, referee),
        }
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
            Asked::Fence => {
                let fenced = random_fence(rng);
                self.fenced |= fenced.is_ok();
                self.machine.handle_fenced(now, fenced);
            }
            Asked::ReadBack(generation) => {
                let answer = arbiter.read(generation, now, rng);
                self.machine.handle_read_back(now, answer);
            }
            Asked::Claim(generation) => {
                let answer = arbiter.claim(generation, super::BACKUP, now, rng);
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

    /// The vCPU finds that it differs from the log.
    pub fn diverge(&mut self, now: Time) {
        self.diverged = true;
        let at = Position::exit(self.executed);
        self.machine.handle_diverged(now, at, "planted".into());
    }

    fn execute(&mut self, now: Time, rng: &mut Rng, referee: &Referee) {
        if now < self.mute_until {
            return;
        }
        let entries = if rng.one_in(self.lazy) {
            rng.below(4)
        } else {
            0
        };
        for _ in 0..entries {
            let Some(item) = self.buffer.pop_front() else {
                break;
            };
            self.consumed += item.bytes;
            self.executed = item.seq;
            self.held.extend(
                referee
                    .guest
                    .output(item.seq)
                    .filter(|&n| n > self.forgotten),
            );
            self.machine
                .handle_consumed(now, self.consumed, self.executed);
        }
        if self.buffer.is_empty() && self.armed {
            self.machine.handle_drained(now, self.executed);
        }
    }

    fn execute_live(&mut self, now: Time, rng: &mut Rng, referee: &mut Referee) {
        for _ in 0..rng.below(4) {
            if self.executed == referee.guest.len() {
                return self.machine.handle_guest_end(now);
            }
            self.executed += 1;
            if let Some(number) = referee.guest.output(self.executed) {
                referee.backup_emits(number);
            }
        }
    }

    fn act(&mut self, now: Time, rng: &mut Rng, link: &mut Link, referee: &mut Referee) {
        while let Some(action) = self.machine.poll_action() {
            assert_eq!(self.fate, Fate::Running, "{action:?} after the end");
            match action {
                BackupAction::Send(message) => {
                    self.armed |= message == Message::Ready;
                    link.send(Side::Backup, message, now, rng);
                }
                BackupAction::Beat(beat) => link.beat(Side::Backup, beat, now, rng),
                BackupAction::Fence { .. } => self.ask(now, rng, Asked::Fence),
                BackupAction::TakeOver => self.planned = true,
                BackupAction::ReadBack { generation } => {
                    self.ask(now, rng, Asked::ReadBack(generation));
                }
                BackupAction::Boot { generation, .. } => {
                    self.boot = Some((soon(now, rng, 30), generation));
                }
                BackupAction::Load { .. }
                | BackupAction::Restore { .. }
                | BackupAction::Armed { .. } => panic!("{action:?}: nobody runs yet"),
                BackupAction::Discard => self.boot = None,
                BackupAction::Deliver(delivery) => {
                    for item in delivery.items {
                        referee.delivered += 1;
                        assert_eq!(item.seq, referee.delivered);
                        assert_eq!(item.entry, *referee.guest.entry(item.seq));
                        self.buffer.push_back(item);
                    }
                }
                BackupAction::ForgetOutputs { up_to } => {
                    referee.forgets(up_to);
                    self.forgotten = up_to;
                    self.held.retain(|&number| number > up_to);
                }
                BackupAction::Suspect(_) => {}
                BackupAction::Withdraw => self.withdrawn += 1,
                BackupAction::PrimaryLost(_) => assert!(!self.armed),
                BackupAction::Claim { generation } => {
                    assert!(self.armed, "only an armed member asks");
                    assert!(!self.diverged, "I6: it has diverged, and asks");
                    self.claimed = true;
                    self.ask(now, rng, Asked::Claim(generation));
                }
                BackupAction::EmitHeld => {
                    self.emitted = true;
                    assert!(self.fenced || self.planned, "live before the fence");
                    referee.takes_over(self.executed, self.forgotten, &self.held);
                    referee.goes_alone(Side::Backup, self.machine.generation());
                    for number in self.held.drain(..) {
                        referee.backup_emits(number);
                    }
                }
                BackupAction::Announce => self.announced = referee.is_alone(Side::Backup),
                BackupAction::Live { .. } => {
                    assert!(self.emitted, "I5: live without what was held");
                    assert!(self.announced);
                    self.live = true;
                }
                BackupAction::Close { generation } => self.ask(now, rng, Asked::Close(generation)),
                BackupAction::Disconnect => link.close(Side::Backup, now, rng),
                BackupAction::Halt(HaltReason::LostArbitration { .. }) => self.fate = Fate::Lost,
                BackupAction::Halt(HaltReason::Diverged { .. }) => self.fate = Fate::Crashed,
                BackupAction::Halt(HaltReason::Refused(why)) => {
                    assert!(why.contains("runs alone"), "{why}");
                    self.fate = Fate::Lost;
                }
                BackupAction::Halt(other) => panic!("{other}"),
                BackupAction::Finish { closed } => {
                    assert!(closed, "the arbiter is never down for so long");
                    let all = self.executed == referee.guest.len();
                    assert!(all, "I3: finished with entries not executed");
                    referee.finishes(Side::Backup);
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
