//! The backup's runtime, as a model.

use super::copying::{BYTE, digest};
use super::machine::{Machine, Output};
use super::seat::{Asked, Seat, fence};
use super::{Fate, World, soon};
use crate::backup::{
    Backup, BackupAction, BackupEnd, BackupQuestion, BackupTurn, Build, Delivery, LogItem,
};
use crate::log::Position;
use crate::transfer::Survivor;
use crate::wire::Message;
use crate::{HaltReason, Time};
use std::collections::VecDeque;

pub struct BackupSide {
    pub machine: Backup,
    /// Half of a pair: it may ask.
    pub armed: bool,
    diverged: bool,
    /// Went live, and goes on as this, with this machine.
    pub live: Option<(Survivor, Machine)>,
    /// Its vCPU runs once in so many steps.
    lazy: u64,
    boot: Option<(Time, u64)>,
    /// Pieces of the copy that are not in the memory yet, and bytes that are.
    pieces: VecDeque<(Time, u64)>,
    loaded: u64,
    /// The rest of the copy.
    state: Option<(Time, Machine)>,
    /// Joins a VM that runs.
    copied: bool,
    /// There is a machine.
    stands: bool,
    guest: Machine,
    buffer: VecDeque<LogItem>,
    consumed: u64,
    /// Outputs that were not reported as released.
    held: Vec<Output>,
    forgotten: u64,
    /// The fence succeeded; the primary handed over; what was held was emitted.
    fenced: bool,
    planned: bool,
    emitted: bool,
    closes: bool,
}

impl BackupSide {
    pub fn new(machine: Backup, lazy: u64) -> BackupSide {
        BackupSide {
            machine,
            armed: false,
            diverged: false,
            live: None,
            lazy,
            boot: None,
            pieces: VecDeque::new(),
            loaded: 0,
            state: None,
            copied: false,
            stands: false,
            guest: Machine::default(),
            buffer: VecDeque::new(),
            consumed: 0,
            held: Vec::new(),
            forgotten: 0,
            fenced: false,
            planned: false,
            emitted: false,
            closes: false,
        }
    }

