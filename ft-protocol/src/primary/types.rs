//! What a primary starts with, and its actions.

use crate::arbiter::{MemberId, Nonce, Standing};
use crate::detector::Timing;
use crate::log::{Counts, HostPrint};
use crate::reason::{HaltReason, Loss};
use crate::transfer::Right;
use crate::wire::{Beat, Message, Request};

/// How many bytes of the log the backup's vCPU may be behind in its buffer. With more, the primary's
/// vCPU waits. The last flush may exceed it.
pub const LOG_WINDOW_BYTES: u64 = 16 << 20;

/// What a primary starts with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrimaryConfig {
    /// The VM.
    pub vm: String,
    /// The id of this process, random.
    pub me: MemberId,
    /// This host.
    pub host: HostPrint,
    /// What the machine's positions count.
    pub counts: Counts,
    /// The first generation to open: see [`crate::arbiter::next_generation`].
    pub generation: u64,
    /// Random; the nonces of generations are derived from it.
    pub nonce: Nonce,
    /// Run without a backup: start at once, and hold no outputs.
    pub solo: bool,
    /// How soon a silent backup is suspected.
    pub timing: Timing,
    /// A fault that a test plants.
    #[cfg(test)]
    pub(crate) mutant: Option<crate::mutant::Mutant>,
}

/// How often the vCPU was made to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stalls {
    /// For the backup, which was more than [`LOG_WINDOW_BYTES`] behind.
    pub window: u64,
    /// For outputs, when [`crate::gate::GATE_OUTPUTS`] or [`crate::gate::GATE_BYTES`] were held.
    pub gate: u64,
}

/// What the runtime must do for the primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrimaryAction {
    /// Send this message.
    Send(Message),
    /// Send this by UDP, if the backup's address is known.
    Beat(Beat),
    /// Send [`Message::Welcome`] with these fields, the log's header and the guest image.
    Welcome {
        /// Version to speak.
        protocol: u32,
        /// The generation, as it was opened for the two.
        right: Right,
    },
    /// Send [`Message::Offer`] with these fields, the log's header and the guest image.
    Offer {
        /// Version to speak.
        protocol: u32,
        /// The right by which this side runs.
        right: Right,
    },
    /// Send the log's frames up to this sequence number that were not sent yet, as [`Message::Log`].
    SendLog {
        /// Sequence number of the last one.
        up_to: u64,
    },
    /// Send what is still to be sent, then close the connection.
    Disconnect,
    /// Something about the copy of the machine that runs.
    Copy(Copying),
    /// Give the outputs up to this number to the backends, in order and as long as `may_release` is
    /// true; then report the last one that they took by `handle_released`.
    Release {
        /// Number of the last one.
        up_to: u64,
    },
    /// Ask this, on a thread that may wait for the answer.
    Ask(PrimaryQuestion),
    /// These records vanished: write them again, the claim first if the generation was won. No answer;
    /// the next look shows it.
    PutBack(Standing),
    /// This side's part changes.
    Turn(PrimaryTurn),
    /// It ends: nothing follows.
    End(PrimaryEnd),
}

/// What is to be done about the copy for whoever joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copying {
    /// Copy the machine that runs: call `handle_piece` for each piece of its memory, `handle_captured` at
    /// the end.
    Begin,
    /// Send the first piece that was not sent yet, as [`Message::Memory`].
    SendPiece,
    /// Send the rest, as [`Message::State`].
    SendState,
    /// Stop copying, and drop what was copied.
    Stop,
}

/// What the primary wants to know: of the arbiter, or of the fence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrimaryQuestion {
    /// Write the generation's open record, and answer by `handle_opened`.
    Open(Right),
    /// Claim the generation, and answer by `handle_claim`.
    Claim {
        /// The generation.
        generation: u64,
    },
    /// Shut the backup out of everything that both could write to, and answer by `handle_fenced`.
    Fence {
        /// The generation that was won.
        generation: u64,
    },
    /// Write the generation's close record, and answer by `handle_closed`.
    Close {
        /// The generation.
        generation: u64,
    },
}

/// What changes the primary's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrimaryTurn {
    /// Let the vCPU execute.
    Start,
    /// Make the vCPU rest at its next position, and answer by `handle_parked`.
    Park,
    /// Let the resting vCPU run on.
    Resume,
    /// Report to the operator that the backup counts as lost, and why. The arbiter decides the rest.
    BackupLost(Loss),
    /// Tell the operator that there is a backup again.
    Protected {
        /// The generation.
        generation: u64,
    },
    /// This side has won: report to the operator that it runs on alone. All held outputs are released
    /// next.
    GoSolo {
        /// The generation that was won.
        generation: u64,
    },
    /// The backup's operator requests this.
    Requested(Request),
}

/// How the primary ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrimaryEnd {
    /// The backup goes on, and nothing is left to do here.
    HandedOver {
        /// The generation.
        generation: u64,
    },
    /// Nothing ran, and this side leaves: close the generations that it won.
    Leave,
    /// Stop for good; release nothing more.
    Halt(HaltReason),
    /// The guest has ended and everything is done.
    Finish {
        /// False if the arbiter could not be reached: the next cold start will need `--force`.
        closed: bool,
    },
}

impl From<Copying> for PrimaryAction {
    fn from(copying: Copying) -> PrimaryAction {
        PrimaryAction::Copy(copying)
    }
}

impl From<PrimaryQuestion> for PrimaryAction {
    fn from(question: PrimaryQuestion) -> PrimaryAction {
        PrimaryAction::Ask(question)
    }
}

impl From<PrimaryTurn> for PrimaryAction {
    fn from(turn: PrimaryTurn) -> PrimaryAction {
        PrimaryAction::Turn(turn)
    }
}

impl From<PrimaryEnd> for PrimaryAction {
    fn from(end: PrimaryEnd) -> PrimaryAction {
        PrimaryAction::End(end)
    }
}
