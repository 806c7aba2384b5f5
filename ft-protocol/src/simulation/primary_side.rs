//! The runtime of a primary or of a survivor, as a model.

mod host;

use super::World;
use super::copying::{Copying, digest};
use super::machine::{Machine, Output, frame};
use super::seat::{Asked, Seat, fence};
use crate::Time;
use crate::arbiter::{ClaimAnswer, OpenAnswer};
use crate::host::drive_primary;
use crate::log::Position;
use crate::primary::Primary;
use crate::transfer::Capture;
use crate::wire::Message;
use host::Acting;
use std::collections::VecDeque;
use std::time::Duration;

/// A primary that did nothing for so long was away. It is more than the detector allows a tick to be
/// late.
const AWAY: Duration = Duration::from_millis(62);

pub struct PrimarySide {
    pub machine: Primary,
    guest: Machine,
    pub started: bool,
    /// Must the vCPU rest, and does it rest?
    parking: bool,
    parked: bool,
    /// Resting happens in one of about so many steps.
    park_lazy: u64,
    /// It has asked the backup to take over.
    handed_over: bool,
    /// The last generation that it won.
    won: u64,
    /// The log: frames that are not handed in yet, the last entry and the bytes that were handed in,
    /// and frames to send.
    fresh: Vec<u8>,
    flushed: u64,
    bytes: u64,
    unsent: VecDeque<(u64, Vec<u8>)>,
    /// Outputs that have not left. Then the numbers of the last output that may leave, that has left,
    /// and that the protocol knows to have left.
    held: VecDeque<Output>,
    passed: u64,
    left: u64,
    told: u64,
    copy: Option<Copying>,
    /// When it last did something, and whether it was away since the backup last answered.
    stepped: Time,
    away: bool,
    /// How far the joiner has got.
    stage: &'static str,
}

impl PrimarySide {
    pub fn new(machine: Primary) -> PrimarySide {
        PrimarySide {
            machine,
            guest: Machine::default(),
            started: false,
            parking: false,
            parked: false,
            park_lazy: 1,
            handed_over: false,
            won: 0,
            fresh: Vec::new(),
            flushed: 0,
            bytes: 0,
            unsent: VecDeque::new(),
            held: VecDeque::new(),
            passed: 0,
            left: 0,
            told: 0,
            copy: None,
            stepped: Time(0),
            away: false,
            stage: "nobody",
        }
    }

    /// The primary that a backup becomes when it goes live.
    pub fn survivor(machine: Primary, guest: Machine) -> PrimarySide {
        PrimarySide {
            started: true,
            guest,
            flushed: guest.seq,
            passed: guest.outputs,
            left: guest.outputs,
            told: guest.outputs,
            won: machine.generation(),
            ..PrimarySide::new(machine)
        }
    }

