//! The backup's runtime, as a model.

mod host;

use super::World;
use super::copying::digest;
use super::machine::{Machine, Output};
use super::seat::{Asked, Seat, fence};
use crate::Time;
use crate::backup::{Backup, LogItem};
use crate::host::drive_backup;
use crate::log::Position;
use crate::transfer::Survivor;
use crate::wire::Message;
use host::Acting;
use std::collections::VecDeque;

pub struct BackupSide {
    pub machine: Backup,
    /// It is half of a pair, and may claim.
    pub armed: bool,
    diverged: bool,
    /// It went live, and goes on as this survivor with this machine.
    pub live: Option<(Survivor, Machine)>,
    /// Its vCPU runs in one of so many steps.
    lazy: u64,
    boot: Option<(Time, u64)>,
    /// Pieces of the copy that are not in memory yet, and the number of bytes that are.
    pieces: VecDeque<(Time, u64)>,
    loaded: u64,
    /// The rest of the copy.
    state: Option<(Time, Machine)>,
    /// It joins a VM that runs.
    copied: bool,
    /// Its machine exists.
    stands: bool,
    guest: Machine,
    buffer: VecDeque<LogItem>,
    consumed: u64,
    /// Outputs that were not reported as released.
    held: Vec<Output>,
    forgotten: u64,
    /// The fence has succeeded; the primary has handed over; the held outputs were emitted.
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
            self.fenced |= fenced;
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

    /// Does it execute the log, so that it could diverge?
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
        let mut acting = Acting {
            side: self,
            seat,
            world,
        };
        let Ok(end) = drive_backup(&mut acting);
        assert!(end.is_none() || self.machine.poll_action().is_none());
    }

    /// How far its joining has got.
    fn stage(&self) -> &'static str {
        match (self.stands, &self.state) {
            (true, _) => "with a copy",
            (false, Some(_)) => "restoring",
            (false, None) => "receiving",
        }
    }
}
