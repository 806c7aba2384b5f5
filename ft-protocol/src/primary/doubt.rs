//! A side that was away does not trust what it was told before.
//!
//! A process that was stopped finds acknowledgements in its socket that its backup sent before it went
//! live. They hold (I2), and still nothing may leave on them: a frame from the stale side tells every
//! bridge on its way that the guest lives here. So a primary whose tick came late, or whose vCPU's thread
//! did not answer, is in doubt: it asks the backup to answer a [`Message::Probe`], and until the answer,
//! or the arbiter's, nothing leaves.

#[cfg(doc)]
use super::PrimaryAction;
use super::{Phase, Primary};
use crate::Time;
use crate::mutant::Mutant;
use crate::reason::Loss;
use crate::wire::Message;

/// Whether this side knows that its backup still follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Doubt {
    #[default]
    No,
    /// It was away, and has not asked yet.
    Due,
    /// It asked, by the last probe.
    Asked,
}

impl Primary {
    /// Whether an output that [`PrimaryAction::Release`] let go may be handed to its backend now. To be
    /// asked before each one, with the time of that moment: this side may have been stopped since. Those
    /// that may not are let go once more when they may.
    pub fn may_release(&self, now: Time) -> bool {
        match self.phase {
            Phase::Paired => self.trusts(now),
            _ => self.is_solo(),
        }
    }

    /// Whether it was ever in doubt.
    #[cfg(test)]
    pub(crate) fn has_probed(&self) -> bool {
        self.probes > 0
    }

    /// [`Primary::may_release`] said no in the middle of a release: what was kept back is let go at the next
    /// tick, unless that one doubts. A side may find itself late where no tick does.
    pub fn handle_kept_back(&mut self) {
        self.kept_back = true;
    }

    /// Whether what the backup said can still be so: this side shows itself, and did all the while.
    fn trusts(&self, now: Time) -> bool {
        let shows = !self.peer.mute && !self.peer.detector.is_late(now);
        !self.doubts_ever() || self.doubt == Doubt::No && shows
    }

    /// Whether this fault is not planted: that what the backup said long ago is trusted.
    fn doubts_ever(&self) -> bool {
        !self.has(Mutant::TrustsOldWords)
    }

    /// This side was away for longer than it trusts itself, or hangs.
    pub(super) fn was_away(&mut self) {
        if self.phase == Phase::Paired && self.doubts_ever() {
            self.doubt = Doubt::Due;
        }
    }

    /// Asks the backup to answer, if that is due; whether it was. Not while this side is mute.
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

    /// The backup answered a probe: it followed this side after that was sent.
    pub(super) fn answered(&mut self, now: Time, number: u64) {
        if number > self.probes {
            return self.lose(Loss::Broke("it answered what it was never asked".into()));
        }
        // An earlier one was sent before this side was away again.
        if number == self.probes && self.doubt == Doubt::Asked {
            self.doubt = Doubt::No;
            self.release(self.released);
            self.try_finish(now);
            self.try_hand_over();
        }
    }
}
