//! Planned ends: handing over to the backup, and leaving before anything ran.

use super::{Phase, Primary, PrimaryEnd, PrimaryTurn};
use crate::Time;
use crate::wire::Message;

/// The progress of a planned hand-over.
///
/// The vCPU rests, its whole log is acknowledged, and everything has left: only then the primary asks
/// the backup to take over. The backup claims the generation as in a failover, but without a suspicion.
/// This side does not ask the arbiter as long as it hears the backup. So the arbiter decides here too,
/// and a backup that dies meanwhile costs nothing: this side wins and runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handover {
    No,
    /// The vCPU must rest at its next position.
    Parking,
    /// It rests; the log ends with this entry.
    Parked {
        seq: u64,
    },
    /// The backup was asked to take over.
    Sent,
}

impl Primary {
    /// The operator wants the backup to take over. Returns whether that is possible: not before there
    /// is a pair, and not after the guest has ended.
    pub fn handle_switchover(&mut self, _now: Time) -> bool {
        let possible = self.phase == Phase::Paired && self.end.is_none();
        if possible && self.handover == Handover::No {
            self.handover = Handover::Parking;
            self.push(PrimaryTurn::Park);
        }
        possible
    }

    /// The vCPU rests. The last entry of its log is `seq`, which was passed in by
    /// [`Primary::handle_appended`].
    ///
    /// # Panics
    /// If the log does not go that far.
    pub fn handle_parked(&mut self, _now: Time, seq: u64) {
        assert!(seq <= self.log.seq, "a vCPU that rests has said everything");
        match (self.handover, &self.phase) {
            (Handover::Parking, Phase::Paired) => {
                self.handover = Handover::Parked { seq };
                self.try_hand_over();
            }
            (_, Phase::Ended) => {}
            // The backup was lost meanwhile. There may be another one, but the vCPU does not rest for
            // that one.
            (Handover::No, _) => self.push(PrimaryTurn::Resume),
            (Handover::Parking, _) => self.handover = Handover::Parked { seq },
            _ => {}
        }
    }

    /// Hands over when everything is acknowledged and has left.
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

    /// A message from a backup that was asked to take over.
    pub(super) fn handed_over(&mut self, message: Message) {
        match message {
            Message::Bye => {
                self.disconnect();
                self.end_handed_over();
            }
            // Until it has executed everything, it follows as before.
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

    /// The operator wants this side to leave before it has started anything. A generation that was
    /// opened is claimed first, so that a backup that was just armed does not go on in it.
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
