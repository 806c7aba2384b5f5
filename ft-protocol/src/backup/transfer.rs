//! Joining a VM that runs: its machine is copied here, then its log goes on.
//!
//! Until [`Message::Armed`] this side has no right at all: it never asks the arbiter, whatever happens
//! to the source of its copy.

use super::join::{Joining, generation_refusal};
use super::{Backup, BackupAction, BackupTurn, Build, Phase, Received};
use crate::Time;
use crate::arbiter::Nonce;
use crate::log::MAX_START;
use crate::log::codec::{FrameDecoder, MAX_ENTRY_PAYLOAD};
use crate::mutant::Mutant;
use crate::reason::{HaltReason, Loss};
use crate::transfer::{Right, StateDigest, Survivor};
use crate::wire::{COPY_WINDOW_BYTES, Message};

/// Bytes of a copy that may wait to be put into memory. A source sends at most [`COPY_WINDOW_BYTES`],
/// plus its last piece; one that sends more than this breaks the protocol.
const MEMORY_BYTES: u64 = 2 * COPY_WINDOW_BYTES;

impl Backup {
    /// Checks whether this is the expected VM, and asks the arbiter for its record.
    pub(super) fn offered(&mut self, message: Message) {
        let Message::Offer {
            protocol,
            generation,
            members,
            nonce,
            source,
            header,
            image,
        } = message
        else {
            unreachable!("{} is no Offer", message.name());
        };
        let right = Right {
            generation,
            members,
            nonce,
        };
        let stranger = (!right.is_of(source) || source == self.config.me)
            .then(|| "whoever runs the VM is no member of the generation that it names".into());
        let refusal = self.header_refusal(protocol, &header).or(stranger);
        if let Some(reason) = refusal.or_else(|| generation_refusal(generation)) {
            return self.refuse(reason);
        }
        self.right = Some(right);
        self.generation = generation;
        self.primary = Some(source);
        self.ask(Phase::ReadingBack(Joining {
            right,
            copied: true,
            header,
            image,
        }));
    }

    /// Pages of the memory came.
    pub(super) fn take_memory(&mut self, pages: Vec<u8>) {
        self.memory.0 += pages.len() as u64;
        let (received, loaded) = self.memory;
        if received.saturating_sub(loaded) > MEMORY_BYTES {
            return self.broke("more of the copy than was asked for".into());
        }
        self.push(Build::Load { pages });
    }

    /// `bytes` bytes of the copy's pages are in the memory, in total.
    pub fn handle_loaded(&mut self, _now: Time, bytes: u64) {
        self.memory.1 = self.memory.1.max(bytes);
        if self.peer.is_connected() && matches!(self.phase, Phase::Receiving | Phase::Restoring) {
            self.push(BackupAction::Send(Message::Loaded { bytes }));
        }
    }

    /// The rest of the machine, and where its log goes on.
    pub(super) fn take_state(&mut self, log: Received, outputs: u64, state: Vec<u8>) {
        if log.seq.max(outputs).max(log.at.exit) > MAX_START {
            return self.broke("a machine aeons ahead".into());
        }
        // What the machine does before it waits for the log is not known yet.
        self.ran_dry = false;
        self.frames = FrameDecoder::new(log.seq + 1, MAX_ENTRY_PAYLOAD, 0);
        (self.executed, self.drained, self.forgotten) = (log.seq, log.seq, outputs);
        self.log = log;
        self.told = (0, log.seq);
        self.phase = Phase::Restoring;
        self.push(Build::Restore {
            seq: log.seq,
            at: log.at,
            outputs,
            state,
        });
    }

    /// The copy is complete, and has these digests.
    pub fn handle_restored(&mut self, _now: Time, digest: StateDigest) {
        if self.phase == Phase::Restoring {
            self.phase = Phase::Unarmed;
            self.push(BackupAction::Send(Message::Copied { digest }));
        }
    }

    /// From now on this side protects the VM.
    pub(super) fn armed(&mut self, now: Time, generation: u64, nonce: Nonce) {
        if let Some(what) = generation_refusal(generation) {
            return self.broke(what);
        }
        let source = self.primary.expect("it was told with the offer");
        self.right = Some(Right {
            generation,
            members: crate::arbiter::Members {
                primary: source,
                backup: Some(self.config.me),
            },
            nonce,
        });
        self.generation = generation;
        self.phase = Phase::Following;
        self.peer.detector.relimit(self.config.timing.silence, now);
        self.push(BackupTurn::Armed { generation });
        self.go_on();
    }

    /// The source of the copy was lost.
    pub(super) fn lose_source(&mut self, loss: Loss) {
        if self.has(Mutant::AsksUnarmed) && self.phase == Phase::Unarmed {
            self.phase = Phase::Suspecting { stuck: false };
            self.disconnect();
            return self.go_on();
        }
        self.halt(HaltReason::NotArmed(loss));
    }

    /// What a backup that went live starts with as a primary. `outputs` is the number of the last
    /// output that its guest emitted.
    ///
    /// # Panics
    /// If it is not live.
    pub fn survivor(&self, outputs: u64) -> Survivor {
        assert!(self.is_live(), "only who won goes on");
        Survivor {
            right: self.right.expect("it was welcomed or armed"),
            seq: self.log.seq,
            outputs,
        }
    }
}
