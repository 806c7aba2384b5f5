//! What the primary's runtime does because it is time.

use super::Runtime;
use crate::announcer::Announcer;
use crate::link::{HEARD_AT_ONCE, Link};
use crate::{CALM, Outcome, may_put_off, now};
use ft_protocol::Time;
use ft_protocol::lag::LAG_TARGET;
use lockstep_events::Event;
use std::io;
use std::time::Duration;

/// How often a large lag is reported.
const TELL_LAG: Duration = Duration::from_millis(100);

/// When each thing is to be done.
pub(super) struct Due {
    tick: Option<Time>,
    announce: Option<Time>,
    look: Option<Time>,
    mark: Option<Time>,
}

impl Due {
    /// The first of them.
    pub(super) fn first(&self) -> Option<Time> {
        let all = [self.tick, self.announce, self.look, self.mark];
        all.into_iter().flatten().min()
    }
}

impl Runtime {
    /// What is to be done next.
    pub(super) fn next_due(&mut self) -> Due {
        let runs = self.idle.is_none() && self.ended.is_none();
        Due {
            tick: self.next_tick(),
            announce: self.announcer.as_ref().and_then(Announcer::next),
            look: self.watch.due(),
            mark: self.vcpu.marks.next(runs && self.primary.sends_log()),
        }
    }

    fn next_tick(&mut self) -> Option<Time> {
        let (now, tick) = (now(), self.primary.poll_timeout()?);
        let calm = self.primary.lag(now).is_zero() && self.primary.held_outputs() == 0;
        if !calm || !may_put_off(tick, now, self.primary.silence(now)) {
            return Some(tick);
        }
        self.primary.put_off_tick(CALM);
        Some(tick.after(CALM))
    }

    /// Does what is to be done by now.
    pub(super) fn do_due(&mut self, due: &Due) -> io::Result<Option<Outcome>> {
        let now = now();
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(due.announce) {
            self.announce_again();
        }
        if is_due(due.look) {
            self.look();
        }
        if is_due(due.mark) {
            let vcpu = &mut self.vcpu;
            vcpu.marks.look(&vcpu.controls, &mut vcpu.watch);
        }
        if is_due(due.tick) {
            if let Some(outcome) = self.hear_all()? {
                return Ok(Some(outcome));
            }
            self.tick(now);
        }
        Ok(None)
    }

    /// Passes in everything that has arrived, before a tick judges the peer by it.
    fn hear_all(&mut self) -> io::Result<Option<Outcome>> {
        for _ in 0..HEARD_AT_ONCE {
            let beat = self.beats.arrived();
            if let Some((beat, from)) = beat {
                self.hear_beat(beat, from);
            }
            let message = self.link.as_mut().and_then(Link::arrived);
            if beat.is_none() && message.is_none() {
                break;
            }
            if let Some(message) = message {
                self.message(message);
            }
            if let Some(outcome) = self.perform()? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    fn tick(&mut self, now: Time) {
        self.cuts.tick();
        let answers = self.vcpu.watch.answers();
        if !answers {
            self.beats.silence();
        }
        self.primary.handle_vcpu(answers);
        self.primary.handle_tick(now);
        self.silence
            .note(self.primary.silence(now), &mut self.events);
        let (lag, rest) = (self.primary.lag(now), self.primary.rest());
        let matters = lag > LAG_TARGET / 4 || rest > 0;
        let due = self.lag_told.is_none_or(|told| now.since(told) >= TELL_LAG);
        if matters && due || !matters && self.lag_told.is_some() {
            self.lag_told = matters.then_some(now);
            self.events.emit(Event::Lag {
                lag_ms: lag.as_secs_f64() * 1e3,
                throttle_percent: rest,
            });
        }
    }
}
