//! The content of a log: a header, and entries that each belong to a position.

use super::machine::MachineConfig;
use bincode::{Decode, Encode};
use std::fmt;

/// A point in the guest's execution: how many exits the guest has caused, and how many branch edges its
/// instrumentation had counted by then.
///
/// Exit 0 is before the first instruction. Position `n` is after exit `n` was handled and before the
/// guest runs on; there inputs are applied and interrupts delivered. The exit alone says where that is.
/// The edges say how far the guest computed to get there: so a divergence inside a computation shows,
/// and also how much work lies around it. The edges are 0 where they are not known yet, so `exit(n)` is
/// at or before everything that happens at exit `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Position {
    /// Exits caused by the guest.
    pub exit: u64,
    /// What the machine counts ([`super::Counts`]): branch edges, 0 for a guest without instrumentation; or
    /// instructions.
    pub edges: u64,
}

impl Position {
    /// Before the first instruction.
    pub const START: Position = Position::exit(0);

    /// The beginning of what happens at exit `exit`.
    pub const fn exit(exit: u64) -> Position {
        Position { exit, edges: 0 }
    }

    /// One exit later.
    pub fn next(self) -> Position {
        Position::exit(self.exit + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.exit, self.edges)
    }
}

/// RIP and a hash of the registers when an entry was made: a divergence shows at the first entry after
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Check {
    /// Instruction pointer.
    pub rip: u64,
    /// Hash of the general registers and the flags.
    pub regs: u32,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Entry {
    /// The position to which it belongs. Positions never go down within a log.
    pub at: Position,
    /// The vCPU at that position. `None` if another thread made the entry ([`Event::Progress`]).
    pub check: Option<Check>,
    /// What happened.
    pub event: Event,
}

/// What can happen at a position.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Event {
    /// Input: guest time is now this many nanoseconds. The 8254 expires by it too, so a timer expiry
    /// needs no entry.
    Clock {
        /// Nanoseconds since boot; never less than before.
        ns: u64,
    },
    /// Input: virtio-net received a frame (Ethernet, without the virtio header and the FCS).
    Frame {
        /// The frame's bytes.
        data: Vec<u8>,
    },
    /// Input: the console received bytes.
    ConsoleInput {
        /// The bytes.
        data: Vec<u8>,
    },
    /// Input: virtio-rng received random bytes.
    Entropy {
        /// The bytes.
        data: Vec<u8>,
    },
    /// Answer, consumed in order at the exit that asked: the time, for a device that needed it to
    /// handle the exit.
    Time {
        /// Nanoseconds since boot.
        ns: u64,
    },
    /// Marker: the guest emitted an output.
    Output(OutputMark),
    /// Marker: an interrupt was handed to the vCPU.
    Interrupt {
        /// Its vector.
        vector: u8,
    },
    /// Marker: all entries that belong before this position are in the log.
    Progress,
    /// Marker: the state of the whole machine.
    Digest(MachineDigest),
    /// Marker: a control operation.
    Control(Control),
    /// Marker: the log's last entry.
    End(End),
}

/// An output, as it is recorded in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct OutputMark {
    /// Outputs are numbered from 1 over the whole life of a VM.
    pub number: u64,
    /// Where it goes.
    pub port: OutputPort,
    /// Its length, bytes.
    pub len: u32,
    /// xxh3-64 of its bytes.
    pub hash: u64,
}

/// Where an output leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum OutputPort {
    /// A frame sent by virtio-net.
    Net,
    /// Bytes written to the console (16550 or virtio-console).
    Console,
}

/// Digests of a machine's state, by component, so that a mismatch can be named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct MachineDigest {
    /// Guest RAM.
    pub ram: u64,
    /// vCPU state, without what no replay can reproduce (TSC, KVM's paravirtual MSRs).
    pub cpu: u64,
    /// Device models.
    pub devices: u64,
}

impl fmt::Display for MachineDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:016x}-{:016x}-{:016x}",
            self.ram, self.cpu, self.devices
        )
    }
}

/// Operations that both sides must see at the same position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Control {
    /// A survivor took over here and runs on alone in this generation.
    GoLive {
        /// The generation it won.
        generation: u64,
    },
}

/// The last entry of a log that was not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// The machine at the end.
    pub digest: MachineDigest,
}

/// Why a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum EndReason {
    /// The guest ended with this status.
    Exited {
        /// Exit status.
        status: u32,
    },
    /// The guest can never run again: it halted with interrupts off, or its CPU shut down.
    Dead,
    /// The operator stopped the machine.
    Stopped,
    /// The guest reset its machine.
    Reset,
}

/// What must be equal for a log to have the same meaning. It comes first in a log and in the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Header {
    /// Name of the VM.
    pub vm: String,
    /// The machine.
    pub machine: MachineConfig,
    /// The guest program.
    pub guest: GuestImage,
    /// The host on which the log was made.
    pub host: HostPrint,
    /// When the log was started, nanoseconds since 1970.
    pub started_ns: u64,
}

/// Where a log begins: at its machine's first instruction, or at a checkpoint of a machine that ran
/// before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct LogStart {
    /// Sequence number of the last entry before the log; the log's first entry has the next number.
    pub seq: u64,
    /// Number of the last output before the log.
    pub outputs: u64,
    /// The position of the machine then.
    pub at: Position,
}

/// The guest image, by name and content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct GuestImage {
    /// Name or path, as the user gave it.
    pub name: String,
    /// xxh3-128 of the ELF file.
    pub hash: u128,
}

/// The properties of a host on which a log depends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct HostPrint {
    /// Hash of the exit trace of a self-test guest: positions mean the same on hosts where it is equal.
    pub exits: u64,
    /// Vendor, family, model and stepping of the CPU.
    pub cpu: String,
}

/// How the name of a software CPU begins, whatever its model is. No processor's maker has such a name.
pub const SOFTWARE_CPU: &str = "Lockstep x86-64 software processor";

impl HostPrint {
    /// Do guests run in software there? The name tells, so that every version of Hello does.
    pub fn is_software(&self) -> bool {
        self.cpu.starts_with(SOFTWARE_CPU)
    }
}
