//! What the backup asks for, done.

use super::BackupSide;
use crate::HaltReason;
use crate::backup::{Backup, BackupAction, Build, Delivery};
use crate::host::{BackupHost, Host};
use crate::log::{Header, Position};
use crate::reason::Loss;
use crate::simulation::copying::BYTE;
use crate::simulation::machine::Machine;
use crate::simulation::seat::{Asked, Seat};
use crate::simulation::{Fate, World, soon};
use crate::wire::{Beat, Message};
use std::convert::Infallible;

pub struct Acting<'a> {
    pub side: &'a mut BackupSide,
    pub seat: &'a mut Seat,
    pub world: &'a mut World,
}

impl Host for Acting<'_> {
    type End = ();
    type Error = Infallible;

    fn send(&mut self, message: Message) {
        self.side.armed |= message == Message::Ready && !self.side.copied;
        self.seat.send(message, self.world);
    }

    fn beat(&mut self, beat: Beat) {
        self.seat.beat(beat, self.world);
    }

    fn disconnect(&mut self) {
        self.seat.disconnect(self.world);
    }

    fn claim(&mut self, generation: u64) {
        assert!(!self.side.diverged, "I6: it has diverged, and asks");
        let referee = &mut self.world.referee;
        referee.asks(self.seat.me, generation, self.side.armed);
        self.seat.ask(Asked::Claim(generation), self.world);
    }

    fn fence(&mut self, _generation: u64) {
        self.seat.ask(Asked::Fence, self.world);
    }

    fn close(&mut self, generation: u64) {
        self.side.closes = true;
        self.seat.ask(Asked::Close(generation), self.world);
    }

    fn halt(&mut self, reason: HaltReason) {
        self.seat.fate = match reason {
            HaltReason::LostArbitration { .. } => Fate::Lost,
            HaltReason::Diverged { .. } => Fate::Crashed,
            HaltReason::NotArmed(_) => {
                self.world.lost_source(self.seat.me, self.side.stage());
                Fate::NotArmed
            }
            HaltReason::Refused(why) => {
                assert!(!why.contains("by force"), "{why}");
                Fate::Refused
            }
            HaltReason::NotFree(_) | HaltReason::NoRight(_) => panic!("{reason}"),
        }
    }

    fn finish(&mut self, closed: bool) {
        assert!(closed, "the arbiter is never down for so long");
        self.world.referee.finishes(self.seat.me);
        let clean = !self.side.closes || self.world.arbiter.is_clean();
        assert!(clean, "a clean end is in a cold start's way");
        self.seat.fate = Fate::Finished;
    }
}

impl BackupHost for Acting<'_> {
    fn backup(&mut self) -> &mut Backup {
        &mut self.side.machine
    }

    fn sees(&mut self, action: &BackupAction) {
        assert_eq!(self.seat.fate, Fate::Running, "{action:?} after the end");
        assert!(self.side.live.is_none(), "{action:?} after going live");
        match action {
            BackupAction::Beat(_) | BackupAction::Deliver(_) => {}
            BackupAction::ForgetOutputs { .. } => {}
            BackupAction::Build(Build::Boot { .. }) => {}
            BackupAction::Send(Message::Ack { .. } | Message::Heartbeat) => {}
            other => self.world.tell(self.seat.me, other),
        }
    }

    fn read_back(&mut self, generation: u64) {
        self.seat.ask(Asked::ReadBack(generation), self.world);
    }

    fn boot(
        &mut self,
        generation: u64,
        _header: Header,
        _image: Vec<u8>,
        copied: bool,
    ) -> Result<(), Infallible> {
        self.side.copied = copied;
        let due = soon(self.world.now, &mut self.world.rng, 30);
        self.side.boot = Some((due, generation));
        Ok(())
    }

    fn load(&mut self, pages: Vec<u8>) {
        let due = soon(self.world.now, &mut self.world.rng, 5);
        let bytes = pages.len() as u64 * BYTE;
        self.side.pieces.push_back((due, bytes));
    }

    fn restore(
        &mut self,
        seq: u64,
        _at: Position,
        outputs: u64,
        state: Vec<u8>,
    ) -> Result<(), Infallible> {
        let source = self.seat.peer.expect("somebody offered it");
        self.world.referee.copies(source, self.seat.me, seq);
        let copy = Machine {
            seq,
            outputs,
            chain: u64::from_le_bytes(state.try_into().expect("a chain")),
            ended: false,
        };
        self.side.forgotten = outputs;
        let due = soon(self.world.now, &mut self.world.rng, 30);
        self.side.state = Some((due, copy));
        Ok(())
    }

    fn discard(&mut self) {
        self.side.boot = None;
    }

    fn deliver(&mut self, delivery: Delivery) -> Result<(), Infallible> {
        let source = self.seat.peer.expect("somebody sent it");
        for item in delivery.items {
            let referee = &mut self.world.referee;
            referee.delivers(source, self.seat.me, item.seq, &item.entry);
            self.side.buffer.push_back(item);
        }
        Ok(())
    }

    fn forget_outputs(&mut self, up_to: u64) {
        self.world.referee.forgets(self.seat.me, up_to);
        self.side.forgotten = up_to;
        self.side.held.retain(|output| output.number > up_to);
    }

    fn armed(&mut self, _generation: u64) {
        self.side.armed = true;
        self.world.note("joined");
        self.world.reaches("protects");
    }

    fn suspect(&mut self, _loss: Loss) {}

    fn withdraw(&mut self) {
        self.world.note("withdrawn");
    }

    fn take_over(&mut self) {
        self.side.planned = true;
    }

    fn primary_lost(&mut self, _loss: Loss) {
        assert!(!self.side.armed);
    }

    fn emit_held(&mut self) -> Result<(), Infallible> {
        let side = &mut *self.side;
        side.emitted = true;
        if side.planned && side.copied {
            self.world.note("a joiner takes over as planned");
        }
        assert!(side.fenced || side.planned, "live before the fence");
        let (me, generation) = (self.seat.me, side.machine.generation());
        let referee = &mut self.world.referee;
        referee.takes_over(me, generation, side.guest, &side.held);
        for output in side.held.drain(..) {
            referee.emits(me, output);
        }
        Ok(())
    }

    fn announce(&mut self) {}

    fn live(&mut self, _generation: u64) {
        let side = &mut *self.side;
        assert!(side.emitted, "I5: live without what was held");
        let survivor = side.machine.survivor(side.guest.outputs);
        side.live = Some((survivor, side.guest));
        self.world.note(match side.copied {
            true => "joiner live",
            false => "backup live",
        });
    }
}
