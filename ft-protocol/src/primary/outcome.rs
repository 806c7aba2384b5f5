//! The primary's questions to the arbiter, and how it ends.

use super::handover::Handover;
use super::{
    Doubt, Phase, Primary, PrimaryAction, PrimaryEnd, PrimaryQuestion, PrimaryTurn, Stage,
};
use crate::Time;
use crate::arbiter::{ArbiterError, ClaimAnswer, CloseAnswer, Nonce, OpenAnswer};
use crate::mutant::Mutant;
use crate::reason::{HaltReason, Loss};
use crate::transfer::Right;
use crate::wire::Message;
use std::time::Duration;

/// How long a primary that has said Bye waits for the backup's Bye before it ends.
const BYE_WAIT: Duration = Duration::from_secs(2);

impl Primary {
    /// The nonce of a generation: random in its upper part, and different for every generation.
    fn nonce(&self, generation: u64) -> Nonce {
        Nonce(self.config.nonce.0.wrapping_add(u128::from(generation)))
    }

    /// Enters a phase and asks the arbiter the question of that phase.
    pub(super) fn ask(&mut self, phase: Phase) {
        self.phase = phase;
        self.question.ask();
        self.push_question();
    }

    /// Asks what belongs to its phase. Who is mute does not claim.
    pub(super) fn push_question(&mut self) {
        if self.peer.mute && matches!(self.phase, Phase::Claiming { .. }) {
            self.asks_later = true;
            return;
        }
        let question = self.question_of_phase();
        self.push(question.expect("a phase that asks"));
    }

    fn question_of_phase(&self) -> Option<PrimaryQuestion> {
        let generation = self.generation;
        Some(match self.phase {
            Phase::Opening => PrimaryQuestion::Open(self.right_of(generation)),
            Phase::Joined(Stage::Opening(_)) | Phase::Solo { unsure: true } => {
                PrimaryQuestion::Open(self.right_of(self.opened))
            }
            Phase::Claiming { .. } => PrimaryQuestion::Claim { generation },
            Phase::Fencing => PrimaryQuestion::Fence { generation },
            // A cold start looks at the last generation.
            Phase::Closing { .. } => PrimaryQuestion::Close {
                generation: match self.has(Mutant::LeavesOneOpen) {
                    true => generation,
                    false => self.last_own,
                },
            },
            Phase::Waiting
            | Phase::Welcomed
            | Phase::Paired
            | Phase::HandedOver
            | Phase::Solo { unsure: false }
            | Phase::Joined(
                Stage::Offering | Stage::Copying | Stage::Proving(..) | Stage::Arming { .. },
            )
            | Phase::Ended => return None,
        })
    }

    /// A generation for this side and whoever is connected, as it opens it.
    pub(super) fn right_of(&self, generation: u64) -> Right {
        Right {
            generation,
            members: self.members,
            nonce: self.nonce(generation),
        }
    }

    /// The answer to [`PrimaryQuestion::Open`].
    pub fn handle_opened(&mut self, now: Time, answer: OpenAnswer) {
        match self.phase {
            Phase::Opening if self.question.answered() => self.first_opened(now, answer),
            Phase::Solo { unsure: true } if self.question.answered() => {
                self.stale_opened(now, answer);
            }
            Phase::Joined(Stage::Opening(copied)) if self.question.answered() => {
                self.next_opened(now, copied, answer);
            }
            _ => {}
        }
    }

    fn first_opened(&mut self, now: Time, answer: OpenAnswer) {
        (self.opened, self.last_own) = (self.generation, self.generation);
        let right = self.right_of(self.generation);
        self.right = Some(right);
        match answer {
            OpenAnswer::Unreachable(_) => self.question.unreachable(now),
            OpenAnswer::AlreadyOpen { record } => {
                self.halt(HaltReason::NotFree(ArbiterError::StillOpen {
                    vm: record.vm,
                    generation: record.generation,
                    members: record.members,
                    claimed: false,
                }));
            }
            // If the backup of the pair left meanwhile, the generation is open all the same, and must
            // be won.
            OpenAnswer::Opened if !self.peer.is_connected() => {
                self.ask(Phase::Claiming { started: false })
            }
            OpenAnswer::Opened => {
                self.phase = Phase::Welcomed;
                self.push(PrimaryAction::Welcome {
                    protocol: self.protocol,
                    right,
                });
            }
        }
    }

