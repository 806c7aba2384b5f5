//! What the primary is made from, and what it asks for.

use crate::arbiter::{MemberId, Nonce, Standing};
use crate::detector::Timing;
use crate::log::HostPrint;
use crate::reason::{HaltReason, Loss};
use crate::transfer::Right;
use crate::wire::{Beat, Message, Request};

/// Bytes of the log that the backup may be behind, by what its vCPU took out of its buffer; with
/// more, the primary's vCPU waits. The last flush may go over it.
pub const LOG_WINDOW_BYTES: u64 = 16 << 20;

/// What a primary starts from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrimaryConfig {
    /// The VM.
    pub vm: String,
    /// This process, random.
    pub me: MemberId,
    /// This host.
    pub host: HostPrint,
    /// The first generation to open: see [`crate::arbiter::next_generation`].
    pub generation: u64,
    /// Random; the generations' nonces are derived from it.
    pub nonce: Nonce,
    /// Run without a backup: start at once, outputs are held for nobody.
    pub solo: bool,
    /// How fast a silent backup is suspected.
    pub timing: Timing,
    /// A fault that a test plants.
    #[cfg(test)]
    pub(crate) mutant: Option<crate::mutant::Mutant>,
}

/// How often the vCPU was made to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stalls {
    /// For the backup, more than [`LOG_WINDOW_BYTES`] behind.
    pub window: u64,
    /// For outputs, [`crate::gate::GATE_OUTPUTS`] or [`crate::gate::GATE_BYTES`] of them held.
    pub gate: u64,
}

/// What the runtime does for the primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrimaryAction {
    /// Send this.
    Send(Message),
    /// Send this by UDP, if it is known where to.
    Beat(Beat),
    /// Send [`Message::Welcome`] with this, the log's header and the guest image.
    Welcome {
        /// Version to speak.
        protocol: u32,
        /// The generation, as it was opened for the two.
        right: Right,
    },
    /// Send [`Message::Offer`] with this, the log's header and the guest image.
    Offer {
        /// Version to speak.
        protocol: u32,
        /// By which this side runs.
        right: Right,
    },
    /// Send the log's frames up to this sequence that were not sent yet, in messages of
    /// [`Message::Log`].
    SendLog {
        /// Sequence of the last one.
        up_to: u64,
    },
    /// Send what is to be sent, then close the connection.
    Disconnect,
    /// Something about the copy of the machine that runs.
    Copy(Copying),
    /// Hand the outputs up to this number to the backends, in order and as long as `may_release` says
    /// so, then report the last one that they took by `handle_released`.
    Release {
        /// Number of the last one.
        up_to: u64,
    },
    /// Ask this, on a thread that may wait for the answer.
    Ask(PrimaryQuestion),
    /// These records vanished: write them again, the claim first if it was won. No answer; the next look tells.
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
    /// Whatever was or is copied is of no more use.
    Stop,
}

/// What the primary wants to know: of the arbiter, or of the fence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrimaryQuestion {
    /// Write the generation's open record, answer by `handle_opened`.
    Open(Right),
    /// Claim the generation, answer by `handle_claim`.
    Claim {
        /// The generation.
        generation: u64,
    },
    /// Shut the backup out of whatever both could write to, answer by `handle_fenced`.
    Fence {
        /// The generation that was won.
        generation: u64,
    },
    /// Write the generation's close record, answer by `handle_closed`.
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
    /// Let the vCPU rest at its next position, answer by `handle_parked`.
    Park,
    /// Let the vCPU that rests run on.
    Resume,
    /// Tell the operator that the backup counts as lost, and why. The arbiter decides the rest.
    BackupLost(Loss),
    /// Tell the operator that there is a backup again.
    Protected {
        /// The generation.
        generation: u64,
    },
    /// Won: tell the operator that this side runs on alone. Everything held is released next.
    GoSolo {
        /// The generation that was won.
        generation: u64,
    },
    /// The backup's operator asks for this.
    Requested(Request),
}

/// How the primary ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrimaryEnd {
    /// The backup goes on: nothing is left to do here.
    HandedOver {
        /// The generation.
        generation: u64,
    },
    /// Nothing ever ran, and this side was told to leave: close the generations that it won.
    Leave,
    /// Stop for good, with [`HaltReason::status`]; release nothing more.
    Halt(HaltReason),
    /// The guest has ended and everything is done.
    Finish {
        /// False if the arbiter was not reached: the next cold start will have to be forced.
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