    /// Everything that may happen here now.
    pub fn step(&mut self, seat: &mut Seat, world: &mut World) {
        let now = world.now;
        self.away |= now.since(self.stepped) > AWAY;
        self.stepped = now;
        while let Some(packet) = seat.receive(now) {
            self.away &= !matches!(packet, Some(Message::Echo { .. }));
            if let (Some(Message::Loaded { bytes }), Some(copy)) = (&packet, &mut self.copy) {
                copy.loaded = *bytes;
            }
            match packet {
                Some(message) => self.machine.handle_message(now, message),
                None => self.machine.handle_disconnected(now),
            }
            self.act(seat, world);
            // Outputs that were released may leave before other messages are read.
            if world.rng.one_in(4) {
                self.emit(seat, world);
                self.act(seat, world);
            }
        }
        for beat in seat.beats(now) {
            self.machine.handle_beat(now, beat);
        }
        while let Some(asked) = seat.due(now) {
            self.answer(seat, asked, world);
            self.act(seat, world);
        }
        self.execute(seat, world);
        self.emit(seat, world);
        self.act(seat, world);
        self.copy_on(seat, world);
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
            return self.machine.handle_fenced(world.now, fenced);
        }
        let World {
            now, rng, arbiter, ..
        } = world;
        let now = *now;
        match asked {
            Asked::Open(record) => {
                let answer = arbiter.open(record, now, rng);
                let opened = answer == OpenAnswer::Opened;
                self.machine.handle_opened(now, answer);
                if opened && self.stage == "opening" {
                    self.reaches("arming", world);
                }
            }
            Asked::Claim(generation) => {
                let answer = arbiter.claim(generation, seat.me, now, rng);
                if answer == ClaimAnswer::Won {
                    self.won = generation;
                }
                self.machine.handle_claim(now, answer);
            }
            Asked::Close(generation) => {
                let answer = arbiter.close(generation, now, rng);
                self.machine.handle_closed(now, answer);
            }
            Asked::ReadBack(_) | Asked::Fence => unreachable!("a primary reads nothing back"),
        }
    }

    fn execute(&mut self, seat: &Seat, world: &mut World) {
        if world.now < seat.mute_until {
            return;
        }
        for _ in 0..world.rng.below(4) {
            if !self.started || self.parked || !self.machine.may_run() || self.guest.ended {
                break;
            }
            let ends = world.ends_after(self.guest.seq + 1);
            let entry = self.guest.next_entry(seat.me, ends);
            world.referee.makes(seat.me, &entry);
            let output = self.guest.execute(&entry);
            self.fresh.extend(frame(self.guest.seq, &entry));
            if let Some(output) = output {
                self.held.push_back(output);
                let (number, needs) = (output.number, output.needs);
                self.machine.handle_output(world.now, number, needs, 100);
            }
        }
        if !self.fresh.is_empty() && !world.rng.one_in(3) {
            self.flush(world);
        }
        let quiet = self.fresh.is_empty() && !self.guest.ended;
        if self.parking && !self.parked && quiet && world.rng.one_in(self.park_lazy) {
            self.parked = true;
            self.machine.handle_parked(world.now, self.flushed);
        }
    }

    fn flush(&mut self, world: &mut World) {
        if self.fresh.is_empty() {
            return;
        }
        let frames = std::mem::take(&mut self.fresh);
        self.flushed = self.guest.seq;
        self.bytes += frames.len() as u64;
        // A primary that is alone has no backup to send it to.
        if self.machine.sends_log() {
            self.unsent.push_back((self.flushed, frames));
        }
        self.machine
            .handle_appended(world.now, self.flushed, self.bytes);
        if self.guest.ended {
            self.machine.handle_guest_end(world.now, self.flushed);
        }
    }

    fn emit(&mut self, seat: &Seat, world: &mut World) {
        let now = world.now;
        while self.left < self.passed && self.machine.may_release(now) && !world.rng.one_in(4) {
            let stale = self.away && world.referee.is_another_alone(seat.me);
            assert!(!stale, "who was away says what its survivor says");
            let output = self.held.pop_front().expect("it was emitted");
            world.referee.emits(seat.me, output);
            self.left = output.number;
        }
        if self.told < self.left && world.rng.one_in(2) {
            self.told = self.left;
            self.machine.handle_released(world.now, self.told);
        }
    }

    /// Goes on with the copy, if there is one.
    fn copy_on(&mut self, seat: &Seat, world: &mut World) {
        let Some(copy) = &mut self.copy else {
            return;
        };
        if copy.waits() {
            world.note("the copy's window is full");
        }
        if self.machine.wants_piece()
            && let Some(bytes) = copy.next(&mut world.rng)
        {
            return self.machine.handle_piece(world.now, bytes);
        }
        let answers = world.now >= seat.mute_until && !self.guest.ended;
        if !copy.wants_stop() || !answers || !world.rng.one_in(4) {
            return;
        }
        if std::mem::take(&mut world.copy_fails) {
            let why = "no memory".into();
            return self.machine.handle_copy_failed(world.now, why);
        }
        self.flush(world);
        self.capture(world);
    }

    fn capture(&mut self, world: &mut World) {
        let Some(copy) = &mut self.copy else {
            return;
        };
        let Machine {
            seq,
            outputs,
            chain,
            ..
        } = self.guest;
        for bytes in copy.capture(&mut world.rng) {
            self.machine.handle_piece(world.now, bytes);
        }
        let memory = copy.keep(Message::State {
            seq,
            at: Position::exit(seq),
            outputs,
            state: chain.to_le_bytes().to_vec(),
        });
        let digest = digest(memory, chain);
        let capture = Capture {
            seq,
            outputs,
            digest,
        };
        self.machine.handle_captured(world.now, capture);
        self.reaches("captured", world);
    }

    fn reaches(&mut self, stage: &'static str, world: &mut World) {
        self.stage = stage;
        world.reaches(stage);
    }

    fn act(&mut self, seat: &mut Seat, world: &mut World) {
        let mut acting = Acting {
            side: self,
            seat,
            world,
        };
        let Ok(end) = drive_primary(&mut acting);
        assert!(end.is_none() || self.machine.poll_action().is_none());
    }
}
