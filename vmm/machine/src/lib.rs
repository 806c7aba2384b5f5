//! The pure machine: a vCPU, RAM and device models on one thread, between a [`Source`] and a
//! [`Sink`].
//!
//! It never reads a clock, a socket, a file or a random number. Its state after `n` exits is a function
//! of its initial state and of the inputs that its source gave it until then, and of nothing else
//! (invariant I1; shown by `tests/e2e/replay.rs`).

mod arrival;
pub mod bus;
pub mod drive;
pub mod edge;
pub mod fingerprint;
mod look;
pub mod made_up;
mod run;
pub mod state;
pub mod world;

pub use drive::{DriveError, drive};
pub use edge::{Input, Moment, Next, Sink, Source, View, Wait};
pub use fingerprint::host_print;
pub use run::Entered;
pub use state::{MachineState, Parts, StateError};

use arrival::{Arrival, Waiting};
use bus::Bus;
use ft_protocol::log::{BootProtocol, Counts, CpuKind, EndReason, MachineConfig, Position};
use lockstep_devices::{InputKind, Outputs};
use lockstep_loader::{Image, ImageError, LoadError};
use lockstep_memory::{Ram, RamDigest, RamError};
use lockstep_pulse::Pulse;
use lockstep_vcpu::{CpuBackend, CpuError, DirtyReader, Exit, Vcpu};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Why a machine cannot start or go on.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The vCPU.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The guest image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A state that no machine of this configuration can be in.
    #[error(transparent)]
    State(#[from] StateError),
    /// The CPU does not count instructions.
    #[error("the machine counts instructions, which KVM does not: use --cpu soft or auto")]
    NotCounted,
    /// The self-test guest did not end.
    #[error(
        "this host's KVM does not run the self-test guest to its end; use a host on which it does"
    )]
    SelfTest,
}

impl From<LoadError> for MachineError {
    fn from(error: LoadError) -> MachineError {
        match error {
            LoadError::Image(error) => error.into(),
            LoadError::Ram(error) => error.into(),
        }
    }
}

/// A virtual machine with one vCPU.
#[derive(Debug)]
pub struct Machine {
    // Declared, and so dropped, before the RAM that it runs on.
    cpu: Box<dyn Vcpu>,
    ram: Ram,
    counts: Counts,
    boot: BootProtocol,
    quantum: u64,
    bus: Bus,
    at: Position,
    /// Everything at this position is done; the next step is to enter the guest.
    left: bool,
    /// The vCPU as it arrived at this position, even if its instruction was completed since.
    arrived: Arrival,
    /// Its instruction was completed, so that its state is complete.
    settled: bool,
    waiting: Waiting,
    ended: Option<EndReason>,
    /// As in the view.
    accesses: bool,
    /// An exit that cannot be handled before the source gives the time.
    unhandled: Option<Exit>,
    ram_digest: RamDigest,
    /// Which pages to read again for the next digest.
    dirty: DirtyReader,
    outputs: Outputs,
    pulse: Pulse,
    /// Exits in a row at which an interrupt waited and the guest could not take it. Not a part of the
    /// state.
    unheard: u32,
}

impl Machine {
    /// Builds the machine and loads its guest. All that happens afterwards depends on `config`, `image`
    /// and the inputs alone.
    pub fn new(
        backend: &dyn CpuBackend,
        config: &MachineConfig,
        image: &Image,
    ) -> Result<Machine, MachineError> {
        suits(backend, config, image)?;
        let ram = Ram::new(config.mem_mib)?;
        let start = lockstep_loader::prepare(&ram, config, image)?;
        let mut cpu = backend.cpu(ram.clone(), &start)?;
        Ok(Machine {
            counts: config.counts,
            boot: config.boot,
            quantum: config.quantum,
            bus: Bus::new(config, &ram),
            at: Position::START,
            left: false,
            arrived: Arrival::of(&mut *cpu),
            settled: false,
            waiting: Waiting::No,
            ended: None,
            accesses: false,
            unhandled: None,
            // The memory was all zeros when it was mapped: only pages that were written since must be
            // read.
            ram_digest: RamDigest::zeroed(ram.pages()),
            dirty: cpu.dirty_pages().reader_of_all_writes(),
            outputs: Outputs::default(),
            pulse: Pulse::default(),
            unheard: 0,
            cpu,
            ram,
        })
    }