    /// The answer to [`PrimaryQuestion::Claim`].
    pub fn handle_claim(&mut self, now: Time, answer: ClaimAnswer) {
        let Phase::Claiming { started } = self.phase else {
            return;
        };
        if !self.question.answered() {
            return;
        }
        match answer {
            ClaimAnswer::Unreachable(_) if self.has(Mutant::AsksOnlyOnce) => {}
            ClaimAnswer::Missing(_) if self.has(Mutant::GoesOnUnrecorded) => {
                self.ask(Phase::Fencing);
            }
            ClaimAnswer::Unreachable(_) | ClaimAnswer::Missing(_) => self.question.unreachable(now),
            ClaimAnswer::Refused(why) => self.halt(HaltReason::NoRight(why)),
            ClaimAnswer::Lost { .. } if started && self.has(Mutant::IgnoresLostClaim) => {
                self.go_solo(now, true);
            }
            // This is what the hand-over intended.
            ClaimAnswer::Lost { .. } if self.handover == Handover::Sent => self.end_handed_over(),
            ClaimAnswer::Lost { by } => {
                self.halt(HaltReason::LostArbitration {
                    generation: self.generation,
                    by,
                });
            }
            ClaimAnswer::Won if started => self.ask(Phase::Fencing),
            ClaimAnswer::Won if self.leaving => self.leave(),
            // There was never a peer to shut out.
            ClaimAnswer::Won if self.config.solo => self.go_solo(now, false),
            // Nothing was executed yet, so there is nothing to go on with: the next backup may join.
            ClaimAnswer::Won => {
                self.generation += u64::from(!self.has(Mutant::GenerationNotRaised));
                self.members.backup = None;
                self.phase = Phase::Waiting;
            }
        }
    }

    /// The answer to [`PrimaryQuestion::Fence`]: an error is tried again, and nothing leaves meanwhile.
    pub fn handle_fenced(&mut self, now: Time, fenced: bool) {
        if self.phase != Phase::Fencing || !self.question.answered() {
            return;
        }
        if self.question.fenced(now, fenced) {
            self.go_solo(now, true);
        }
    }

    pub(super) fn go_solo(&mut self, now: Time, started: bool) {
        self.phase = Phase::Solo { unsure: false };
        let generation = self.generation;
        self.push(match started {
            true => PrimaryTurn::GoSolo { generation },
            false => PrimaryTurn::Start,
        });
        self.doubt = Doubt::No;
        self.gate.open();
        // Outputs that had passed the gate before may have been kept back.
        self.release(self.released);
        self.take_back();
        self.note_stalls();
        self.try_finish(now);
    }

    /// The guest has ended. Its end entry has this sequence number, and is the log's last.
    pub fn handle_guest_end(&mut self, now: Time, seq: u64) {
        self.end = Some(seq);
        self.try_finish(now);
    }

    /// Ends the VM when the guest has ended, everything is acknowledged and has left.
    pub(super) fn try_finish(&mut self, now: Time) {
        let Some(end) = self.end else {
            return;
        };
        if matches!(self.phase, Phase::Joined(_)) {
            self.end_transfer("the guest has ended".into());
        }
        let left = self.released == self.gate.queued();
        match self.phase {
            Phase::Paired if left && self.gate.acked() >= end => {
                self.tell_released();
                self.send(Message::Bye);
                self.ask(Phase::Closing {
                    closed: false,
                    bye_by: Some(now.after(BYE_WAIT)),
                });
            }
            Phase::Solo { unsure: false } if left => {
                // A connection that has not said Hello comes too late.
                self.disconnect();
                self.ask(Phase::Closing {
                    closed: false,
                    bye_by: None,
                });
            }
            _ => {}
        }
    }

    /// A message from a backup after this side has said Bye.
    pub(super) fn parting(&mut self, closed: bool, message: Message) {
        match message {
            Message::Heartbeat | Message::Ack { .. } | Message::Echo { .. } => return,
            Message::Diverged { at, what } => {
                self.push(PrimaryTurn::BackupLost(Loss::Diverged { at, what }));
            }
            _ => {}
        }
        self.disconnect();
        self.close_or_finish(closed, None);
    }

    /// The answer to [`PrimaryQuestion::Close`].
    pub fn handle_closed(&mut self, now: Time, answer: CloseAnswer) {
        let Phase::Closing { bye_by, .. } = self.phase else {
            return;
        };
        if !self.question.answered() {
            return;
        }
        match self.question.closed(now, answer) {
            Some(true) => self.close_or_finish(true, bye_by),
            Some(false) => self.finish(false),
            None => {}
        }
    }

    pub(super) fn close_or_finish(&mut self, closed: bool, bye_by: Option<Time>) {
        self.phase = Phase::Closing { closed, bye_by };
        if closed && bye_by.is_none() {
            self.finish(true);
        }
    }

    pub(super) fn finish(&mut self, closed: bool) {
        self.disconnect();
        self.phase = Phase::Ended;
        self.push(PrimaryEnd::Finish { closed });
    }

    pub(super) fn halt(&mut self, reason: HaltReason) {
        self.disconnect();
        self.phase = Phase::Ended;
        self.push(PrimaryEnd::Halt(reason));
    }
}
