//! The pure machine: a vCPU, RAM and device models on one thread, between a [`Source`] and a
//! [`Sink`].
//!
//! It never reads a clock, a socket, a file or a random number. Its state after `n` exits is a function
//! of its initial state and of the inputs that its source gave it until then, and of nothing else
//! (invariant I1; shown by `tests/e2e/replay.rs`).

pub mod bus;
pub mod drive;
pub mod edge;
pub mod fingerprint;
pub mod state;
pub mod world;

pub use drive::{DriveError, drive};
pub use edge::{Input, Moment, Next, Sink, Source, View, Wait};
pub use fingerprint::host_print;
pub use state::{MachineState, Parts, StateError};

use bincode::{Decode, Encode};
use bus::Bus;
use ft_protocol::log::{Check, EndReason, MachineConfig, MachineDigest, Position};
use lockstep_devices::{InputKind, Output};
use lockstep_loader::{Image, ImageError, LoadError};
use lockstep_memory::{Ram, RamDigest, RamError};
use lockstep_pulse::Pulse;
use lockstep_vcpu::{CpuBackends, CpuError, DirtyReader, Exit, Run, Vcpu};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// After so many exits in a row at which an interrupt waited and the guest could not take it, a warning is due.
const UNHEARD_EXITS: u32 = 10_000;

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

/// How [`Machine::enter`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// At the next position.
    Arrived,
    /// By a signal, which is no position: nothing changed, the guest is to be entered again.
    Kicked,
}

/// What the guest waits for, if it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
enum Waiting {
    No,
    /// HLT with interrupts on.
    Halted,
    /// OUT to the idle port.
    Idle {
        seen: u32,
    },
}

impl Waiting {
    /// What it is, and what the guest has seen.
    fn words(self) -> [u64; 2] {
        match self {
            Waiting::No => [0, 0],
            Waiting::Halted => [1, 0],
            Waiting::Idle { seen } => [2, u64::from(seen)],
        }
    }
}

/// What is told of the vCPU at a position. Finishing its instruction changes RIP on some hosts and may
/// end an interrupt's shadow; what is told stays, so that all who follow are told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Arrival {
    check: Check,
    /// Would it take an interrupt?
    ready: bool,
    /// Its digest, if its instruction was finished since.
    digest: Option<u64>,
}

impl Arrival {
    fn of(cpu: &mut dyn Vcpu) -> Arrival {
        Arrival {
            check: cpu.check(),
            ready: cpu.ready(),
            digest: None,
        }
    }
}

/// A virtual machine with one vCPU.
#[derive(Debug)]
pub struct Machine {
    // Declared, and so dropped, before the RAM that it runs on.
    cpu: Box<dyn Vcpu>,
    ram: Ram,
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
    /// An exit that cannot be handled before the source gives the time.
    unhandled: Option<Exit>,
    ram_digest: RamDigest,
    /// Which pages to read again for the next digest.
    dirty: DirtyReader,
    outputs: Vec<Output>,
    pulse: Pulse,
    /// Exits in a row at which an interrupt waited and the guest could not take it. Not a part of the
    /// state.
    unheard: u32,
}

