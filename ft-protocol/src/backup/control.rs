//! What operators want of a backup: to take over on purpose, to leave, and to pass on requests.

use super::{Backup, BackupAction, BackupTurn, Phase};
use crate::Time;
use crate::wire::{Message, Request};

impl Backup {
    /// The primary's guest rests and everything has left: this side must go on, without a suspicion.
    /// The connection stays open, to report when that is done.
    pub(super) fn take_over(&mut self) {
        self.planned = true;
        self.phase = Phase::TakingOver;
        self.push(BackupTurn::TakeOver);
        self.go_on();
    }

    /// The operator wants this side to leave. Returns whether it does: not after it has asked the
    /// arbiter, as it may have won already.
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

    /// The operator requests here what only the primary can do. Returns whether there is a primary to
    /// ask.
    pub fn handle_request(&mut self, _now: Time, request: Request) -> bool {
        let possible = self.is_paired() && self.peer.is_connected();
        if possible {
            self.push(BackupAction::Send(Message::Request(request)));
        }
        possible
    }
}