    /// A machine of this configuration in this state, with `ram` as its memory and `digest` as that
    /// memory's digest. The state may come from an untrusted peer or file. Whether it is the right one
    /// must be checked by comparing the components' digests.
    pub fn restore(
        backend: &dyn CpuBackend,
        config: &MachineConfig,
        ram: Ram,
        digest: RamDigest,
        state: &MachineState,
    ) -> Result<Machine, MachineError> {
        state.validate(config, &ram, &digest)?;
        let bus = Bus::restore(config, &state.devices, &ram).map_err(StateError::Device)?;
        let cpu = backend.cpu(ram.clone(), &state.cpu)?;
        Ok(Machine {
            counts: config.counts,
            boot: config.boot,
            quantum: config.quantum,
            bus,
            at: state.at,
            left: state.left,
            arrived: state.arrived,
            settled: true,
            waiting: state.waiting,
            ended: None,
            accesses: false,
            unhandled: None,
            ram_digest: digest,
            dirty: cpu.dirty_pages().reader_from_now()?,
            outputs: Outputs::default(),
            pulse: Pulse::default(),
            unheard: 0,
            cpu,
            ram,
        })
    }

    /// Was the position left, so that nothing more may happen at it?
    pub fn left(&self) -> bool {
        self.left
    }

    /// A reader that reports which pages are written, by the guest or by the machine. It may be used on
    /// any thread, while the guest runs.
    pub fn dirty_pages(&self) -> DirtyReader {
        self.cpu.dirty_pages().reader()
    }

    /// Sets the pulse on which the machine's thread beats. It is not a part of the machine's state.
    pub fn set_pulse(&mut self, pulse: Pulse) {
        self.cpu.heed(pulse.kick());
        self.pulse = pulse;
    }

    /// The pulse on which the machine's thread beats.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Is the guest's console a serial line, and no text that ends?
    pub fn has_line(&self) -> bool {
        match self.boot {
            BootProtocol::LockstepAbi => false,
            BootProtocol::Linux => true,
        }
    }

    /// Its memory.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Where the guest is.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The position, and RIP and a hash of the registers there.
    pub fn moment(&self) -> Moment {
        Moment {
            at: self.at,
            check: self.arrived.check,
        }
    }

    /// What a source needs to know to choose the next input.
    pub fn view(&mut self) -> View {
        View {
            moment: self.moment(),
            wait: self.wait(),
            ended: self.ended,
            now_ns: self.bus.clock.now_ns(),
            next_edge_ns: self.bus.next_edge_ns(),
            accesses: self.accesses,
            net_room: self.bus.room(InputKind::Frame),
            console_room: self.bus.room(InputKind::Console),
            entropy_wanted: self.bus.room(InputKind::Entropy),
        }
    }

    /// Until when the guest waits, if it waits and nothing that it waits for has come yet.
    fn wait(&self) -> Option<Wait> {
        let interrupt = self.bus.pic.requests() && self.arrived.ready;
        let wake_ns = match self.waiting {
            Waiting::No => return None,
            Waiting::Halted => u64::MAX,
            Waiting::Idle { seen } => {
                if self.bus.clock.news_since(seen) {
                    return None;
                }
                self.bus.clock.wake_at(&self.ram)
            }
        };
        if self.ended.is_some() || interrupt || wake_ns <= self.bus.clock.now_ns() {
            return None;
        }
        Some(Wait {
            until_ns: wake_ns.min(self.edge_that_ends_it()),
        })
    }

    /// Guest time of the next edge that can end the guest's wait, nanoseconds; `u64::MAX` if there is
    /// none. A guest that idles is woken by every edge. A guest that halts is woken by an interrupt
    /// that it would take.
    fn edge_that_ends_it(&self) -> u64 {
        let edge = match self.waiting {
            Waiting::Idle { .. } => self.bus.next_edge_ns(),
            Waiting::Halted if self.arrived.ready => self.bus.next_interrupt_ns(),
            Waiting::Halted | Waiting::No => None,
        };
        edge.unwrap_or(u64::MAX)
    }
}

/// Can this kind of CPU run this machine with this guest?
///
/// # Errors
/// If it does not count what the machine's positions do, or cannot keep the guest from what no replay
/// reproduces.
pub fn suits(
    backend: &dyn CpuBackend,
    config: &MachineConfig,
    image: &Image,
) -> Result<(), MachineError> {
    match (backend.kind(), config.counts) {
        (CpuKind::Kvm, Counts::Instructions) => Err(MachineError::NotCounted),
        (CpuKind::Kvm, Counts::BranchEdges) => Ok(image.check_instructions()?),
        (CpuKind::Soft { .. }, Counts::BranchEdges | Counts::Instructions) => Ok(()),
    }
}

/// Hash of an output's bytes, for [`ft_protocol::log::OutputMark`].
pub fn output_hash(data: &[u8]) -> u64 {
    xxh3_64(data)
}
