//! What a debugger wants of the CPU, where the CPU looks at it: breakpoints where blocks are looked up,
//! watchpoints where the TLB has no translation, and the moment to stop at before each run of blocks. None of
//! these is on the way of an instruction that has none of it.

use crate::engine::{Engine, Event};
use crate::op::Done;
use crate::paging::Access;
use crate::state::{Cpu, Stop};
use crate::tlb::PAGE_MASK;
use lockstep_vcpu::debug::{DebugStop, Watched, Watchpoint, When};

/// What a debugger wants, and what has happened of it.
#[derive(Debug)]
pub struct Probe {
    /// Is there anything to look at?
    on: bool,
    /// Sorted.
    breakpoints: Vec<u64>,
    watchpoints: Vec<Watchpoint>,
    stop: Option<When>,
    /// The breakpoint at this moment was stopped at already.
    passed: Option<When>,
    /// The last delivery's step, and how many there were since that step.
    delivered: When,
    /// The access that the instruction made which runs, or ran last.
    hit: Option<Watchpoint>,
    /// At this step the CPU makes an exit: it comes before all that.
    exit: u64,
    /// Why running ended.
    reason: Option<DebugStop>,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe {
            on: false,
            breakpoints: Vec::new(),
            watchpoints: Vec::new(),
            stop: None,
            passed: None,
            delivered: When::default(),
            hit: None,
            exit: u64::MAX,
            reason: None,
        }
    }
}

impl Probe {
    /// The CPU will make an exit after so many steps.
    pub fn exits_at(&mut self, steps: u64) {
        self.exit = steps;
        self.reason = None;
    }

    /// Did the guest stop for its debugger?
    pub fn stopped(&self) -> bool {
        self.reason.is_some()
    }

    /// Why, told once.
    pub fn take_reason(&mut self) -> Option<DebugStop> {
        self.reason.take()
    }

    /// Is there a breakpoint?
    pub fn has_breakpoint(&self, address: u64) -> bool {
        self.breakpoints.binary_search(&address).is_ok()
    }

    /// An instruction begins, or ended in a fault: it made no access.
    pub fn begin(&mut self) {
        self.hit = None;
    }

    /// May such an access to this page be remembered as one that needs no second look?
    pub fn leaves_fast(&self, address: u64, access: Access) -> bool {
        let page = address & PAGE_MASK;
        self.watchpoints.is_empty()
            || access == Access::Execute
            || !self.watchpoints.iter().any(|watched| {
                let last = watched.address.saturating_add(watched.len - 1);
                (watched.address & PAGE_MASK..=last).contains(&page)
            })
    }

    /// The breakpoints from now on. Returns whether they are others than before.
    pub fn set_breakpoints(&mut self, addresses: &[u64]) -> bool {
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let others = sorted != self.breakpoints;
        self.breakpoints = sorted;
        self.look();
        others
    }

    /// The watchpoints from now on; one of no bytes is none. Returns whether they are others than before.
    pub fn set_watchpoints(&mut self, watchpoints: &[Watchpoint]) -> bool {
        let some = watchpoints.iter().filter(|watched| watched.len > 0);
        let watchpoints: Vec<Watchpoint> = some.copied().collect();
        let others = watchpoints != self.watchpoints;
        self.watchpoints = watchpoints;
        self.hit = None;
        self.look();
        others
    }

    /// How many deliveries there were since the last step.
    pub fn set_delivered(&mut self, when: When) {
        self.delivered = when;
    }

    /// Where to stop.
    pub fn set_stop(&mut self, stop: Option<When>) {
        self.stop = stop;
        self.look();
    }

    /// Nothing is stopped at in this moment again.
    pub fn pass(&mut self, now: When) {
        self.passed = Some(now);
    }

    fn look(&mut self) {
        self.on =
            self.stop.is_some() || !self.breakpoints.is_empty() || !self.watchpoints.is_empty();
    }
}

impl Cpu {
    /// Now.
    pub fn when(&self) -> When {
        let steps = self.steps();
        match self.probe.delivered {
            at if at.steps == steps => at,
            _ => When::step(steps),
        }
    }

    /// An exception or interrupt was delivered, or died in the attempt.
    pub fn delivered(&mut self) {
        self.probe.delivered = self.when().next();
    }

    /// Is the next instruction to be stopped at?
    pub fn stops_here(&self) -> bool {
        self.probe.has_breakpoint(self.rip) && self.probe.passed != Some(self.when())
    }

    /// Does the next instruction have a breakpoint that was stopped at?
    pub fn passes_breakpoint(&self) -> bool {
        self.probe.on
            && self.probe.has_breakpoint(self.rip)
            && self.probe.passed == Some(self.when())
    }

    /// So many steps, or as many as it takes to see the moment to stop at.
    pub fn until_stop(&self, steps: u64) -> u64 {
        let Some(stop) = self.probe.stop else {
            return steps;
        };
        let left = stop.steps.saturating_sub(self.steps());
        // A later moment of that step shows when the next one is tried.
        steps.min(left.saturating_add(u64::from(stop.deliveries > 0)))
    }

    /// Notes an access that is watched: that its instruction runs alone lets the guest stop behind it.
    pub fn note_access(&mut self, address: u64, len: usize, access: Access) -> Done {
        if self.probe.watchpoints.is_empty() || access == Access::Execute {
            return Ok(());
        }
        let last = address.wrapping_add(len as u64 - 1);
        let hit = self.probe.watchpoints.iter().find(|watched| {
            let kind = match watched.kind {
                Watched::Read => access == Access::Read,
                Watched::Write => access == Access::Write,
                Watched::Access => true,
            };
            let end = watched.address.saturating_add(watched.len - 1);
            kind && address <= end && last >= watched.address
        });
        let Some(hit) = hit.copied() else {
            return Ok(());
        };
        if !self.io.alone {
            return self.raise(Stop::Alone);
        }
        self.probe.hit = Some(hit);
        Ok(())
    }
}

impl Engine {
    /// Does the guest stop here for its debugger? An exit that is due here comes first.
    #[inline]
    pub fn stops_now(&mut self) -> bool {
        self.cpu.probe.on && self.debugger_stops()
    }

    #[cold]
    fn debugger_stops(&mut self) -> bool {
        let exits = self.due.is_none() && self.until_interruptible && self.interruptible();
        let now = self.cpu.when();
        let probe = &mut self.cpu.probe;
        if exits || now.steps >= probe.exit {
            return false;
        }
        probe.reason = match probe.hit.take() {
            Some(hit) => Some(DebugStop::Watchpoint(hit)),
            None if probe.stop.is_some_and(|stop| stop <= now) => Some(DebugStop::Moment),
            None => None,
        };
        probe.stopped()
    }

    /// The next instruction has a breakpoint.
    pub fn at_breakpoint(&mut self) -> Event {
        self.cpu.probe.reason = Some(DebugStop::Breakpoint);
        Event::Debug
    }
}
