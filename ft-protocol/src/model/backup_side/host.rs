//! What the backup asks for, done: in steps as small as can be.

use super::BackupSide;
use crate::HaltReason;
use crate::backup::{Backup, BackupAction, Delivery};
use crate::host::{BackupHost, Host};
use crate::log::{Header, Position};
use crate::model::process::{Around, Common, Fate, Question, Rest};
use crate::model::storage::Ask;
use crate::model::witness::Flaw;
use crate::reason::Loss;
use crate::wire::{Beat, Message};
use std::convert::Infallible;

pub struct Acting<'a, 'b> {
    pub side: &'a mut BackupSide,
    pub me: &'a mut Common,
    pub rest: &'a mut Rest<'b>,
    /// Whether it did more than to show that it is there.
    pub reacted: bool,
}

impl Acting<'_, '_> {
    /// It goes on alone, unless it does so already.
    fn go_alone(&mut self) {
        let Around {
            witness, storage, ..
        } = &mut *self.rest.around;
        if witness.is_alone(self.me.id) {
            return;
        }
        witness.goes_alone(self.me.id, self.side.machine.generation(), storage);
        if !self.side.fenced && !self.side.planned {
            witness.note(Flaw::BeforeFence);
        }
    }
}

impl Host for Acting<'_, '_> {
    type End = ();
    type Error = Infallible;

    fn send(&mut self, message: Message) {
        self.side.armed |= message == Message::Ready && !self.side.copied;
        self.rest.send(self.me.index, message);
    }

    fn beat(&mut self, beat: Beat) {
        self.rest.beat(self.me.index, beat);
    }

    fn disconnect(&mut self) {
        self.rest.disconnect(self.me.index, false);
    }

    fn claim(&mut self, generation: u64) {
        let witness = &mut self.rest.around.witness;
        let (executed, acknowledged) = (self.side.executed, witness.arrived(self.me.index));
        if executed < acknowledged {
            witness.note(Flaw::AsksTooEarly {
                executed,
                acknowledged,
            });
        }
        if !self.side.armed || self.side.diverged {
            witness.note(Flaw::GoesOnDiverged);
        }
        self.side.claimed = true;
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
        let unreasonable = match reason {
            HaltReason::NotArmed(Loss::Broke(_)) => true,
            HaltReason::NotArmed(_) => self.side.armed,
            HaltReason::NoRight(_) | HaltReason::NotFree(_) => true,
            HaltReason::LostArbitration { .. }
            | HaltReason::Diverged { .. }
            | HaltReason::Refused(_) => false,
        };
        if unreasonable {
            let flaw = Flaw::Unreasonable(reason.to_string());
            self.rest.around.witness.note(flaw);
        }
    }

    fn finish(&mut self, closed: bool) {
        self.rest.around.witness.finishes(self.rest.guest);
        assert!(closed, "the arbiter is never away for so long");
        self.me.fate = Fate::Finished;
    }
}

impl BackupHost for Acting<'_, '_> {
    fn backup(&mut self) -> &mut Backup {
        &mut self.side.machine
    }

    fn sees(&mut self, action: &BackupAction) {
        assert_eq!(self.me.fate, Fate::Running, "{action:?} after the end");
        self.reacted |= !matches!(action, BackupAction::Send(_) | BackupAction::Beat(_));
    }

    fn read_back(&mut self, generation: u64) {
        self.me.ask(Question::Asked(Ask::ReadBack(generation)));
    }

    /// The machine is built in a step of its own.
    fn boot(
        &mut self,
        generation: u64,
        _header: Header,
        _image: Vec<u8>,
        copied: bool,
    ) -> Result<(), Infallible> {
        (self.side.booting, self.side.copied) = (Some(generation), copied);
        Ok(())
    }

    /// It is in the memory after a step of its own.
    fn load(&mut self, _pages: Vec<u8>) {
        self.side.unloaded += 1;
    }

    /// So is its copy.
    fn restore(
        &mut self,
        seq: u64,
        _at: Position,
        outputs: u64,
        _state: Vec<u8>,
    ) -> Result<(), Infallible> {
        self.rest.around.witness.arrives(self.me.index, seq);
        let side = &mut *self.side;
        (side.restoring, side.executed, side.forgotten) = (true, seq, outputs);
        Ok(())
    }

    fn discard(&mut self) {
        self.side.booting = None;
    }

    fn deliver(&mut self, delivery: Delivery) -> Result<(), Infallible> {
        if let Some(last) = delivery.items.last() {
            let witness = &mut self.rest.around.witness;
            witness.arrives(self.me.index, last.seq);
        }
        self.side.buffer.extend(delivery.items);
        Ok(())
    }

    fn forget_outputs(&mut self, up_to: u64) {
        self.rest.around.witness.forgets(up_to);
        self.side.forgotten = up_to;
        self.side.held.retain(|&(output, _)| output > up_to);
    }

    fn armed(&mut self, _generation: u64) {
        self.side.armed = true;
        if self.side.damaged {
            self.rest.around.witness.note(Flaw::AnotherMachine);
        }
    }

    fn suspect(&mut self, loss: Loss) {
        self.rest.around.witness.lost(&loss);
        self.side.suspects = true;
    }

    fn withdraw(&mut self) {
        (self.side.suspects, self.side.withdrew) = (false, true);
    }

    fn take_over(&mut self) {
        self.side.planned = true;
    }

    /// A backup that starts over does not ask again.
    fn primary_lost(&mut self, loss: Loss) {
        self.rest.around.witness.lost(&loss);
        if self.me.question == Question::Again {
            self.me.question = Question::None;
        }
    }

    fn emit_held(&mut self) -> Result<(), Infallible> {
        self.go_alone();
        for (output, maker) in self.side.held.drain(..) {
            let witness = &mut self.rest.around.witness;
            witness.backup_emits(self.me.id, output, maker);
        }
        Ok(())
    }

    fn announce(&mut self) {}

    fn live(&mut self, _generation: u64) {
        self.go_alone();
        self.side.live = true;
    }
}
