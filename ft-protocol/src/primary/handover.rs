//! Planned ends: handing over to the backup, and leaving before anything ran.

use super::{Phase, Primary, PrimaryEnd, PrimaryTurn};
use crate::Time;
use crate::wire::Message;

/// How far a planned hand-over is.
///
/// The vCPU rests, its log is acknowledged whole and everything has left: only then is the backup
/// told to take over. It claims the generation as in a failover, without suspecting anybody, and
/// this side does not ask as long as it hears the backup. So the arbiter decides here too, and a
/// backup that dies on the way costs nothing: this side wins and runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handover {
    No,
    /// The vCPU is to rest at its next position.
    Parking,
    /// It rests; the log goes to this sequence.
    Parked {
        seq: u64,
    },
    /// The backup was told.
    Sent,
}

impl Primary {
    /// The operator wants the backup to take over. Whether that can be: not before there is a pair,
    /// nor once the guest has ended.
    pub fn handle_switchover(&mut self, _now: Time) -> bool {
        let possible = self.phase == Phase::Paired && self.end.is_none();
        if possible && self.handover == Handover::No {
            self.handover = Handover::Parking;
            self.push(PrimaryTurn::Park);
        }
        possible
    }

    /// The vCPU rests; its last log entry is `seq`, and was handed in by
    /// [`Primary::handle_appended`].
    ///
    /// # Panics
    /// If the log does not go so far.
    pub fn handle_parked(&mut self, _now: Time, seq: u64) {
        assert!(seq <= self.log.seq, "a vCPU that rests has said everything");
        match (self.handover, &self.phase) {
            (Handover::Parking, Phase::Paired) => {
                self.handover = Handover::Parked { seq };
                self.try_hand_over();
            }
            (_, Phase::Ended) => {}
            // The backup was lost meanwhile; there may be another one, for which it does not rest.
            (Handover::No, _) => self.push(PrimaryTurn::Resume),
            (Handover::Parking, _) => self.handover = Handover::Parked { seq },
            _ => {}
        }
    }

    /// Hands over once all is acknowledged and all has left.
    pub(super) fn try_hand_over(&mut self) {
        let Handover::Parked { seq } = self.handover else {
            return;
        };
        let left = self.released == self.gate.queued();
        if self.phase == Phase::Paired && left && self.gate.acked() >= seq {
            self.tell_released();
            self.send(Message::Handover);
            self.handover = Handover::Sent;
            self.phase = Phase::HandedOver;
        }
    }

    /// What a backup says that was told to take over.
    pub(super) fn handed_over(&mut self, message: Message) {
        match message {
            Message::Bye => {
                self.disconnect();
                self.end_handed_over();
            }
            // Until it has executed everything it is as it was.
            Message::Heartbeat
            | Message::Ack { .. }
            | Message::Echo { .. }
            | Message::Request(_) => {}
            message => self.lose(crate::Loss::Broke(format!(
                "{} out of turn",
                message.name()
            ))),
        }
    }

    pub(super) fn end_handed_over(&mut self) {
        self.phase = Phase::Ended;
        self.push(PrimaryEnd::HandedOver {
            generation: self.generation,
        });
    }

    /// This side goes on alone: a vCPU that rests, or is about to, runs on.
    pub(super) fn take_back(&mut self) {
        match std::mem::replace(&mut self.handover, Handover::No) {
            Handover::No | Handover::Parking => {}
            Handover::Parked { .. } | Handover::Sent => self.push(PrimaryTurn::Resume),
        }
    }

    /// The operator wants this side to go before it has started anything. A generation that was
    /// opened is won first, so that no backup that has just armed goes on with it.
    pub fn handle_leave(&mut self, _now: Time) {
        self.leaving = true;
        match self.phase {
            Phase::Waiting => {
                self.disconnect();
                self.leave();
            }
            Phase::Opening => self.disconnect(),
            Phase::Welcomed => {
                self.disconnect();
                self.ask(Phase::Claiming { started: false });
            }
            _ => {}
        }
    }

    pub(super) fn leave(&mut self) {
        self.phase = Phase::Ended;
        self.push(PrimaryEnd::Leave);
    }
}
