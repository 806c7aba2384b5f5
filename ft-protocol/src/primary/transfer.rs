//! A new backup joins while this side runs alone: the machine is copied, and its rights with it.
//!
//! Until [`Message::Armed`] this side runs by the right of the generation that it won, and the joiner
//! has no right. With Armed, that right is used up: from then on outputs leave by acknowledgements, or
//! after the next generation is won. In between, two things are made sure, so that an armed joiner
//! could go on at once: every entry that led to an output which has left is acknowledged, and every
//! output that the guest had emitted before the copy has left.

use super::outbox::Outbox;
use super::{Copying, Doubt, Phase, Primary, PrimaryAction, PrimaryTurn};
use crate::Time;
use crate::arbiter::{MemberId, OpenAnswer};
use crate::gate::Gate;
use crate::mutant::Mutant;
use crate::question::CLOSE_ATTEMPTS;
use crate::reason::Loss;
use crate::transfer::{Capture, StateDigest, Survivor};
use crate::wire::{Message, PROTOCOL_VERSION};
use std::time::Duration;

/// From the copy until the joiner is armed: proving it, opening the generation, its acknowledgements.
const ARM_LIMIT: Duration = Duration::from_secs(5);

/// How far a joiner is that is not armed yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// It was offered the machine.
    Offering,
    /// The machine is copied.
    Copying,
    /// Its copy is to be proved, to be this.
    Proving(Copied, StateDigest),
    /// Asked the arbiter to open the next generation.
    Opening(Copied),
    /// Outputs wait again; it is armed once it has acknowledged this entry.
    Arming { copied: Copied, seq: u64 },
}

/// What a joiner has a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Copied {
    /// Number of the last output before it.
    outputs: u64,
    /// When the joiner is given up.
    arm_by: Time,
}

impl Stage {
    /// What it has a copy of, once there is one.
    pub fn copied(&self) -> Option<Copied> {
        match *self {
            Stage::Offering | Stage::Copying => None,
            Stage::Proving(copied, _) | Stage::Opening(copied) | Stage::Arming { copied, .. } => {
                Some(copied)
            }
        }
    }
}

impl Primary {
    /// A backup that went live goes on as this primary: it runs alone, and may be joined.
    pub fn survivor(config: super::PrimaryConfig, survivor: Survivor, now: Time) -> Primary {
        let mut primary = Primary::at_rest(config, now);
        assert!(
            survivor.right.is_of(primary.config.me),
            "a survivor was a member of the generation that it won"
        );
        primary.phase = Phase::Solo { unsure: false };
        primary.generation = survivor.right.generation;
        primary.opened = survivor.right.generation;
        primary.last_own = survivor.right.generation;
        primary.right = Some(survivor.right);
        primary.gate = Gate::opened_after(survivor.outputs);
        primary.released = survivor.outputs;
        primary.told = survivor.outputs;
        primary.log.seq = survivor.seq;
        primary
    }

    /// Offers the running machine to the joiner.
    pub(super) fn offer(&mut self, now: Time, protocol: u32, backup: MemberId) {
        let right = self.right.expect("who runs alone does so by a right");
        self.peer.detector.relimit(self.config.timing.joining, now);
        self.protocol = protocol.min(PROTOCOL_VERSION);
        self.members.backup = Some(backup);
        self.members.primary = self.config.me;
        self.peer.is_new();
        self.outbox = Outbox::default();
        self.phase = Phase::Joined(Stage::Offering);
        self.push(PrimaryAction::Offer {
            protocol: self.protocol,
            right,
        });
    }

