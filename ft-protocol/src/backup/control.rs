//! What operators want of a backup: taking over on purpose, leaving, passing on their requests.

use super::{Backup, BackupAction, BackupTurn, Phase};
use crate::Time;
use crate::wire::{Message, Request};

impl Backup {
    /// The primary's guest rests and everything has left: this side is to go on, without suspecting
    /// anybody. The connection stays, to say when that is done.
    pub(super) fn take_over(&mut self) {
        self.planned = true;
        self.phase = Phase::TakingOver;
        self.push(BackupTurn::TakeOver);
        self.go_on();
    }

    /// The operator wants this side to leave. Whether it does: not once it has asked the arbiter, as
    /// it may have won already.
    pub fn handle_leave(&mut self, _now: Time) -> bool {
        let asked = [Phase::Asking, Phase::Fencing, Phase::Live, Phase::Closing];
        if asked.contains(&self.phase) {
            return false;
        }
        let greeted = !matches!(self.phase, Phase::Greeting | Phase::ReadingBack(_));
        if self.peer.is_connected() && greeted {
            self.push(BackupAction::Send(Message::Leave));
        }
        self.disconnect();
        self.phase = Phase::Ended;
        true
    }

    /// The operator asks here for what only the primary can do. Whether there is one to ask.
    pub fn handle_request(&mut self, _now: Time, request: Request) -> bool {
        let possible = self.is_paired() && self.peer.is_connected();
        if possible {
            self.push(BackupAction::Send(Message::Request(request)));
        }
        possible
    }
}
