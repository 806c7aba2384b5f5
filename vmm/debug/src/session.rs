//! A recording's machine, at any moment of its time.
//!
//! Time is what the CPU counts: steps, and deliveries between two steps. The machine only ever runs forwards.
//! To go back it is restored at a checkpoint, and runs to the moment that is wanted.

use crate::DebugError;
use crate::edge::Edge;
use crate::pages::Image;
use crate::store::{Checkpoint, Store};
use ft_protocol::log::{EndReason, Header, MachineConfig, Position};
use lockstep_machine::drive::Driven;
use lockstep_machine::world::Outlet;
use lockstep_machine::{DriveError, Machine, Parts, drive};
use lockstep_memory::{Ram, RamDigest};
use lockstep_replay::FollowError;
use lockstep_replay::dir::LogFile;
use lockstep_replay::follow::Followed;
use lockstep_vcpu::debug::{DebugStop, Watchpoint, When};
use lockstep_vcpu::{CpuBackend, CpuState, DebugCpu, DirtyReader};

mod travel;

/// Steps between two looks at the user, who may have enough: a fraction of a tenth of a second.
const SLICE: u64 = 1 << 21;

/// Asked from time to time: true interrupts what is done.
pub type Interrupt<'a> = &'a mut dyn FnMut() -> bool;

/// Why a machine cannot run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest ended, or its operator stopped it.
    Ended(EndReason),
    /// The log has nothing more: it was cut.
    Cut,
    /// The log cannot be followed further.
    Broken {
        /// Why.
        why: String,
        /// The machine did something else than the log says, or the log is damaged.
        diverged: bool,
    },
}

/// How a stretch of time ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// At the moment that was wanted, or the first one after it.
    Moment,
    /// Before an instruction with a breakpoint.
    Breakpoint,
    /// Behind an access that is watched; running backwards, before it.
    Watchpoint(Watchpoint),
    /// The recording begins here.
    Beginning,
    /// The recording ends here.
    End,
    /// Behind the exit that was wanted, before the guest is entered.
    Exit,
    /// The user had enough.
    Interrupted,
}

/// A recording's machine under a debugger.
pub struct Session {
    backend: &'static dyn CpuBackend,
    config: MachineConfig,
    ram: Ram,
    zeroed: RamDigest,
    pub(crate) machine: Machine,
    pub(crate) edge: Edge,
    /// What memory was when `dirty` was asked last.
    base: Image,
    dirty: DirtyReader,
    pub(crate) store: Store,
    ended: Option<Ending>,
    breakpoints: Vec<u64>,
    watchpoints: Vec<Watchpoint>,
}

impl Session {
    /// Debugs `log`, which begins with `machine`. Its outputs go to `outlet`. Checkpoints hold `most_bytes` at
    /// most.
    pub fn new(
        backend: &'static dyn CpuBackend,
        log: LogFile,
        mut machine: Machine,
        outlet: Box<dyn Outlet>,
        most_bytes: usize,
    ) -> Result<Session, DebugError> {
        let header: &Header = log.header();
        let config = header.machine.clone();
        let outputs = log.start().outputs;
        let ram = machine.ram().clone();
        let store = Store::new(most_bytes);
        let dirty = machine.dirty_pages();
        machine.debugged().ok_or(DebugError::NoWayIn)?;
        let mut session = Session {
            backend,
            config,
            zeroed: RamDigest::zeroed(ram.pages()),
            edge: Edge::new(log, outputs, outlet),
            base: Image::zeroed(ram.pages(), store.meter().clone()),
            dirty,
            store,
            ended: None,
            breakpoints: Vec::new(),
            watchpoints: Vec::new(),
            ram,
            machine,
        };
        let first = session.when();
        if session.advance(first)? != Halt::End {
            let checkpoint = session.checkpoint()?;
            session.store.add(checkpoint);
        }
        Ok(session)
    }

    pub(crate) fn cpu(&mut self) -> &mut dyn DebugCpu {
        let cpu = self.machine.debugged();
        cpu.expect("the session began with a CPU of this kind")
    }

    /// Now.
    pub fn when(&mut self) -> When {
        self.cpu().when()
    }

    /// All registers.
    pub fn registers(&mut self) -> CpuState {
        self.cpu().state()
    }

    /// The position behind which it is, and what the machine has counted by now.
    pub fn position(&self) -> Position {
        Position {
            exit: self.machine.position().exit,
            edges: self.machine.count(),
        }
    }

    /// What was compared with the log so far.
    pub fn followed(&self) -> Followed {
        self.edge.followed()
    }

    /// A digest of each part of the machine.
    pub fn parts(&mut self) -> Result<Parts, DebugError> {
        Ok(self.machine.parts()?)
    }

    /// Why the machine cannot run on from here, if it cannot.
    pub fn ended(&self) -> Option<&Ending> {
        self.ended.as_ref()
    }

