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
use std::rc::Rc;

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

    /// Goes to the first moment at or after `to`, whatever is on the way.
    pub fn seek(&mut self, to: When, interrupt: Interrupt<'_>) -> Result<Halt, DebugError> {
        let now = self.when();
        if let Some(nearest) = self.store.at_or_before(to).or_else(|| self.store.first())
            && (self.ended.is_some() && to <= now || to < now || nearest.when > now)
        {
            self.restore(&nearest)?;
        }
        self.arm(false);
        let now = self.when();
        let mut near: Vec<u64> = self.store.near_points(now, to).collect();
        near.reverse();
        self.run_by(to, near, interrupt)
    }

    /// Goes to a position: where the guest runs on after an exit. With `count`, further, to where the machine
    /// has counted so much; if that is not before the next exit, to there.
    pub fn seek_position(
        &mut self,
        exit: u64,
        count: Option<u64>,
        interrupt: Interrupt<'_>,
    ) -> Result<Halt, DebugError> {
        match (self.seek_exit(exit, interrupt)?, count) {
            (Halt::Moment, Some(count)) => self.seek_count(exit, count, interrupt),
            (halt, _) => Ok(halt),
        }
    }

    fn seek_exit(&mut self, exit: u64, interrupt: Interrupt<'_>) -> Result<Halt, DebugError> {
        let Some(mut from) = self.store.first() else {
            return Ok(Halt::End);
        };
        if exit <= from.exit() {
            self.restore(&from)?;
            return Ok(Halt::Moment);
        }
        while let Some(next) = self.store.after(from.when).filter(|it| it.exit() < exit) {
            from = next;
        }
        let here = self.machine.position().exit;
        if self.ended.is_some() || here >= exit || here < from.exit() {
            self.restore(&from)?;
        }
        self.arm(false);
        self.edge.set_goal(Some(exit));
        let halt = self.run(When::step(u64::MAX), interrupt);
        self.edge.set_goal(None);
        match halt? {
            Halt::Exit => {}
            other => return Ok(other),
        }
        let now = self.when();
        self.advance(now)
    }

    /// Goes on to the first moment at which the machine has counted so much, or left this exit behind.
    fn seek_count(
        &mut self,
        exit: u64,
        count: u64,
        interrupt: Interrupt<'_>,
    ) -> Result<Halt, DebugError> {
        let there = |it: &Session| {
            it.machine.count() >= count || it.machine.position().exit != exit || it.ended.is_some()
        };
        let (mut before, mut stride) = (self.when().steps, 1);
        while !there(self) {
            before = self.when().steps;
            if self.seek(When::step(before + stride), interrupt)? == Halt::Interrupted {
                return Ok(Halt::Interrupted);
            }
            stride *= 2;
        }
        let mut at = self.when().steps;
        while at > before + 1 {
            let middle = before + (at - before) / 2;
            self.seek(When::step(middle), &mut || false)?;
            match there(self) {
                true => at = middle,
                false => before = middle,
            }
        }
        self.seek(When::step(at), &mut || false)
    }

    /// Runs on until something stops it.
    pub fn resume(&mut self, interrupt: Interrupt<'_>) -> Result<Halt, DebugError> {
        let now = self.when();
        if !self.looks()
            && let Some(last) = self.store.last().filter(|it| it.when > now)
        {
            // Nothing can stop it before.
            self.restore(&last)?;
        }
        self.arm(true);
        self.cpu().pass();
        self.run(When::step(u64::MAX), interrupt)
    }

    /// Is there anything at which it stops?
    fn looks(&self) -> bool {
        !self.breakpoints.is_empty() || !self.watchpoints.is_empty()
    }

    /// Goes to the next moment.
    pub fn step(&mut self) -> Result<Halt, DebugError> {
        self.arm(true);
        self.cpu().pass();
        let next = self.when().next();
        self.run(next, &mut || false)
    }

    /// Goes to the moment before this one.
    pub fn step_back(&mut self) -> Result<Halt, DebugError> {
        let now = self.when();
        if self.ended.is_some() {
            // The last instruction may wait for an answer: then this moment is the one before it, too.
            self.seek(now, &mut || false)?;
            if self.ended.is_none() {
                return Ok(Halt::Moment);
            }
        }
        self.go_before(now)
    }

    /// Goes to the last moment before `when`.
    fn go_before(&mut self, when: When) -> Result<Halt, DebugError> {
        let first = match self.store.first() {
            Some(first) if first.when < when => first.when,
            Some(first) => {
                self.restore(&first)?;
                return Ok(Halt::Beginning);
            }
            None => return Ok(Halt::Beginning),
        };
        // The last moment before this step is known only when it was there: there may be several.
        let step = When::step(when.steps.saturating_sub(u64::from(when.deliveries == 0)));
        self.seek(step.max(first), &mut || false)?;
        if self.when() >= when || self.ended.is_some() {
            let step = When::step(when.steps.saturating_sub(1));
            self.seek(step.max(first), &mut || false)?;
        }
        while self.ended.is_none() {
            let before = self.checkpoint()?;
            let next = before.when.next();
            if self.advance(next)? == Halt::End || self.when() >= when {
                self.restore(&before)?;
                self.store.add_near(before);
                return Ok(Halt::Moment);
            }
        }
        Ok(Halt::End)
    }

    /// Runs backwards until something stops it. Interrupted, it stays where everything behind it was looked
    /// through.
    pub fn resume_back(&mut self, interrupt: Interrupt<'_>) -> Result<Halt, DebugError> {
        let mut until = match self.ended {
            Some(_) => self.when().next(),
            None => self.when(),
        };
        loop {
            let from = self.store.before(until).filter(|_| self.looks());
            let Some(from) = from else {
                if let Some(first) = self.store.first() {
                    self.restore(&first)?;
                }
                return Ok(Halt::Beginning);
            };
            self.restore(&from)?;
            match self.last_before(until, interrupt)? {
                Looked::Nothing => until = from.when,
                Looked::Breakpoint(when) => {
                    self.seek(when, &mut || false)?;
                    return Ok(Halt::Breakpoint);
                }
                Looked::Watchpoint(when, watchpoint) => {
                    self.go_before(when)?;
                    return Ok(Halt::Watchpoint(watchpoint));
                }
                Looked::Interrupted => {
                    self.seek(until, &mut || false)?;
                    return Ok(Halt::Interrupted);
                }
            }
        }
    }

    /// Looks through the time from now to `until` for the last stop.
    fn last_before(&mut self, until: When, interrupt: Interrupt<'_>) -> Result<Looked, DebugError> {
        self.arm(true);
        let mut last = Looked::Nothing;
        let now = self.when();
        let mut points: Vec<u64> = self.store.points_between(now, until).collect();
        points.reverse();
        loop {
            let halt = self.run_by(until, points.clone(), interrupt)?;
            let now = self.when();
            points.retain(|point| *point > now.steps);
            match halt {
                Halt::Breakpoint if now < until => {
                    last = Looked::Breakpoint(now);
                    self.cpu().pass();
                }
                Halt::Watchpoint(watchpoint) if now <= until => {
                    last = Looked::Watchpoint(now, watchpoint);
                }
                Halt::Interrupted => return Ok(Looked::Interrupted),
                Halt::Breakpoint
                | Halt::Watchpoint(_)
                | Halt::Moment
                | Halt::End
                | Halt::Exit
                | Halt::Beginning => return Ok(last),
            }
        }
    }

    /// The checkpoint from which this moment is reached.
    pub(crate) fn checkpoint_before(&self, when: When) -> Option<Rc<Checkpoint>> {
        self.store.before(when).or_else(|| self.store.first())
    }
}

/// What was found in a stretch of time.
enum Looked {
    Nothing,
    Breakpoint(When),
    /// Behind the access.
    Watchpoint(When, Watchpoint),
    Interrupted,
}
