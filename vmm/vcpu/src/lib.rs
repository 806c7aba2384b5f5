//! What a machine needs of a virtual CPU, and nothing about how one is implemented.
//!
//! Each CPU backend is a crate that implements [`Vcpu`] and [`CpuBackend`].

mod choice;
pub mod debug;
pub mod dirty;
pub mod state;

pub use choice::Cpus;
pub use debug::DebugCpu;
pub use dirty::{DirtyPages, DirtyReader, DirtySource};
pub use state::CpuState;

use ft_protocol::log::{Check, CpuKind};
use lockstep_memory::Ram;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;

/// What can go wrong with a CPU. The backend writes the sentences for the user.
#[derive(Debug, Error)]
pub enum CpuError {
    /// The host cannot run this kind of CPU at all.
    #[error("{0}")]
    Unavailable(String),
    /// The host refused a request, like an ioctl.
    #[error("{0}")]
    Host(String),
    /// The CPU cannot be put into this state.
    #[error("{0}")]
    State(String),
    /// The CPU cannot run what the guest does.
    #[error("the CPU cannot continue the guest at {rip:#x}: {what}")]
    Guest {
        /// Address of the instruction.
        rip: u64,
        /// What the guest did.
        what: String,
    },
}

/// An exit: one that the guest caused, or one that the CPU made where [`Until`] says. These, and only these,
/// are counted as positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// OUT.
    PioOut {
        /// I/O port.
        port: u16,
        /// The value, little-endian.
        data: [u8; 4],
        /// Its length: 1, 2 or 4 bytes.
        len: usize,
    },
    /// IN; [`Vcpu::answer`] gives the value.
    PioIn {
        /// I/O port.
        port: u16,
        /// Length, bytes.
        len: usize,
    },
    /// A write outside RAM.
    MmioWrite {
        /// Guest-physical address.
        addr: u64,
        /// The bytes.
        data: [u8; 8],
        /// How many, up to 8.
        len: usize,
    },
    /// A read outside RAM; [`Vcpu::answer`] gives the value.
    MmioRead {
        /// Guest-physical address.
        addr: u64,
        /// Length, bytes.
        len: usize,
    },
    /// HLT.
    Hlt,
    /// Triple fault.
    Shutdown,
    /// [`Until::steps`] steps are made.
    Steps,
    /// The guest takes interrupts ([`Until::interruptible`]).
    Interruptible,
}

impl Exit {
    /// Does the guest read or write a device?
    pub fn is_access(&self) -> bool {
        match self {
            Exit::PioOut { .. }
            | Exit::PioIn { .. }
            | Exit::MmioWrite { .. }
            | Exit::MmioRead { .. } => true,
            Exit::Hlt | Exit::Shutdown | Exit::Steps | Exit::Interruptible => false,
        }
    }
}

/// Where the CPU makes an exit by itself, besides those that the guest causes. Only a CPU that counts
/// instructions can do so, at the same place every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// When this many steps were made in all ([`Vcpu::steps`]).
    pub steps: u64,
    /// As soon as [`Vcpu::ready`] is true.
    pub interruptible: bool,
}

impl Until {
    /// The guest's own exits alone.
    pub const GUEST: Until = Until {
        steps: u64::MAX,
        interruptible: false,
    };
}

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The guest caused an exit.
    Exit(Exit),
    /// A signal or a kick interrupted the guest. This does not count as a position; the next run goes
    /// on.
    Kicked,
}

/// A virtual CPU, with the memory that it runs on.
///
/// # How to drive it
///
/// [`Vcpu::run`] enters the guest until it exits. An IN or an MMIO read must be answered before the
/// next `run`. [`Vcpu::deliver`] hands over an interrupt when [`Vcpu::ready`] is true, at most one
/// between two runs. Before [`Vcpu::save`], [`Vcpu::settle`] must have returned [`Run::Kicked`]: only
/// then is the state complete.
pub trait Vcpu: Debug + Send {
    /// Runs the guest until there is an exit or the thread is kicked.
    ///
    /// # Panics
    /// If the CPU does not count instructions and `until` is not [`Until::GUEST`].
    fn run(&mut self, until: Until) -> Result<Run, CpuError>;

    /// Instructions that the guest completed, and iterations of those that repeat; 0 where the CPU does not
    /// count them.
    fn steps(&self) -> u64;

    /// Guest time goes on by so many nanoseconds without a step: so does the time-stamp counter, which counts a
    /// nanosecond for each step. A CPU that does not count steps has no such counter, and does nothing.
    fn pass(&mut self, ns: u64);

    /// From now on the thread is kicked when this is true: [`Vcpu::run`] makes it false and returns. A CPU
    /// that a signal kicks need not look.
    fn heed(&mut self, kick: Arc<AtomicBool>);

    /// Gives the value of the IN or MMIO read that the last [`Vcpu::run`] returned.
    ///
    /// # Panics
    /// If that run returned no such read, or one of another length.
    fn answer(&mut self, data: &[u8]);

    /// Completes the instruction that exited, without running the guest further: the value of an IN
    /// reaches its register, and RIP moves past the instruction. [`Run::Kicked`] means that it is
    /// complete; [`Run::Exit`], that completing it caused one more exit.
    fn settle(&mut self) -> Result<Run, CpuError>;

    /// Would an interrupt handed over now be taken before the next guest instruction?
    fn ready(&mut self) -> bool;

    /// Hands over one interrupt, to be taken on the next [`Vcpu::run`].
    ///
    /// # Panics
    /// If an earlier interrupt was not taken yet.
    fn deliver(&mut self, vector: u8) -> Result<(), CpuError>;

    /// Are interrupts enabled (RFLAGS.IF)?
    fn interrupts_enabled(&mut self) -> bool;

    /// Is an exception under way that the guest has not taken yet?
    fn exception_due(&mut self) -> bool;

    /// RIP and a hash of the general registers, cheap enough for every entry of the log.
    fn check(&self) -> Check;

    /// The whole state. It is complete only after [`Vcpu::settle`].
    fn save(&self) -> Result<CpuState, CpuError>;

    /// Which pages were written, by the guest or by the VMM.
    fn dirty_pages(&self) -> &DirtyPages;

    /// The way in for a debugger, on a CPU that has one.
    fn debugged(&mut self) -> Option<&mut dyn DebugCpu> {
        None
    }
}

/// Makes CPUs of one kind.
pub trait CpuBackend: Debug + Send + Sync {
    /// The kind.
    fn kind(&self) -> CpuKind;

    /// Can CPUs be made here?
    fn available(&self) -> Result<(), CpuError>;

    /// Makes a CPU in this state, on this memory. The state may come from an untrusted peer or file.
    fn cpu(&self, ram: Ram, state: &CpuState) -> Result<Box<dyn Vcpu>, CpuError>;

    /// The CPU's vendor, family, model and stepping, in words: the host's, if instructions run on that.
    fn host_cpu(&self) -> String;
}
