//! What a backup starts with, and its actions.

use crate::arbiter::MemberId;
use crate::detector::Timing;
use crate::log::{Entry, Header, HostPrint, Position};
use crate::reason::{HaltReason, Loss};
use crate::wire::{Beat, Message};

/// If the vCPU has consumed this many bytes since the last report, the primary gets a report at once;
/// smaller numbers wait for the next acknowledgement or heartbeat.
pub const ACK_CONSUMED_BYTES: u64 = 1 << 20;

/// What a backup starts with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupConfig {
    /// The VM.
    pub vm: String,
    /// The id of this process, random.
    pub me: MemberId,
    /// This host.
    pub host: HostPrint,
    /// What the machine must be like.
    pub expect: Expectations,
    /// How soon a silent primary is suspected.
    pub timing: Timing,
    /// A fault that a test plants.
    #[cfg(test)]
    pub(crate) mutant: Option<crate::mutant::Mutant>,
}

/// What the operator said about the machine; `None` where nothing was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Expectations {
    /// RAM, MiB.
    pub mem_mib: Option<u32>,
    /// MAC address.
    pub mac: Option<[u8; 6]>,
    /// IPv4 address and prefix length.
    pub ip: Option<([u8; 4], u8)>,
    /// Gateway.
    pub gateway: Option<[u8; 4]>,
    /// Branch edges in a quantum.
    pub quantum: Option<u64>,
    /// Hash of the guest image.
    pub image: Option<u128>,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// Its entries.
    pub items: Vec<LogItem>,
    /// The same as frames, in the form that a [`crate::log::LogWriter`] appends.
    pub frames: Vec<u8>,
}

/// An entry that was received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogItem {
    /// Its sequence number.
    pub seq: u64,
    /// Its length in the log, bytes: what it counts when it is consumed.
    pub bytes: u64,
    /// Itself.
    pub entry: Entry,
}

/// What the runtime does for the backup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackupAction {
    /// Send this.
    Send(Message),
    /// Send this by UDP.
    Beat(Beat),
    /// Send what is to be sent, then close the connection.
    Disconnect,
    /// Ask this, on a thread that may wait for the answer.
    Ask(BackupQuestion),
    /// Something about the machine that this side will follow the log with.
    Build(Build),
    /// Put these into the buffer for the vCPU. They are acknowledged by the next action.
    Deliver(Delivery),
    /// The primary released the outputs up to this number; they will never be emitted here.
    ForgetOutputs {
        /// Number of the last one.
        up_to: u64,
    },
    /// This side's part changes.
    Turn(BackupTurn),
    /// It ends as a backup: nothing follows.
    End(BackupEnd),
}

/// What the backup wants to know: of the arbiter, or of the fence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackupQuestion {
    /// Read the generation's open record through this side's own arbiter, answer by
    /// `handle_read_back`.
    ReadBack {
        /// The generation.
        generation: u64,
    },
    /// Claim the generation, answer by `handle_claim`.
    Claim {
        /// The generation.
        generation: u64,
    },
    /// Won: shut the primary out of whatever both could write to, answer by `handle_fenced`.
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

/// How the backup gets its machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Build {
    /// Build the machine, or make room for a copy of it, then call `handle_booted` or
    /// `handle_boot_failed`. The image's hash is to be compared with the header's.
    Boot {
        /// The generation.
        generation: u64,
        /// The log's header.
        header: Box<Header>,
        /// The guest's ELF file.
        image: Vec<u8>,
        /// The machine runs already: its memory and its state follow.
        copied: bool,
    },
    /// Put these pages into the memory, or call `handle_boot_failed`.
    Load {
        /// As the runtimes encode them.
        pages: Vec<u8>,
    },
    /// The memory is complete: build the machine from it and from this, then call `handle_restored` or
    /// `handle_boot_failed`. What is delivered from here on comes after it.
    Restore {
        /// The log's last entry before it.
        seq: u64,
        /// That entry's position, or the machine's.
        at: Position,
        /// Number of the last output before it.
        outputs: u64,
        /// vCPU and devices, as the runtimes encode them.
        state: Vec<u8>,
    },
    /// Throw away the machine that is being built.
    Discard,
}

/// What changes the backup's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackupTurn {
    /// Tell the operator that this side protects the VM now.
    Armed {
        /// The generation.
        generation: u64,
    },
    /// Tell the operator that the primary is suspected, and let the vCPU execute all there is.
    Suspect(Loss),
    /// The primary was heard again: nothing happened.
    Withdraw,
    /// The primary handed over: let the vCPU execute all there is.
    TakeOver,
    /// Tell the operator that the primary is gone before there was a pair; connect again.
    PrimaryLost(Loss),
    /// Won: hand to the backends, in order, every output that was not forgotten.
    EmitHeld,
    /// Announce the MAC address on the network.
    Announce,
}

/// How the backup ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackupEnd {
    /// Let the vCPU go on from live inputs, and let outputs out as they come.
    Live {
        /// The generation that was won.
        generation: u64,
    },
    /// Stop for good; emit nothing.
    Halt(HaltReason),
    /// The guest has ended and everything is done.
    Finish {
        /// False if the arbiter was not reached: the next cold start will have to be forced.
        closed: bool,
    },
}

impl From<BackupQuestion> for BackupAction {
    fn from(question: BackupQuestion) -> BackupAction {
        BackupAction::Ask(question)
    }
}

impl From<Build> for BackupAction {
    fn from(build: Build) -> BackupAction {
        BackupAction::Build(build)
    }
}

impl From<BackupTurn> for BackupAction {
    fn from(turn: BackupTurn) -> BackupAction {
        BackupAction::Turn(turn)
    }
}

impl From<BackupEnd> for BackupAction {
    fn from(end: BackupEnd) -> BackupAction {
        BackupAction::End(end)
    }
}
