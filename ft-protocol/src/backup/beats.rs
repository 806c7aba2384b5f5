//! How the backup shows that it is alive.

use super::{Backup, BackupAction, Phase};
use crate::Time;
use crate::wire::{Beat, Message};

impl Backup {
    /// Shows the primary that this side is alive; an acknowledgement that is due does that as well.
    pub(super) fn heartbeat(&mut self) {
        if self.peer.mute {
            return;
        }
        let news = self.ack_due || (self.consumed, self.executed) != self.told;
        match news && self.takes_log() {
            true => self.acknowledge(),
            false => self.push(BackupAction::Send(Message::Heartbeat)),
        }
        let beat = self.peer.next_beat(self.generation, self.config.me);
        self.push(BackupAction::Beat(beat));
    }

    /// A beat came by UDP.
    pub fn handle_beat(&mut self, now: Time, beat: Beat) {
        let heard = self.peer.hears(now, beat, self.generation, self.primary);
        if heard && self.phase != (Phase::Suspecting { stuck: true }) {
            self.withdraw();
        }
    }

    /// Says whether the vCPU's thread answers, or rests with a reason. While it does not, this side
    /// sends nothing: a VMM that hangs protects nothing.
    pub fn handle_vcpu(&mut self, answers: bool) {
        self.peer.mute = !answers;
        if self.ack_due && answers && self.takes_log() {
            self.acknowledge();
        }
        self.echo();
    }
}