impl Machine {
    /// Builds the machine and loads its guest. All that happens afterwards depends on `config`, `image`
    /// and the inputs alone.
    pub fn new(
        cpus: CpuBackends,
        config: &MachineConfig,
        image: &Image,
    ) -> Result<Machine, MachineError> {
        let ram = Ram::new(config.mem_mib)?;
        lockstep_loader::prepare(&ram, config, image)?;
        let start = lockstep_loader::start_state(image.entry());
        let mut cpu = cpus(config.cpu).cpu(ram.clone(), &start)?;
        Ok(Machine {
            bus: Bus::new(config, &ram),
            at: Position::START,
            left: false,
            arrived: Arrival::of(&mut *cpu),
            settled: false,
            waiting: Waiting::No,
            ended: None,
            unhandled: None,
            // The memory was all zeros when it was mapped: only pages that were written since must be
            // read.
            ram_digest: RamDigest::zeroed(ram.pages()),
            dirty: cpu.dirty_pages().reader_of_all_writes(),
            outputs: Vec::new(),
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
        cpus: CpuBackends,
        config: &MachineConfig,
        ram: Ram,
        digest: RamDigest,
        state: &MachineState,
    ) -> Result<Machine, MachineError> {
        state.validate(config, &ram, &digest)?;
        let bus = Bus::restore(config, &state.devices, &ram).map_err(StateError::Device)?;
        let cpu = cpus(config.cpu).cpu(ram.clone(), &state.cpu)?;
        Ok(Machine {
            bus,
            at: state.at,
            left: state.left,
            arrived: state.arrived,
            settled: true,
            waiting: state.waiting,
            ended: None,
            unhandled: None,
            ram_digest: digest,
            dirty: cpu.dirty_pages().reader_from_now()?,
            outputs: Vec::new(),
            pulse: Pulse::default(),
            unheard: 0,
            cpu,
            ram,
        })
    }

    /// The machine's state, less its memory.
    ///
    /// # Panics
    /// Unless the vCPU's instruction is finished ([`Machine::settle`]) and nothing at this position is
    /// under way: as in [`Source::take_state`].
    pub fn save(&mut self) -> Result<MachineState, MachineError> {
        assert!(self.settled && self.outputs.is_empty());
        self.look()
    }

    /// A digest of each part, wherever the machine is: to be compared, with one at the same position, and
    /// never restored. The vCPU's instruction may not be complete, as in [`Machine::digest`].
    pub fn parts(&mut self) -> Result<Parts, MachineError> {
        let memory = self.memory_digest()?;
        Ok(self.look()?.parts(memory))
    }

    /// The digest of its memory.
    pub fn memory_digest(&mut self) -> Result<u64, MachineError> {
        let dirty = self.dirty.take()?;
        let pulse = &self.pulse;
        let beat = || pulse.beat();
        Ok(self.ram_digest.update(&self.ram, &dirty, &beat))
    }

    /// The state as it is, complete or not.
    fn look(&mut self) -> Result<MachineState, MachineError> {
        Ok(MachineState {
            at: self.at,
            left: self.left,
            arrived: self.arrived,
            waiting: self.waiting,
            cpu: self.cpu.save()?,
            devices: self.bus.save(),
        })
    }

    /// Finishes the vCPU's instruction. False if that took another exit: the machine is at the next
    /// position, as after [`Machine::enter`].
    ///
    /// # Panics
    /// Unless the position was left, or the guest waits there.
    pub fn settle(&mut self) -> Result<bool, MachineError> {
        assert!(self.unhandled.is_none() && self.ended.is_none());
        assert!(self.left || self.waiting != Waiting::No);
        if !self.left && self.arrived.digest.is_none() {
            self.arrived.digest = Some(self.cpu.save()?.digest());
        }
        match self.cpu.settle()? {
            Run::Kicked => {
                self.settled = true;
                Ok(true)
            }
            Run::Exit(exit) => {
                self.arrive(exit);
                Ok(false)
            }
        }
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
        self.pulse = pulse;
    }

    /// The pulse on which the machine's thread beats.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
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

    /// Applies an input at the current position.
    pub fn apply(&mut self, input: Input) {
        match input {
            Input::Clock { ns } => self.bus.set_time(ns, &self.ram),
            Input::Frame { data } => self.bus.receive(InputKind::Frame, data, &self.ram),
            Input::Console { data } => self.bus.receive(InputKind::Console, data, &self.ram),
            Input::Entropy { data } => self.bus.receive(InputKind::Entropy, data, &self.ram),
        }
        self.bus.process(&self.ram, &mut self.outputs);
    }

    /// Hands the vCPU at most one interrupt (the injection rule of `docs/determinism.md`). Called once per
    /// position, when all of its inputs are applied. Returns the vector handed over.
    pub fn inject(&mut self) -> Result<Option<u8>, MachineError> {
        assert!(!self.left);
        let ready = self.arrived.ready;
        let mut vector = None;
        if self.bus.pic.requests() && ready {
            let acknowledged = self.bus.pic.acknowledge();
            self.cpu.deliver(acknowledged)?;
            vector = Some(acknowledged);
        }
        // Whatever still waits is handed over at a later exit of the guest's own. KVM's interrupt windows
        // are not used: on some hosts one opens at an arbitrary instruction.
        if self.bus.pic.requests() {
            self.bus.edges.hurry(&self.ram);
        }
        self.note_unheard(vector.is_none() && self.bus.pic.requests());
        self.waiting = Waiting::No;
        self.left = true;
        Ok(vector)
    }

    /// A guest that never exits with interrupts on gets none: its user should know.
    fn note_unheard(&mut self, unheard: bool) {
        self.unheard = if unheard {
            self.unheard.saturating_add(1)
        } else {
            0
        };
        if self.unheard == UNHEARD_EXITS {
            tracing::warn!(
                "the guest had interrupts off at each of its last {UNHEARD_EXITS} exits (now at {}) while one \
                 waited, and takes them at exits only: have it turn them on at one",
                self.at
            );
        }
    }

    /// Runs the guest to its next exit and handles it, unless that takes the time
    /// ([`Machine::asks_time`]).
    pub fn enter(&mut self) -> Result<Entered, MachineError> {
        assert!(self.left && self.unhandled.is_none() && self.ended.is_none());
        self.pulse.in_guest(true);
        let run = self.cpu.run()?;
        self.pulse.in_guest(false);
        match run {
            Run::Kicked => Ok(Entered::Kicked),
            Run::Exit(exit) => {
                self.arrive(exit);
                Ok(Entered::Arrived)
            }
        }
    }

    /// The guest made this exit: a position.
    fn arrive(&mut self, exit: Exit) {
        self.pulse.position();
        (self.left, self.settled) = (false, false);
        self.arrived = Arrival::of(&mut *self.cpu);
        self.at = Position {
            exit: self.at.exit + 1,
            edges: self.bus.edges.passed(&self.ram),
        };
        if self.bus.needs_time(&exit) {
            self.unhandled = Some(exit);
        } else {
            self.handle(exit);
        }
    }

    /// Does a device model need the time to handle the last exit?
    pub fn asks_time(&self) -> bool {
        self.unhandled.is_some()
    }

    /// Gives the time that [`Machine::asks_time`] asked for, nanoseconds since boot.
    pub fn answer_time(&mut self, ns: u64) {
        let exit = self.unhandled.take().expect("the machine asked");
        self.bus.set_time(ns, &self.ram);
        self.handle(exit);
    }

    fn handle(&mut self, exit: Exit) {
        match exit {
            Exit::PioOut { port, data, len } => match port {
                lockstep_abi::port::IDLE => {
                    let seen = u32::from_le_bytes(data);
                    self.waiting = Waiting::Idle { seen };
                }
                lockstep_abi::port::QUANTUM => self.bus.edges.grant(&self.ram),
                lockstep_abi::port::EXIT => {
                    let status = u32::from_le_bytes(data);
                    self.ended = Some(EndReason::Exited { status });
                }
                _ => self.bus.pio_write(port, &data[..len], &self.ram),
            },
            Exit::PioIn { port, len } => {
                let mut data = [0; 4];
                self.bus.pio_read(port, &mut data[..len], &self.ram);
                self.cpu.answer(&data[..len]);
            }
            Exit::MmioWrite { addr, data, len } => {
                self.bus.mmio_write(addr, &data[..len], &self.ram);
            }
            Exit::MmioRead { addr, len } => {
                let mut data = [0; 8];
                self.bus.mmio_read(addr, &mut data[..len], &self.ram);
                self.cpu.answer(&data[..len]);
            }
            // A debug exception that is due ends the halt at once (SDM vol. 2A, HLT).
            Exit::Hlt if self.cpu.exception_due() => {}
            Exit::Hlt if self.cpu.interrupts_enabled() => self.waiting = Waiting::Halted,
            Exit::Hlt | Exit::Shutdown => self.ended = Some(EndReason::Dead),
        }
        self.bus.process(&self.ram, &mut self.outputs);
    }

    /// What the guest emitted since the last call, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The digest of the whole machine.
    ///
    /// The instruction that exited may not be complete (an IN still waits for its value to reach the
    /// register). It is not completed here: a digest is compared, never restored, and at the same
    /// position it is as incomplete on every host of the same flavour. One that was completed for a
    /// state is digested as it was before.
    pub fn digest(&mut self) -> Result<MachineDigest, MachineError> {
        let ram = self.memory_digest()?;
        let cpu = match self.arrived.digest {
            Some(digest) => digest,
            None => self.cpu.save()?.digest(),
        };
        Ok(MachineDigest {
            ram,
            cpu,
            devices: self.bus.save().digest(),
        })
    }
}

/// Hash of an output's bytes, for [`ft_protocol::log::OutputMark`].
pub fn output_hash(data: &[u8]) -> u64 {
    xxh3_64(data)
}
