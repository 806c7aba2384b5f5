//! What the primary asks for, done.

use super::{Copying, PrimarySide};
use crate::HaltReason;
use crate::arbiter::Standing;
use crate::host::{Host, PrimaryHost};
use crate::log::Header;
use crate::primary::{Primary, PrimaryAction};
use crate::reason::Loss;
use crate::simulation::seat::{Asked, Seat, record};
use crate::simulation::{Fate, World};
use crate::testing;
use crate::transfer::Right;
use crate::wire::{Beat, Message, Request};
use std::convert::Infallible;

pub struct Acting<'a> {
    pub side: &'a mut PrimarySide,
    pub seat: &'a mut Seat,
    pub world: &'a mut World,
}

impl Acting<'_> {
    fn note_sent(&mut self, message: &Message) {
        match message {
            Message::Handover => self.side.handed_over = true,
            Message::Offer { .. } => self.side.reaches("offered", self.world),
            Message::Armed { generation, .. } => {
                let record = self.world.arbiter.record(*generation).cloned();
                let referee = &mut self.world.referee;
                referee.arms(self.seat.me, *generation, record.as_ref());
                self.side.reaches("armed", self.world);
            }
            _ => {}
        }
    }
}

impl Host for Acting<'_> {
    type End = ();
    type Error = Infallible;

    fn send(&mut self, message: Message) {
        self.note_sent(&message);
        self.seat.send(message, self.world);
    }

    fn beat(&mut self, beat: Beat) {
        self.seat.beat(beat, self.world);
    }

    fn disconnect(&mut self) {
        self.seat.disconnect(self.world);
    }

    fn claim(&mut self, generation: u64) {
        self.world.referee.asks(self.seat.me, generation, true);
        self.seat.ask(Asked::Claim(generation), self.world);
    }

    fn fence(&mut self, _generation: u64) {
        self.seat.ask(Asked::Fence, self.world);
    }

    fn close(&mut self, generation: u64) {
        self.seat.ask(Asked::Close(generation), self.world);
    }

    fn halt(&mut self, reason: HaltReason) {
        let lost = matches!(reason, HaltReason::LostArbitration { .. });
        assert!(lost, "{reason}");
        self.seat.fate = Fate::Lost;
    }

    fn finish(&mut self, closed: bool) {
        assert!(closed, "the arbiter is never down for so long");
        self.world.referee.finishes(self.seat.me);
        assert!(
            self.world.arbiter.is_clean(),
            "a clean end is in a cold start's way"
        );
        self.seat.fate = Fate::Finished;
    }
}

impl PrimaryHost for Acting<'_> {
    fn primary(&mut self) -> &mut Primary {
        &mut self.side.machine
    }

    fn sees(&mut self, action: &PrimaryAction) {
        assert_eq!(self.seat.fate, Fate::Running, "{action:?} after the end");
        match action {
            PrimaryAction::Beat(_) | PrimaryAction::SendLog { .. } => {}
            PrimaryAction::Release { .. } => {}
            PrimaryAction::Send(Message::Released { .. } | Message::Heartbeat) => {}
            other => self.world.tell(self.seat.me, other),
        }
    }

    fn made_of(&self) -> (Header, Vec<u8>) {
        (testing::header(), vec![1])
    }

    fn take_log(&mut self, up_to: u64) -> Vec<u8> {
        let mut frames = Vec::new();
        let unsent = &mut self.side.unsent;
        while let Some((_, some)) = unsent.pop_front_if(|(seq, _)| *seq <= up_to) {
            frames.extend(some);
        }
        frames
    }

    fn forget_log(&mut self) {
        self.side.unsent.clear();
    }

    fn begin_copy(&mut self) {
        self.side.copy = Some(Copying::new(&mut self.world.rng));
        self.side.reaches("copying", self.world);
    }

    fn take_piece(&mut self) -> Vec<u8> {
        let copy = self.side.copy.as_mut();
        copy.expect("it is being copied").take_piece()
    }

    fn take_state(&mut self) -> Message {
        let copy = self.side.copy.as_mut();
        copy.expect("it is being copied").take_state()
    }

    fn stop_copy(&mut self) {
        self.side.copy = None;
    }

    /// What may leave now leaves bit by bit: see [`PrimarySide::emit`].
    fn release(&mut self, up_to: u64) -> Result<(), Infallible> {
        // What was let go and may not leave yet is let go again.
        let side = &mut *self.side;
        let news = up_to >= side.passed && up_to > side.told;
        assert!(news, "a release of nothing");
        side.passed = up_to;
        Ok(())
    }

    /// Looked at before each entry.
    fn pace(&mut self, _may_run: bool, _rest: u32) {}

    fn open(&mut self, right: Right) {
        self.world.referee.opens(right.generation, right.members);
        self.seat.ask(Asked::Open(record(right)), self.world);
        if self.side.started {
            self.side.reaches("opening", self.world);
        }
    }

    fn put_back(&mut self, standing: Standing) {
        panic!("{standing:?} is put back, and nothing ever vanishes here");
    }

    fn start(&mut self) -> Result<(), Infallible> {
        let World {
            referee, arbiter, ..
        } = &mut *self.world;
        let generation = self.side.machine.generation();
        let fresh = generation > self.side.won || referee.opens_alone(generation);
        assert!(fresh, "I4: a pair in a generation that was won before");
        let record = arbiter.record(generation);
        referee.starts(record.expect("nobody starts unopened"));
        if generation > 1 {
            self.world.note("started in a later generation");
        }
        self.side.started = true;
        Ok(())
    }

    fn park(&mut self) {
        self.side.parking = true;
        self.side.park_lazy = [4, 100][self.world.rng.below(2) as usize];
        self.world.reaches("parking");
    }

    fn resume(&mut self) {
        let right = self.side.parked && !self.side.handed_over;
        assert!(right, "runs on without the right to");
        (self.side.parking, self.side.parked) = (false, false);
        self.world.note("parked and ran on");
    }

    fn backup_lost(&mut self, loss: Loss) {
        let stage = self.side.stage;
        if !["nobody", "armed"].contains(&stage) {
            self.world.lost_joiner(stage, &loss);
        }
        self.side.stage = "nobody";
    }

    fn protected(&mut self, _generation: u64) {
        self.side.copy = None;
    }

    fn go_solo(&mut self, generation: u64) {
        self.world.referee.goes_alone(self.seat.me, generation);
        self.side.handed_over = false;
        self.world.note("primary alone");
    }

    fn requested(&mut self, request: Request) {
        panic!("{request:?}: nobody asked for that");
    }

    fn handed_over(&mut self, _generation: u64) {
        self.seat.fate = Fate::HandedOver;
    }

    fn leave(&mut self) {
        panic!("nobody told it to leave");
    }
}
