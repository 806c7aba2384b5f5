//! What the backup asks the arbiter, going live, and how it ends.

use super::{Backup, BackupAction, Phase};
use crate::Time;
use crate::arbiter::{ClaimAnswer, CloseAnswer};
use crate::mutant::Mutant;
use crate::question::CLOSE_ATTEMPTS;
use crate::reason::HaltReason;
use crate::wire::Message;

impl Backup {
    /// Goes into a phase and asks the arbiter what belongs to it.
    pub(super) fn ask(&mut self, phase: Phase) {
        self.phase = phase;
        self.question.ask();
        self.push_question();
    }

    pub(super) fn push_question(&mut self) {
        let generation = self.generation;
        match self.phase {
            Phase::ReadingBack => self.push(BackupAction::ReadBack { generation }),
            Phase::Asking => self.push(BackupAction::Claim { generation }),
            Phase::Fencing => self.push(BackupAction::Fence { generation }),
            Phase::Closing => self.push(BackupAction::Close { generation }),
            phase => unreachable!("{phase:?} asks nothing"),
        }
    }

    /// The answer to [`BackupAction::Claim`].
    pub fn handle_claim(&mut self, now: Time, answer: ClaimAnswer) {
        if self.phase != Phase::Asking || !self.question.answered() {
            return;
        }
        match answer {
            ClaimAnswer::Unreachable(_) | ClaimAnswer::Missing(_) => self.question.unreachable(now),
            ClaimAnswer::Refused(why) => self.halt(HaltReason::NoRight(why)),
            ClaimAnswer::Lost { by } => {
                self.halt(HaltReason::LostArbitration {
                    generation: self.generation,
                    by,
                });
            }
            // A primary that handed over rests, and says nothing more without the right to.
            ClaimAnswer::Won if self.planned || self.has(Mutant::LiveBeforeFence) => {
                self.go_live();
            }
            ClaimAnswer::Won => self.ask(Phase::Fencing),
        }
    }

    /// The answer to [`BackupAction::Fence`]: an error is tried again, and nobody is live meanwhile.
    pub fn handle_fenced(&mut self, now: Time, fenced: Result<(), String>) {
        if self.phase != Phase::Fencing || !self.question.answered() {
            return;
        }
        match fenced {
            Ok(()) => self.go_live(),
            Err(_) => self.question.unreachable(now),
        }
    }

    /// Won, and nobody else can write any more.
    fn go_live(&mut self) {
        assert_eq!(
            self.drained, self.log.seq,
            "I3: nobody goes live with entries not executed"
        );
        if !self.has(Mutant::NotEmittedAgain) {
            self.push(BackupAction::EmitHeld);
        }
        if self.connected {
            self.push(BackupAction::Send(Message::Bye));
            self.disconnect();
        }
        if self.log.ended {
            return self.ask(Phase::Closing);
        }
        self.phase = Phase::Live;
        self.push(BackupAction::Announce);
        self.push(BackupAction::Live {
            generation: self.generation,
        });
    }

    /// The answer to [`BackupAction::Close`].
    pub fn handle_closed(&mut self, now: Time, answer: CloseAnswer) {
        if self.phase != Phase::Closing || !self.question.answered() {
            return;
        }
        match answer {
            CloseAnswer::Closed => self.finish(true),
            CloseAnswer::Unreachable(_) if self.question.attempts() < CLOSE_ATTEMPTS => {
                self.question.unreachable(now);
            }
            CloseAnswer::Unreachable(_) => self.finish(false),
        }
    }
}