    /// A message from a joiner that is not armed yet.
    pub(super) fn joining(&mut self, now: Time, message: Message) {
        let Phase::Joined(stage) = &self.phase else {
            return;
        };
        match (stage, message) {
            (_, Message::Heartbeat) => {}
            (_, Message::Refuse { reason }) => self.lose(Loss::Refused(reason)),
            (_, Message::Leave) => self.lose(Loss::Left),
            (Stage::Offering, Message::Ready) => self.copy(),
            (Stage::Copying | Stage::Proving(..), Message::Loaded { bytes })
                if bytes <= self.outbox.sent() =>
            {
                self.loaded(bytes);
            }
            (Stage::Proving(copied, ours), Message::Copied { digest }) if !self.outbox.waits() => {
                let (copied, differs) = (*copied, ours.differences(&digest));
                self.proved(now, copied, &differs);
            }
            (
                Stage::Proving(..) | Stage::Opening(_) | Stage::Arming { .. },
                Message::Ack {
                    received,
                    consumed,
                    executed,
                },
            ) => self.acknowledged(now, received, consumed, executed),
            (_, Message::Diverged { at, what }) => self.lose(Loss::Diverged { at, what }),
            (_, message) => self.lose(Loss::Broke(format!("{} out of turn", message.name()))),
        }
    }

    /// There is room for the copy.
    fn copy(&mut self) {
        self.phase = Phase::Joined(Stage::Copying);
        self.push(Copying::Begin);
    }

    /// The machine was stopped and copied; its log up to there was handed in by
    /// [`Primary::handle_appended`], the last piece of its memory by [`Primary::handle_piece`]. From here on
    /// the log is for the joiner too. Means nothing if the joiner was lost meanwhile.
    ///
    /// # Panics
    /// If the log does not end there.
    pub fn handle_captured(&mut self, now: Time, capture: Capture) {
        if self.phase != Phase::Joined(Stage::Copying) {
            return;
        }
        assert_eq!(
            capture.seq, self.log.seq,
            "the log ends where it was copied"
        );
        (self.base_bytes, self.consumed) = (self.log.bytes, self.log.bytes);
        self.told = capture.outputs;
        self.gate.ack(self.log.seq);
        self.lag.clear();
        self.lag.executed(self.log.seq);
        let copied = Copied {
            outputs: capture.outputs,
            arm_by: now.after(ARM_LIMIT),
        };
        self.phase = Phase::Joined(Stage::Proving(copied, capture.digest));
        self.send_state();
        self.note_stalls();
    }

    /// A joiner that has a copy and is not armed has no right to make the vCPU wait for ever.
    pub(super) fn give_up_slow_joiner(&mut self, now: Time) {
        if self.copied().is_some_and(|copied| copied.arm_by <= now) {
            let seconds = ARM_LIMIT.as_secs();
            self.handle_copy_failed(now, format!("it was not taken over within {seconds} s"));
        }
    }

    /// The machine could not be copied. Means nothing once the joiner is armed.
    pub fn handle_copy_failed(&mut self, _now: Time, why: String) {
        if matches!(self.phase, Phase::Joined(_)) {
            self.end_transfer(format!("the machine could not be copied: {why}"));
        }
    }

    /// The copy stands, and these parts of it differ.
    fn proved(&mut self, now: Time, copied: Copied, differs: &[String]) {
        if !differs.is_empty() && !self.has(Mutant::AcceptsAnyCopy) {
            // Memory differs if bytes were changed on their way. A vCPU or a device differs if this
            // host's KVM, or Lockstep, made something else of its state.
            let advice = match differs.iter().all(|part| part == "memory") {
                true => "look at the hosts' memory and network",
                false => {
                    "start the backup again, and where the guest is then may be moved; if this comes each \
                     time, report it with the guest"
                }
            };
            return self.end_transfer(format!(
                "the copy of the machine is none, as its {} differs: {advice}",
                differs.join(" and ")
            ));
        }
        self.peer.detector.relimit(self.config.timing.silence, now);
        self.opened += 1;
        self.last_own = self.opened;
        if self.has(Mutant::ArmsTooEarly) {
            return self.arm();
        }
        self.ask(Phase::Joined(Stage::Opening(copied)));
    }

