//! The backup's questions to the arbiter, going live, and how it ends.

use super::{Backup, BackupAction, BackupEnd, BackupQuestion, BackupTurn, Phase};
use crate::Time;
use crate::arbiter::{ClaimAnswer, CloseAnswer};
use crate::mutant::Mutant;
use crate::reason::HaltReason;
use crate::wire::Message;

impl Backup {
    /// Enters a phase and asks the arbiter the question of that phase.
    pub(super) fn ask(&mut self, phase: Phase) {
        self.phase = phase;
        self.question.ask();
        self.push_question();
    }

    /// Asks what belongs to its phase.
    pub(super) fn push_question(&mut self) {
        let question = self.question_of_phase();
        self.push(question.expect("a phase that asks"));
    }

    fn question_of_phase(&self) -> Option<BackupQuestion> {
        let generation = self.generation;
        match self.phase {
            Phase::ReadingBack(_) => Some(BackupQuestion::ReadBack { generation }),
            Phase::Asking => Some(BackupQuestion::Claim { generation }),
            Phase::Fencing => Some(BackupQuestion::Fence { generation }),
            Phase::Closing => Some(BackupQuestion::Close { generation }),
            Phase::Connecting
            | Phase::Greeting
            | Phase::Booting { .. }
            | Phase::Receiving
            | Phase::Restoring
            | Phase::Unarmed
            | Phase::Following
            | Phase::Suspecting { .. }
            | Phase::TakingOver
            | Phase::Parting
            | Phase::Live
            | Phase::Ended => None,
        }
    }

    /// The answer to [`BackupQuestion::Claim`].
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
            // A primary that handed over rests, and sends nothing more without the right to.
            ClaimAnswer::Won if self.planned || self.has(Mutant::LiveBeforeFence) => {
                self.go_live();
            }
            ClaimAnswer::Won => self.ask(Phase::Fencing),
        }
    }

    /// The answer to [`BackupQuestion::Fence`]: an error is tried again, and nobody is live meanwhile.
    pub fn handle_fenced(&mut self, now: Time, fenced: bool) {
        if self.phase != Phase::Fencing || !self.question.answered() {
            return;
        }
        if self.question.fenced(now, fenced) {
            self.go_live();
        }
    }

    /// It has won, and the peer cannot write any more.
    fn go_live(&mut self) {
        assert_eq!(
            self.drained, self.log.seq,
            "I3: nobody goes live with entries not executed"
        );
        if !self.has(Mutant::NotEmittedAgain) {
            self.push(BackupTurn::EmitHeld);
        }
        if self.peer.is_connected() {
            self.push(BackupAction::Send(Message::Bye));
            self.disconnect();
        }
        if self.log.ended {
            return self.ask(Phase::Closing);
        }
        self.phase = Phase::Live;
        self.push(BackupTurn::Announce);
        self.push(BackupEnd::Live {
            generation: self.generation,
        });
    }

    /// The answer to [`BackupQuestion::Close`].
    pub fn handle_closed(&mut self, now: Time, answer: CloseAnswer) {
        if self.phase != Phase::Closing || !self.question.answered() {
            return;
        }
        if let Some(closed) = self.question.closed(now, answer) {
            self.finish(closed);
        }
    }
}
