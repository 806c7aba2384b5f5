//! What the primary asks for, done: in steps as small as can be.

use super::PrimarySide;
use crate::HaltReason;
use crate::arbiter::Standing;
use crate::host::{Host, PrimaryHost};
use crate::log::{Header, Position};
use crate::model::process::{Around, Common, Fate, Question, Rest};
use crate::model::storage::Ask;
use crate::model::witness::Flaw;
use crate::primary::{Primary, PrimaryAction};
use crate::reason::Loss;
use crate::testing;
use crate::transfer::Right;
use crate::wire::{Beat, Message, Request};
use std::convert::Infallible;

pub struct Acting<'a, 'b> {
    pub side: &'a mut PrimarySide,
    pub me: &'a mut Common,
    pub rest: &'a mut Rest<'b>,
    /// Whether it did more than to show that it is there.
    pub reacted: bool,
}

impl Host for Acting<'_, '_> {
    type End = ();
    type Error = Infallible;

    fn send(&mut self, message: Message) {
        if let Message::Armed { generation, .. } = message {
            // The right to run alone is given away.
            let Around {
                witness, storage, ..
            } = &mut *self.rest.around;
            witness.arms(self.me.id, generation, storage);
            self.side.fenced = false;
        }
        self.rest.send(self.me.index, message);
    }

    fn beat(&mut self, beat: Beat) {
        self.rest.beat(self.me.index, beat);
    }

    fn disconnect(&mut self) {
        self.rest.disconnect(self.me.index, false);
    }

    fn claim(&mut self, generation: u64) {
        self.me.ask(Question::Asked(Ask::Claim(generation)));
    }

    fn fence(&mut self, _generation: u64) {
        self.me.ask(Question::Fence);
    }

    fn close(&mut self, generation: u64) {
        self.me.ask(Question::Asked(Ask::Close(generation)));
    }

    fn halt(&mut self, reason: HaltReason) {
        self.me.fate = Fate::Halted(reason.status());
    }

    fn finish(&mut self, closed: bool) {
        let Around {
            witness, storage, ..
        } = &mut *self.rest.around;
        witness.finishes(self.rest.guest);
        if !storage.is_closed() {
            witness.note(Flaw::LeftOpen);
        }
        assert!(closed, "the arbiter is never away for so long");
        self.me.fate = Fate::Finished;
    }
}

impl PrimaryHost for Acting<'_, '_> {
    fn primary(&mut self) -> &mut Primary {
        &mut self.side.machine
    }

    fn sees(&mut self, action: &PrimaryAction) {
        assert_eq!(self.me.fate, Fate::Running, "{action:?} after the end");
        self.reacted |= !matches!(action, PrimaryAction::Send(_) | PrimaryAction::Beat(_));
    }

    fn made_of(&self) -> (Header, Vec<u8>) {
        (testing::header(), Vec::new())
    }

    fn take_log(&mut self, up_to: u64) -> Vec<u8> {
        let first = self.side.sent + 1;
        self.side.sent = up_to;
        self.rest.guest.frames(first, up_to, self.me.id)
    }

    /// Frames are made when they are sent.
    fn forget_log(&mut self) {}

    /// The machine is copied in a step of its own: see [`PrimarySide::capture`].
    fn begin_copy(&mut self) {
        self.side.copying = true;
    }

    fn take_piece(&mut self) -> Vec<u8> {
        // Its byte stands for as many as the window has.
        vec![0]
    }

    fn take_state(&mut self) -> Message {
        // Nothing of the log is sent before.
        let seq = self.side.sent;
        Message::State {
            seq,
            at: Position::exit(seq),
            outputs: self.rest.guest.outputs_up_to(seq),
            state: Vec::new(),
        }
    }

    fn stop_copy(&mut self) {
        self.side.copying = false;
    }

    /// Each output leaves in a step of its own: see [`PrimarySide::emit`].
    fn release(&mut self, up_to: u64) -> Result<(), Infallible> {
        self.side.passed = up_to;
        Ok(())
    }

    /// Looked at before each step of the guest.
    fn pace(&mut self, _may_run: bool, _rest: u32) {}

    fn open(&mut self, right: Right) {
        let generation = right.generation;
        let Around {
            witness, storage, ..
        } = &mut *self.rest.around;
        let record = storage.of(generation);
        let its = record.filter(|record| record.members.primary == self.me.id);
        if its.is_some_and(|record| record.members != right.members) {
            witness.note(Flaw::UsedAgain { generation });
        }
        self.side.members = Some(right.members);
        let ask = Ask::Open(generation, right.members, right.nonce);
        self.me.ask(Question::Asked(ask));
    }

    /// It arrives in a step of its own.
    fn put_back(&mut self, standing: Standing) {
        // One at a time: there is no look meanwhile.
        assert_eq!(self.me.puts_back.replace(standing), None);
    }

    fn start(&mut self) -> Result<(), Infallible> {
        let generation = self.side.machine.generation();
        let Around {
            witness, storage, ..
        } = &mut *self.rest.around;
        let record = storage.of(generation);
        if record.is_some_and(|record| record.members.backup.is_none()) {
            witness.goes_alone(self.me.id, generation, storage);
        } else if record.and_then(|record| record.winner) == Some(self.me.id) {
            witness.note(Flaw::WonBefore { generation });
        }
        self.side.started = true;
        Ok(())
    }

    /// It rests in a step of its own.
    fn park(&mut self) {
        self.side.parking = true;
    }

    fn resume(&mut self) {
        let witness = &mut self.rest.around.witness;
        let side = &mut *self.side;
        if !side.parked || !witness.is_alone(self.me.id) {
            witness.note(Flaw::RunsOnWithoutRight);
        }
        (side.parking, side.parked, side.took_back) = (false, false, true);
    }

    fn backup_lost(&mut self, loss: Loss) {
        self.rest.around.witness.lost(&loss);
    }

    fn protected(&mut self, _generation: u64) {}

    fn go_solo(&mut self, generation: u64) {
        let Around {
            witness, storage, ..
        } = &mut *self.rest.around;
        witness.goes_alone(self.me.id, generation, storage);
        if !self.side.fenced {
            witness.note(Flaw::BeforeFence);
        }
    }

    fn requested(&mut self, request: Request) {
        let unreasonable = Flaw::Unreasonable(format!("{request:?}: nobody asked for that"));
        self.rest.around.witness.note(unreasonable);
    }

    fn handed_over(&mut self, _generation: u64) {
        self.me.fate = Fate::HandedOver;
    }

    fn leave(&mut self) {
        self.me.fate = Fate::Left;
    }
}