    /// The answer to [`PrimaryQuestion::Open`] for the next generation.
    pub(super) fn next_opened(&mut self, now: Time, copied: Copied, answer: OpenAnswer) {
        match answer {
            OpenAnswer::Unreachable(_) => self.question.unreachable(now),
            // An operator has started the VM by force. The machine here runs on by its own right.
            OpenAnswer::AlreadyOpen { record } => {
                self.last_own = self.generation;
                self.end_transfer(format!(
                    "generation {} was opened by member {}: somebody started the VM by force",
                    record.generation, record.members.primary
                ));
            }
            OpenAnswer::Opened => {
                let seq = match self.has(Mutant::ArmsUnacknowledged) {
                    true => 0,
                    false => self.log.seq.max(self.gate.needed()),
                };
                self.phase = Phase::Joined(Stage::Arming { copied, seq });
                self.hold_outputs();
                self.note_stalls();
                self.try_arm();
            }
        }
    }

    /// The answer for a joiner that was lost. Before it is known whether that generation is open, no
    /// other joiner may come, and the end must wait: the last generation that is open must be closed,
    /// and no other one.
    pub(super) fn stale_opened(&mut self, now: Time, answer: OpenAnswer) {
        match answer {
            OpenAnswer::Unreachable(_)
                if self.end.is_some() && self.question.attempts() >= CLOSE_ATTEMPTS =>
            {
                return self.finish(false);
            }
            OpenAnswer::Unreachable(_) => return self.question.unreachable(now),
            OpenAnswer::AlreadyOpen { .. } => self.last_own = self.generation,
            OpenAnswer::Opened => {}
        }
        self.phase = Phase::Solo { unsure: false };
        self.try_finish(now);
    }

    /// Arms the joiner when it could go on at once.
    pub(super) fn try_arm(&mut self) {
        let Phase::Joined(Stage::Arming { copied, seq }) = self.phase else {
            return;
        };
        let left = self.released >= copied.outputs || self.has(Mutant::ArmsOverOldOutputs);
        if self.gate.acked() >= seq && left {
            self.arm();
        }
    }

    fn hold_outputs(&mut self) {
        if !self.has(Mutant::ReleasesTooEarly) {
            self.gate.close();
        }
    }

    fn arm(&mut self) {
        self.hold_outputs();
        let right = self.right_of(self.opened);
        self.right = Some(right);
        self.generation = right.generation;
        (self.phase, self.doubt) = (Phase::Paired, Doubt::No);
        self.send(Message::Armed {
            generation: right.generation,
            nonce: right.nonce,
        });
        self.tell_released();
        self.push(PrimaryTurn::Protected {
            generation: right.generation,
        });
    }

    /// Refuses the joiner; this side runs on as before. The reason must not wait behind the copy.
    pub(super) fn end_transfer(&mut self, reason: String) {
        self.stop_copy();
        self.send(Message::Refuse {
            reason: reason.clone(),
        });
        self.end_joining(Loss::Unfit(reason));
    }

    /// The joiner was lost before it was armed. It never claims, and this side runs on by the right
    /// that it has. A generation that was opened for the two stays open, and is never used again.
    pub(super) fn drop_transfer(&mut self, loss: Loss) {
        self.stop_copy();
        self.end_joining(loss);
    }

    /// What waits is dropped with the copy: nothing of it is of use without the rest.
    fn stop_copy(&mut self) {
        self.outbox = Outbox::default();
        self.push(Copying::Stop);
    }

    fn end_joining(&mut self, loss: Loss) {
        self.disconnect();
        if self.has(Mutant::NumberUsedAgain) {
            self.opened = self.generation;
        }
        let opening = matches!(self.phase, Phase::Joined(Stage::Opening(_)));
        let unsure = opening && self.question.is_open();
        self.lag.clear();
        self.phase = Phase::Solo { unsure };
        self.push(PrimaryTurn::BackupLost(loss));
        let passed = self.gate.passed();
        self.gate.open();
        self.release(passed);
        self.note_stalls();
    }

    /// What a joiner that is not armed yet has a copy of.
    pub(super) fn copied(&self) -> Option<Copied> {
        match &self.phase {
            Phase::Joined(stage) => stage.copied(),
            _ => None,
        }
    }
}
