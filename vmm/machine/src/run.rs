//! What a machine does: takes inputs and an interrupt at a position, enters the guest, and handles its exit.

use super::{Arrival, Input, Machine, MachineError, Waiting};
use ft_protocol::log::{BootProtocol, Counts, EndReason, Position};
use lockstep_devices::{InputKind, Output};
use lockstep_vcpu::{Exit, Run, Until};

/// A warning is due when at this many exits in a row an interrupt waited and the guest could not take
/// it.
const UNHEARD_EXITS: u32 = 10_000;

/// Why [`Machine::enter`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The guest is at its next position.
    Arrived,
    /// A signal interrupted the guest, which is not a position: the machine must be entered again.
    Kicked,
}

impl Machine {
    /// Applies an input at the current position.
    pub fn apply(&mut self, input: Input) {
        let (kind, data) = match input {
            Input::Clock { ns } => {
                self.set_time(ns);
                return self.bus.process(&self.ram, &mut self.outputs);
            }
            Input::Frame { data } => (InputKind::Frame, data),
            Input::Console { data } => (InputKind::Console, data),
            Input::Entropy { data } => (InputKind::Entropy, data),
        };
        let Machine {
            bus, ram, outputs, ..
        } = self;
        bus.take_in(kind, data, ram, outputs);
    }

    /// Guest time is now `ns`, unless it is later already. The CPU's clock goes with it.
    fn set_time(&mut self, ns: u64) {
        let before_ns = self.bus.clock.now_ns();
        self.bus.set_time(ns, &self.ram);
        if self.counts == Counts::Instructions {
            self.cpu.pass(self.bus.clock.now_ns() - before_ns);
        }
    }

    /// Hands the vCPU at most one interrupt (the injection rule of `docs/determinism.md`). Called once
    /// per position, after all of its inputs were applied. Returns the vector.
    pub fn inject(&mut self) -> Result<Option<u8>, MachineError> {
        assert!(!self.left);
        let ready = self.arrived.ready;
        let mut vector = None;
        if self.bus.pic.requests() && ready {
            let acknowledged = self.bus.pic.acknowledge();
            self.cpu.deliver(acknowledged)?;
            vector = Some(acknowledged);
        }
        // An interrupt that still waits is handed over at a later exit: one that the CPU makes as soon as
        // the guest takes interrupts, if it counts instructions, and else one that the guest makes by itself.
        // KVM's interrupt windows are not used: on some hosts a window opens at an arbitrary instruction.
        let by_the_guest = self.counts == Counts::BranchEdges;
        if by_the_guest && self.bus.pic.requests() {
            self.bus.edges.hurry(&self.ram);
        }
        self.note_unheard(by_the_guest && vector.is_none() && self.bus.pic.requests());
        self.waiting = Waiting::No;
        self.left = true;
        Ok(vector)
    }

    /// A guest that never exits with interrupts on gets no interrupts. Its user should know.
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

    /// Runs the guest to its next exit and handles it, unless a device needs the time for that
    /// ([`Machine::asks_time`]).
    pub fn enter(&mut self) -> Result<Entered, MachineError> {
        assert!(self.left && self.unhandled.is_none() && self.ended.is_none());
        self.pulse.in_guest(true);
        let run = self.cpu.run(self.until())?;
        self.pulse.in_guest(false);
        match run {
            Run::Kicked => Ok(Entered::Kicked),
            Run::Exit(exit) => {
                self.arrive(exit);
                Ok(Entered::Arrived)
            }
        }
    }

    /// Where the CPU makes an exit by itself.
    fn until(&self) -> Until {
        match self.counts {
            Counts::BranchEdges => Until::GUEST,
            Counts::Instructions => Until {
                steps: self.quantum_ends().min(self.edge_comes()),
                interruptible: self.bus.pic.requests(),
            },
        }
    }

    fn quantum_ends(&self) -> u64 {
        match self.quantum {
            0 => u64::MAX,
            quantum => self.at.edges.saturating_add(quantum),
        }
    }

    /// The step at which a timer's next interrupt is due, as a step takes a nanosecond: so it comes at the same
    /// instruction whatever else makes exits.
    fn edge_comes(&self) -> u64 {
        let Some(due_ns) = self.bus.next_interrupt_ns() else {
            return u64::MAX;
        };
        let wait = due_ns.saturating_sub(self.bus.clock.now_ns()).max(1);
        self.at.edges.saturating_add(wait)
    }

    /// There is an exit: the machine is at a new position.
    pub(super) fn arrive(&mut self, exit: Exit) {
        self.pulse.position();
        (self.left, self.settled) = (false, false);
        self.arrived = Arrival::of(&mut *self.cpu);
        let before = self.at.edges;
        self.at = Position {
            exit: self.at.exit + 1,
            edges: self.count(),
        };
        match self.counts {
            Counts::BranchEdges if self.bus.needs_time(&exit) => {
                self.unhandled = Some(exit);
                return;
            }
            Counts::BranchEdges => {}
            // A step takes a nanosecond, for the devices as for the CPU's time-stamp counter.
            Counts::Instructions => {
                let made = self.at.edges - before;
                let now_ns = self.bus.clock.now_ns().saturating_add(made);
                self.bus.set_time(now_ns, &self.ram);
            }
        }
        self.accesses = self.counts == Counts::Instructions && exit.is_access();
        self.handle(exit);
    }

    /// Does a device model need the time to handle the last exit?
    pub fn asks_time(&self) -> bool {
        self.unhandled.is_some()
    }

    /// Gives the time that [`Machine::asks_time`] asked for, nanoseconds since boot.
    pub fn answer_time(&mut self, ns: u64) {
        let exit = self.unhandled.take().expect("the machine asked");
        self.set_time(ns);
        self.handle(exit);
    }

    fn handle(&mut self, exit: Exit) {
        match exit {
            Exit::PioOut { port, data, len } => match port {
                _ if self.boot == BootProtocol::Linux => self.out(port, &data[..len]),
                lockstep_abi::port::IDLE => {
                    let seen = u32::from_le_bytes(data);
                    self.waiting = Waiting::Idle { seen };
                }
                lockstep_abi::port::QUANTUM => self.bus.edges.grant(&self.ram),
                lockstep_abi::port::EXIT => {
                    let status = u32::from_le_bytes(data);
                    self.ended = Some(EndReason::Exited { status });
                }
                _ => self.out(port, &data[..len]),
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
            // A pending debug exception ends the halt at once (SDM vol. 2A, HLT).
            Exit::Hlt if self.cpu.exception_due() => {}
            Exit::Hlt if self.cpu.interrupts_enabled() => self.waiting = Waiting::Halted,
            Exit::Hlt | Exit::Shutdown => self.ended = Some(EndReason::Dead),
            Exit::Steps | Exit::Interruptible => {}
        }
        self.bus.process(&self.ram, &mut self.outputs);
    }

    /// OUT to a device.
    fn out(&mut self, port: u16, data: &[u8]) {
        self.bus.pio_write(port, data, &self.ram);
        self.ended = self.ended.or(self.bus.ends());
    }

    /// What the guest has emitted, in order, since [`Machine::clear_outputs`].
    pub fn outputs(&self) -> &[Output] {
        self.outputs.waiting()
    }

    /// Drops the outputs that were handed out.
    pub fn clear_outputs(&mut self) {
        self.outputs.clear();
    }
}