    /// Reads memory at a linear address; as much as is there. Devices are not asked.
    pub fn read(&mut self, address: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            let at = address.wrapping_add(done as u64);
            let page = (4096 - at % 4096) as usize;
            let len = page.min(data.len() - done);
            let Some(physical) = self.cpu().translate(at) else {
                break;
            };
            let part = &mut data[done..done + len];
            if self.ram.read(physical, part).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// The breakpoints from now on.
    pub fn set_breakpoints(&mut self, addresses: Vec<u64>) {
        self.breakpoints = addresses;
    }

    /// The breakpoints.
    pub fn breakpoints(&self) -> &[u64] {
        &self.breakpoints
    }

    /// The watchpoints from now on.
    pub fn set_watchpoints(&mut self, watchpoints: Vec<Watchpoint>) {
        self.watchpoints = watchpoints;
    }

    /// The watchpoints.
    pub fn watchpoints(&self) -> &[Watchpoint] {
        &self.watchpoints
    }

    fn arm(&mut self, on: bool) {
        let (breakpoints, watchpoints) = match on {
            true => (self.breakpoints.clone(), self.watchpoints.clone()),
            false => (Vec::new(), Vec::new()),
        };
        self.cpu().set_breakpoints(&breakpoints);
        self.cpu().set_watchpoints(&watchpoints);
    }

    /// Runs to the first moment at or after `stop`, or to what comes before.
    fn advance(&mut self, stop: When) -> Result<Halt, DebugError> {
        if self.ended.is_some() {
            return Ok(Halt::End);
        }
        self.cpu().stop_at(Some(stop));
        let ending = match drive(&mut self.machine, &mut self.edge) {
            Ok(Driven::Stopped) if self.edge.take_paused() => {
                return Ok(match self.cpu().take_stop() {
                    Some(DebugStop::Breakpoint) => Halt::Breakpoint,
                    Some(DebugStop::Watchpoint(watchpoint)) => Halt::Watchpoint(watchpoint),
                    Some(DebugStop::Moment) => Halt::Moment,
                    None => Halt::Exit,
                });
            }
            Ok(Driven::Stopped) => Ending::Cut,
            Ok(Driven::Ended(reason)) => Ending::Ended(reason),
            Err(DriveError::Edge(error @ FollowError::Outlet(_))) => return Err(error.into()),
            Err(error) => {
                tracing::warn!("the log cannot be followed further than here: {error}");
                Ending::Broken {
                    why: error.to_string(),
                    diverged: matches!(error, DriveError::Edge(_)),
                }
            }
        };
        self.ended = Some(ending);
        Ok(Halt::End)
    }

    /// The machine as it is. It must have stopped between two instructions, not at the end.
    fn checkpoint(&mut self) -> Result<Checkpoint, DebugError> {
        let settled = self.machine.settle()?;
        assert!(settled, "a machine that stopped has nothing to finish");
        self.base.update(&self.ram, &self.dirty.take()?);
        Ok(Checkpoint {
            when: self.when(),
            state: self.machine.save_counted()?,
            memory: self.base.clone(),
            edge: self.edge.save(),
        })
    }

    /// Goes to a checkpoint.
    fn restore(&mut self, to: &Checkpoint) -> Result<(), DebugError> {
        let written = self.dirty.take()?;
        to.memory.restore(&self.ram, &self.base, &written);
        let digest = to.memory.digest(&self.zeroed);
        let (config, ram) = (&self.config, self.ram.clone());
        self.machine = Machine::restore(self.backend, config, ram, digest, &to.state)?;
        self.base = to.memory.clone();
        self.dirty = self.machine.dirty_pages();
        // The first report has all pages.
        self.dirty.take()?;
        self.edge.restore(&to.edge)?;
        self.cpu().set_when(to.when);
        self.ended = None;
        Ok(())
    }

    /// Runs towards `to` and makes the checkpoints that are due on the way. Returns at the first stop that is
    /// none of its own.
    fn run(&mut self, to: When, interrupt: Interrupt<'_>) -> Result<Halt, DebugError> {
        self.run_by(to, Vec::new(), interrupt)
    }

    /// The same with more checkpoints, after these steps, the last one first.
    fn run_by(
        &mut self,
        to: When,
        mut points: Vec<u64>,
        interrupt: Interrupt<'_>,
    ) -> Result<Halt, DebugError> {
        loop {
            let now = self.when();
            let due = self.store.due_at(now);
            let slice = now.steps.saturating_add(SLICE);
            let near = points.last().copied().unwrap_or(u64::MAX);
            let stop = When::step(due.min(slice).min(near)).min(to);
            match self.advance(stop)? {
                Halt::Moment => {}
                other => return Ok(other),
            }
            let now = self.when();
            if now.steps >= due {
                let checkpoint = self.checkpoint()?;
                self.store.add(checkpoint);
            } else if now.steps >= near {
                let checkpoint = self.checkpoint()?;
                self.store.add_near(checkpoint);
            }
            while points.last().is_some_and(|point| *point <= now.steps) {
                points.pop();
            }
            if now >= to {
                return Ok(Halt::Moment);
            }
            if interrupt() {
                return Ok(Halt::Interrupted);
            }
        }
    }
}
