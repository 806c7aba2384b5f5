//! How the backup shows that it is there.

use super::{Backup, BackupAction, Phase};
use crate::Time;
use crate::wire::{Beat, Message};

impl Backup {
    /// Shows the primary that we are there; an acknowledgement that is due does as well.
    pub(super) fn heartbeat(&mut self) {
        if self.mute {
            return;
        }
        let news = self.ack_due || (self.consumed, self.executed) != self.told;
        match news && self.takes_log() {
            true => self.acknowledge(),
            false => self.push(BackupAction::Send(Message::Heartbeat)),
        }
        self.beats += 1;
        self.push(BackupAction::Beat(Beat {
            generation: self.generation,
            from: self.config.me,
            count: self.beats,
        }));
    }

    /// A beat came by UDP.
    pub fn handle_beat(&mut self, now: Time, beat: Beat) {
        let its = self.connected
            && Some(beat.from) == self.primary
            && beat.generation == self.generation
            && beat.count > self.heard_beat;
        if its {
            self.heard_beat = beat.count;
            self.detector.heard_beat(now);
            if self.phase != (Phase::Suspecting { stuck: true }) {
                self.withdraw();
            }
        }
    }

    /// Whether the vCPU's thread answers, or rests with a reason. While it does not, nothing shows
    /// the primary that this side is there: a VMM that hangs protects nobody.
    pub fn handle_vcpu(&mut self, answers: bool) {
        self.mute = !answers;
        if self.ack_due && answers && self.takes_log() {
            self.acknowledge();
        }
        self.echo();
    }
}
