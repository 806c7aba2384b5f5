//! What the primary is made from, and what it asks for.

use crate::arbiter::{MemberId, Members, Nonce, Standing};
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
        /// The generation.
        generation: u64,
        /// Its members.
        members: Members,
        /// Its nonce.
        nonce: Nonce,
    },
    /// Send [`Message::Offer`] with this, the log's header and the guest image.
    Offer {
        /// Version to speak.
        protocol: u32,
        /// By which this side runs.
        right: Right,
    },
    /// Copy the machine that runs to whoever is connected, then call `handle_captured`.
    Copy,
    /// Whatever was or is copied is of no more use.
    StopCopy,
    /// Send what still waits behind the copy, [`Message::Armed`] too, and tell the operator that there is a
    /// backup again.
    Protected {
        /// The generation.
        generation: u64,
    },
    /// Send the log's frames up to this sequence that were not sent yet, in messages of
    /// [`Message::Log`].
    SendLog {
        /// Sequence of the last one.
        up_to: u64,
    },
    /// Hand the outputs up to this number to the backends, in order and as long as `may_release` says
    /// so, then report the last one that they took by `handle_released`.
    Release {
        /// Number of the last one.
        up_to: u64,
    },
    /// Write the generation's open record, answer by `handle_opened`.
    Open {
        /// The generation.
        generation: u64,
        /// Its members.
        members: Members,
        /// Its nonce.
        nonce: Nonce,
    },
    /// Claim the generation, answer by `handle_claim`.
    Claim {
        /// The generation.
        generation: u64,
    },
    /// These records vanished: write them again, the claim first if it was won. No answer; the next look tells.
    PutBack(Standing),
    /// Let the vCPU execute.
    Start,
    /// Shut the backup out of whatever both could write to, answer by `handle_fenced`.
    Fence {
        /// The generation that was won.
        generation: u64,
    },
    /// The backup's operator asks for this.
    Requested(Request),
    /// Let the vCPU rest at its next position, answer by `handle_parked`.
    Park,
    /// Let the vCPU that rests run on.
    Resume,
    /// The backup goes on: nothing is left to do here.
    HandedOver {
        /// The generation.
        generation: u64,
    },
    /// Nothing ever ran, and this side was told to leave: close the generations that it won.
    Leave,
    /// Tell the operator that the backup counts as lost, and why. The arbiter decides the rest.
    BackupLost(Loss),
    /// Won: tell the operator that this side runs on alone. Everything held is released next.
    GoSolo {
        /// The generation that was won.
        generation: u64,
    },
    /// Write the generation's close record, answer by `handle_closed`.
    Close {
        /// The generation.
        generation: u64,
    },
    /// Send what is to be sent, then close the connection.
    Disconnect,
    /// Stop for good; release nothing more.
    Halt(HaltReason),
    /// The guest has ended and everything is done.
    Finish {
        /// False if the arbiter was not reached: the next cold start will have to be forced.
        closed: bool,
    },
}
