//! Time passes: is the backup heard, is it silent, does this side hang?

use super::{Phase, Primary, PrimaryAction};
use crate::Time;
use crate::reason::Loss;
use crate::wire::{Beat, Message};

impl Primary {
    /// Time has passed.
    pub fn handle_tick(&mut self, now: Time) {
        if self.question.due(now) {
            self.push_question();
        }
        if let Phase::Closing {
            closed,
            bye_by: Some(by),
        } = self.phase
            && by <= now
        {
            self.disconnect();
            self.close_or_finish(closed, None);
        }
        self.give_up_slow_joiner(now);
        let late = self.peer.detector.is_late(now);
        if self.ticks() && self.peer.detector.tick(now) && self.peer.is_connected() {
            if late || self.peer.mute {
                self.was_away();
            }
            if self.phase == Phase::Paired {
                self.lag.adjust(now);
                if std::mem::take(&mut self.kept_back) {
                    self.release(self.released);
                }
            }
            match self.peer.detector.suspicion() {
                Some(suspicion) => self.lose(Loss::Suspected(suspicion)),
                None => self.heartbeat(),
            }
        }
    }

    /// Does time matter: to watch the backup, or to see whether the vCPU answers again?
    pub(super) fn ticks(&self) -> bool {
        self.peer.is_connected() || self.asks_later
    }

    /// Shows the backup that this side is alive; a report that is due does that as well.
    fn heartbeat(&mut self) {
        let greeted = !matches!(self.phase, Phase::Waiting | Phase::Solo { .. });
        if !greeted || self.peer.mute {
            return;
        }
        // The owner of a copy that is not proved yet knows no outputs.
        let reports = !matches!(self.phase, Phase::Joined(_));
        let said = self.probe() || reports && self.tell_released();
        if !said {
            self.send(Message::Heartbeat);
        }
        let beat = self.peer.next_beat(self.generation, self.config.me);
        self.push(PrimaryAction::Beat(beat));
    }

    /// A beat came by UDP. Returns whether it is the backup's: then beats are sent back to its address.
    pub fn handle_beat(&mut self, now: Time, beat: Beat) -> bool {
        let backup = self.members.backup;
        self.peer.hears(now, beat, self.generation, backup)
    }

    /// Says whether the vCPU's thread answers, or rests with a reason. While it does not, this side
    /// sends nothing and does not claim: a VMM that hangs is as bad as a dead one.
    pub fn handle_vcpu(&mut self, answers: bool) {
        self.peer.mute = !answers;
        if answers && std::mem::take(&mut self.asks_later) {
            self.push_question();
        }
        if answers {
            self.probe();
        }
    }
}