    /// Everything that may happen here now.
    pub fn step(&mut self, seat: &mut Seat, world: &mut World) {
        let now = world.now;
        while let Some(packet) = seat.receive(now) {
            match packet {
                Some(message) => {
                    match &message {
                        Message::Welcome { members, .. } => seat.peer = Some(members.primary),
                        Message::Offer { source, .. } => seat.peer = Some(*source),
                        _ => {}
                    }
                    self.machine.handle_message(now, message);
                }
                None => self.machine.handle_disconnected(now),
            }
            self.act(seat, world);
        }
        for beat in seat.beats(now) {
            self.machine.handle_beat(now, beat);
        }
        while let Some(asked) = seat.due(now) {
            self.answer(seat, asked, world);
            self.act(seat, world);
        }
        self.build(world);
        self.act(seat, world);
        self.execute(seat, world);
        self.act(seat, world);
        self.machine.handle_vcpu(seat.mute_until <= now);
        self.act(seat, world);
        if self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.machine.handle_tick(now);
        }
        self.act(seat, world);
    }

    fn answer(&mut self, seat: &Seat, asked: Asked, world: &mut World) {
        if let Asked::Fence = asked {
            let fenced = fence(world);
            self.fenced |= fenced.is_ok();
            return self.machine.handle_fenced(world.now, fenced);
        }
        let World {
            now, rng, arbiter, ..
        } = world;
        let now = *now;
        match asked {
            Asked::ReadBack(generation) => {
                let answer = arbiter.read(generation, now, rng);
                self.machine.handle_read_back(now, answer);
            }
            Asked::Claim(generation) => {
                let answer = arbiter.claim(generation, seat.me, now, rng);
                self.machine.handle_claim(now, answer);
            }
            Asked::Close(generation) => {
                let answer = arbiter.close(generation, now, rng);
                self.machine.handle_closed(now, answer);
            }
            Asked::Open(_) | Asked::Fence => unreachable!("a backup opens nothing"),
        }
    }

    /// The vCPU finds that it differs from the log.
    pub fn diverge(&mut self, now: Time) {
        self.diverged = true;
        let at = Position::exit(self.guest.seq);
        self.machine.handle_diverged(now, at, "planted".into());
    }

    /// Whether there is something that could diverge.
    pub fn follows(&self) -> bool {
        self.stands && !self.emitted
    }

    /// The machine is built, or its copy.
    fn build(&mut self, world: &mut World) {
        let now = world.now;
        if let Some((_, generation)) = self.boot.take_if(|(due, _)| *due <= now) {
            if self.copied && std::mem::take(&mut world.boot_fails) {
                return self.machine.handle_boot_failed(now, "no room".into());
            }
            self.stands = !self.copied;
            self.machine.handle_booted(now, generation);
        }
        while let Some((_, bytes)) = self.pieces.pop_front_if(|(due, _)| *due <= now) {
            self.loaded += bytes;
            self.machine.handle_loaded(now, self.loaded);
        }
        let complete = self.pieces.is_empty();
        if let Some((_, mut copy)) = self.state.take_if(|(due, _)| complete && *due <= now) {
            if std::mem::take(&mut world.copy_damaged) {
                copy.chain ^= 1 << world.rng.below(64);
            }
            (self.guest, self.stands) = (copy, true);
            let digest = digest(self.loaded, copy.chain);
            self.machine.handle_restored(now, digest);
            world.reaches("restored");
        }
    }

    fn execute(&mut self, seat: &Seat, world: &mut World) {
        if world.now < seat.mute_until || !self.stands {
            return;
        }
        let entries = match world.rng.one_in(self.lazy) {
            true => world.rng.below(4),
            false => 0,
        };
        for _ in 0..entries {
            let Some(item) = self.buffer.pop_front() else {
                break;
            };
            self.consumed += item.bytes;
            let output = self.guest.execute(&item.entry);
            self.held
                .extend(output.filter(|o| o.number > self.forgotten));
            self.machine
                .handle_consumed(world.now, self.consumed, item.seq);
        }
        if self.buffer.is_empty() {
            self.machine.handle_drained(world.now, self.guest.seq);
        }
    }

    pub fn act(&mut self, seat: &mut Seat, world: &mut World) {
        while let Some(action) = self.machine.poll_action() {
            assert_eq!(seat.fate, Fate::Running, "{action:?} after the end");
            assert!(self.live.is_none(), "{action:?} after going live");
            self.perform(seat, action, world);
        }
    }

    fn perform(&mut self, seat: &mut Seat, action: BackupAction, world: &mut World) {
        match &action {
            BackupAction::Beat(_) | BackupAction::Deliver(_) => {}
            BackupAction::ForgetOutputs { .. } | BackupAction::Build(Build::Boot { .. }) => {}
            BackupAction::Send(Message::Ack { .. } | Message::Heartbeat) => {}
            other => world.tell(seat.me, other),
        }
        match action {
            BackupAction::Send(message) => {
                self.armed |= message == Message::Ready && !self.copied;
                seat.send(message, world);
            }
            BackupAction::Beat(beat) => seat.beat(beat, world),
            BackupAction::Disconnect => seat.disconnect(world),
            BackupAction::Ask(question) => self.ask(seat, question, world),
            BackupAction::Build(build) => self.prepare(seat, build, world),
            BackupAction::Deliver(delivery) => self.deliver(seat, delivery, world),
            BackupAction::ForgetOutputs { up_to } => {
                world.referee.forgets(seat.me, up_to);
                self.forgotten = up_to;
                self.held.retain(|output| output.number > up_to);
            }
            BackupAction::Turn(turn) => self.turn(seat, turn, world),
            BackupAction::End(end) => self.end(seat, end, world),
        }
    }

    fn ask(&mut self, seat: &mut Seat, question: BackupQuestion, world: &mut World) {
        match question {
            BackupQuestion::ReadBack { generation } => {
                seat.ask(Asked::ReadBack(generation), world);
            }
            BackupQuestion::Claim { generation } => {
                assert!(!self.diverged, "I6: it has diverged, and asks");
                world.referee.asks(seat.me, generation, self.armed);
                seat.ask(Asked::Claim(generation), world);
            }
            BackupQuestion::Fence { .. } => seat.ask(Asked::Fence, world),
            BackupQuestion::Close { generation } => {
                self.closes = true;
                seat.ask(Asked::Close(generation), world);
            }
        }
    }

    fn prepare(&mut self, seat: &Seat, build: Build, world: &mut World) {
        let now = world.now;
        match build {
            Build::Boot {
                generation, copied, ..
            } => {
                self.copied = copied;
                self.boot = Some((soon(now, &mut world.rng, 30), generation));
            }
            Build::Load { pages } => {
                let due = soon(now, &mut world.rng, 5);
                self.pieces.push_back((due, pages.len() as u64 * BYTE));
            }
            Build::Restore {
                seq,
                outputs,
                state,
                ..
            } => {
                let source = seat.peer.expect("somebody offered it");
                world.referee.copies(source, seat.me, seq);
                let copy = Machine {
                    seq,
                    outputs,
                    chain: u64::from_le_bytes(state.try_into().expect("a chain")),
                    ended: false,
                };
                self.forgotten = outputs;
                self.state = Some((soon(now, &mut world.rng, 30), copy));
            }
            Build::Discard => self.boot = None,
        }
    }

    fn deliver(&mut self, seat: &Seat, delivery: Delivery, world: &mut World) {
        let source = seat.peer.expect("somebody sent it");
        for item in delivery.items {
            world
                .referee
                .delivers(source, seat.me, item.seq, &item.entry);
            self.buffer.push_back(item);
        }
    }

    fn emit_held(&mut self, seat: &Seat, world: &mut World) {
        self.emitted = true;
        if self.planned && self.copied {
            world.note("a joiner takes over as planned");
        }
        assert!(self.fenced || self.planned, "live before the fence");
        let generation = self.machine.generation();
        world
            .referee
            .takes_over(seat.me, generation, self.guest, &self.held);
        for output in self.held.drain(..) {
            world.referee.emits(seat.me, output);
        }
    }

    /// How far its joining is.
    fn stage(&self) -> &'static str {
        match (self.stands, &self.state) {
            (true, _) => "with a copy",
            (false, Some(_)) => "restoring",
            (false, None) => "receiving",
        }
    }

    /// What changes this side's part.
    fn turn(&mut self, seat: &Seat, turn: BackupTurn, world: &mut World) {
        match turn {
            BackupTurn::Armed { .. } => {
                self.armed = true;
                world.note("joined");
                world.reaches("protects");
            }
            BackupTurn::TakeOver => self.planned = true,
            BackupTurn::Suspect(_) | BackupTurn::Announce => {}
            BackupTurn::Withdraw => world.note("withdrawn"),
            BackupTurn::PrimaryLost(_) => assert!(!self.armed),
            BackupTurn::EmitHeld => self.emit_held(seat, world),
        }
    }

    fn end(&mut self, seat: &mut Seat, end: BackupEnd, world: &mut World) {
        match end {
            BackupEnd::Live { .. } => {
                assert!(self.emitted, "I5: live without what was held");
                let survivor = self.machine.survivor(self.guest.outputs);
                self.live = Some((survivor, self.guest));
                world.note(match self.copied {
                    true => "joiner live",
                    false => "backup live",
                });
            }
            BackupEnd::Halt(reason) => {
                seat.fate = match reason {
                    HaltReason::LostArbitration { .. } => Fate::Lost,
                    HaltReason::Diverged { .. } => Fate::Crashed,
                    HaltReason::NotArmed(_) => {
                        world.lost_source(seat.me, self.stage());
                        Fate::NotArmed
                    }
                    HaltReason::Refused(why) => {
                        assert!(!why.contains("by force"), "{why}");
                        Fate::Refused
                    }
                    other @ (HaltReason::NotFree(_) | HaltReason::NoRight(_)) => panic!("{other}"),
                }
            }
            BackupEnd::Finish { closed } => {
                assert!(closed, "the arbiter is never down for so long");
                world.referee.finishes(seat.me);
                let clean = !self.closes || world.arbiter.is_clean();
                assert!(clean, "a clean end is in a cold start's way");
                seat.fate = Fate::Finished;
            }
        }
    }
}
