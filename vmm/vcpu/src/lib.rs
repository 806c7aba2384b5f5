//! What a machine needs of a virtual CPU, and nothing of how one is made.
//!
//! Each CPU backend is a crate that implements [`Vcpu`] and [`CpuBackend`].

pub mod dirty;
pub mod state;

pub use dirty::{DirtyPages, DirtyReader, DirtySource};
pub use state::CpuState;

use ft_protocol::log::{Check, CpuKind};
use lockstep_memory::Ram;
use std::fmt::Debug;
use thiserror::Error;

/// What can go wrong with a CPU. The sentences are the backend's.
#[derive(Debug, Error)]
pub enum CpuError {
    /// The host cannot run this kind of CPU at all.
    #[error("{0}")]
    Unavailable(String),
    /// The host refused something.
    #[error("{0}")]
    Host(String),
    /// The CPU cannot be put into this state.
    #[error("{0}")]
    State(String),
    /// The CPU cannot run what the guest does.
    #[error("the CPU cannot continue the guest at {rip:#x}: {what}")]
    Guest {
        /// Where.
        rip: u64,
        /// What the guest did.
        what: String,
    },
}

/// An exit that the guest caused. These, and only these, are counted as positions.
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
}

/// How the guest was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// By the guest's doing.
    Exit(Exit),
    /// By a signal or a kick: no position, nothing changed.
    Kicked,
}

/// A virtual CPU, with the memory that it runs on.
///
/// # How to drive it
///
/// [`Vcpu::run`] enters the guest until it exits. An IN or an MMIO read is answered before the next
/// `run`. [`Vcpu::deliver`] hands over an interrupt where [`Vcpu::ready`] says so, at most one between
/// two runs. The state is complete, and may be saved to be restored elsewhere, once [`Vcpu::settle`]
/// has said [`Run::Kicked`].
pub trait Vcpu: Debug + Send {
    /// Runs the guest until it exits, or the thread is kicked.
    fn run(&mut self) -> Result<Run, CpuError>;

    /// Gives the value of the IN or MMIO read that the last [`Vcpu::run`] returned.
    ///
    /// # Panics
    /// If there was none of this length.
    fn answer(&mut self, data: &[u8]);

    /// Finishes the instruction that exited, as far as that takes no other exit: an IN's value reaches its
    /// register, and RIP passes the instruction. [`Run::Kicked`]: done, the guest has not run on.
    fn settle(&mut self) -> Result<Run, CpuError>;

    /// Would an interrupt handed over now be taken before the next guest instruction?
    fn ready(&mut self) -> bool;

    /// Hands over one interrupt, to be taken on the next [`Vcpu::run`].
    ///
    /// # Panics
    /// If an earlier one still waits.
    fn deliver(&mut self, vector: u8) -> Result<(), CpuError>;

    /// Are interrupts enabled (RFLAGS.IF)?
    fn interrupts_enabled(&mut self) -> bool;

    /// Is an exception under way that the guest has not taken yet?
    fn exception_due(&mut self) -> bool;

    /// A cheap look at the registers.
    fn check(&self) -> Check;

    /// The state; complete once it is settled.
    fn save(&self) -> Result<CpuState, CpuError>;

    /// Which pages were written, by the guest or by the VMM.
    fn dirty_pages(&self) -> &DirtyPages;
}

/// Makes CPUs of one kind.
pub trait CpuBackend: Debug + Send + Sync {
    /// A CPU in this state, which may have come from anybody, on this memory.
    fn cpu(&self, ram: Ram, state: &CpuState) -> Result<Box<dyn Vcpu>, CpuError>;

    /// What this host's CPU calls itself.
    fn host_cpu(&self) -> String;
}

/// The backends of a program: who makes CPUs of which kind.
pub type CpuBackends = fn(CpuKind) -> &'static dyn CpuBackend;
