//! Going through time: to a moment, to a position, on and back to the next stop.

use super::{Halt, Interrupt, Session};
use crate::DebugError;
use crate::store::Checkpoint;
use lockstep_vcpu::debug::{Watchpoint, When};
use std::rc::Rc;

impl Session {
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
