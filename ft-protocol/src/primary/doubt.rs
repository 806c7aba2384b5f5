//! A primary that was away does not trust what it had heard before.
//!
//! A process that was stopped finds acknowledgements in its socket that its backup sent before it went
//! live. They are true (I2), but still no output may leave because of them: a frame from the stale side
//! tells every bridge on its way that the guest is there. So a primary whose tick came late, or whose
//! vCPU's thread did not answer, is in doubt: it sends the backup a [`Message::Probe`], and no output
//! leaves before the backup's answer, or the arbiter's.

#[cfg(doc)]
use super::PrimaryAction;
use super::{Phase, Primary};
use crate::Time;
use crate::mutant::Mutant;
use crate::reason::Loss;
use crate::wire::Message;

/// Does this side know that its backup still follows it?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Doubt {
    #[default]
    No,
    /// It was away, and has not sent a probe yet.
    Due,
    /// It has sent a probe, and waits for the answer.
    Asked,
}

impl Primary {
    /// May an output of [`PrimaryAction::Release`] be given to its backend now? Must be asked before
    /// each output, with the time of that moment, as this side may have been stopped since. Outputs for
    /// which the answer is no are released again later.
    pub fn may_release(&self, now: Time) -> bool {
        match self.phase {
            Phase::Paired => self.trusts(now),
            _ => self.is_solo(),
        }
    }

    /// Was it ever in doubt?
    #[cfg(test)]
    pub(crate) fn has_probed(&self) -> bool {
        self.probes > 0
    }

    /// [`Primary::may_release`] returned false in the middle of a release. The rest is released at the
    /// next tick, unless that tick is in doubt. This side may notice that it was away where no tick
    /// does.
    pub fn handle_kept_back(&mut self) {
        self.kept_back = true;
    }

    /// Can what the backup said still be true? Yes if this side was never away or mute since then.
    fn trusts(&self, now: Time) -> bool {
        let shows = !self.peer.mute && !self.peer.detector.is_late(now);
        !self.doubts_ever() || self.doubt == Doubt::No && shows
    }

    /// Is the fault not planted that trusts what the backup said long ago?
    fn doubts_ever(&self) -> bool {
        !self.has(Mutant::TrustsOldWords)
    }

    /// This side was away for longer than it trusts itself, or hangs.
    pub(super) fn was_away(&mut self) {
        if self.phase == Phase::Paired && self.doubts_ever() {
            self.doubt = Doubt::Due;
        }
    }

    /// Sends a probe if one is due. Returns whether it did. Not while this side is mute.
    pub(super) fn probe(&mut self) -> bool {
        let due = self.phase == Phase::Paired && self.doubt == Doubt::Due;
        if due {
            self.doubt = Doubt::Asked;
            self.probes += 1;
            self.send(Message::Probe {
                number: self.probes,
            });
        }
        due
    }

    /// The backup answered a probe, so it followed this side after the probe was sent.
    pub(super) fn answered(&mut self, now: Time, number: u64) {
        if number > self.probes {
            return self.lose(Loss::Broke("it answered what it was never asked".into()));
        }
        // An earlier probe was sent before this side was away again.
        if number == self.probes && self.doubt == Doubt::Asked {
            self.doubt = Doubt::No;
            self.release(self.released);
            self.try_finish(now);
            self.try_hand_over();
        }
    }
}
