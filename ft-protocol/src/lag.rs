//! The backup's execution lag, and the throttle that limits it (paper, section 2.4: a primary whose
//! backup lags gets less CPU time).

use crate::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// The lag at which the throttle aims: what a failover may have to catch up.
pub const LAG_TARGET: Duration = Duration::from_millis(100);
/// Longest rest of the vCPU, percent of its time.
pub const MAX_REST: u32 = 95;
/// A step up: one part in this many of the time in which the vCPU still works.
const STEP_UP: u32 = 4;
/// A step down, percent: a small one, so that the lag does not come back at once.
const STEP_DOWN: u32 = 1;
/// Entries made within this time share a mark.
const MARK_SPAN: Duration = Duration::from_millis(1);
/// Most marks. When there are more, the newest time is not noted, and the lag is measured from the
/// oldest.
const MARKS: usize = 4096;

/// Measures the execution lag, which is the time from making an entry to executing it, and computes the
/// throttle from it.
///
/// Call [`Lag::made`] and [`Lag::executed`] when these happen, and [`Lag::adjust`] once per heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lag {
    /// Each mark: from this time on, entries up to this sequence number existed.
    marks: VecDeque<(Time, u64)>,
    executed: u64,
    rest: u32,
    /// The lag at the last call of [`Lag::adjust`].
    before: Duration,
}

impl Lag {
    /// Entries up to `seq` exist now.
    pub fn made(&mut self, now: Time, seq: u64) {
        let full = self.marks.len() >= MARKS;
        match self.marks.back_mut() {
            Some((_, last)) if *last >= seq => {}
            Some((at, last)) if full || now.since(*at) < MARK_SPAN => *last = seq,
            _ if seq > self.executed => self.marks.push_back((now, seq)),
            _ => {}
        }
    }

    /// The backup has executed entries up to `seq`.
    pub fn executed(&mut self, seq: u64) {
        self.executed = self.executed.max(seq);
        while self
            .marks
            .pop_front_if(|(_, last)| *last <= self.executed)
            .is_some()
        {}
    }

    /// The age of the oldest entry that the backup has not executed, as far as this side knows.
    pub fn lag(&self, now: Time) -> Duration {
        self.marks
            .front()
            .map_or(Duration::ZERO, |(at, _)| now.since(*at))
    }

    /// Adjusts the throttle by one small step. Up, if the lag is over the target, or over half of it
    /// and growing: a slow backup needs long for the entries that are made meanwhile.
    pub fn adjust(&mut self, now: Time) {
        let lag = self.lag(now);
        let grows = lag > std::mem::replace(&mut self.before, lag);
        if lag > LAG_TARGET || lag > LAG_TARGET / 2 && grows {
            let step = ((100 - self.rest) / STEP_UP).max(1);
            self.rest = (self.rest + step).min(MAX_REST);
        } else if lag < LAG_TARGET / 2 {
            self.rest = self.rest.saturating_sub(STEP_DOWN);
        }
    }

    /// How much of its time the vCPU must rest, percent.
    pub fn rest(&self) -> u32 {
        self.rest
    }

    /// Resets it: there is no backup any more.
    pub fn clear(&mut self) {
        *self = Lag::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Time {
        Time(n * 1_000_000)
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_entry_not_executed() {
        let mut lag = Lag::default();
        assert_eq!(lag.lag(ms(9)), Duration::ZERO);
        lag.made(ms(10), 5);
        lag.made(ms(30), 9);
        assert_eq!(lag.lag(ms(40)), Duration::from_millis(30));
        lag.executed(4);
        assert_eq!(lag.lag(ms(40)), Duration::from_millis(30));
        lag.executed(5);
        assert_eq!(lag.lag(ms(40)), Duration::from_millis(10));
        lag.executed(9);
        assert_eq!(lag.lag(ms(4000)), Duration::ZERO);
    }

    #[test]
    fn marks_are_bounded_and_the_oldest_counts() {
        let mut lag = Lag::default();
        for n in 1..3 * MARKS as u64 {
            lag.made(ms(n), n);
        }
        assert_eq!(lag.marks.len(), MARKS);
        let now = ms(3 * MARKS as u64);
        assert_eq!(lag.lag(now), now.since(ms(1)));
        lag.executed(3 * MARKS as u64 - 1);
        assert_eq!(lag.lag(now), Duration::ZERO);
    }

    #[test]
    fn a_lag_over_the_target_throttles_in_steps_and_is_released_slowly() {
        let mut lag = Lag::default();
        lag.made(ms(0), 1);
        lag.adjust(ms(50));
        assert_eq!(lag.rest(), 0, "half the target is fine");
        lag.adjust(ms(60));
        assert_eq!(lag.rest(), 25, "more, and growing, is not");
        lag.adjust(ms(60));
        assert_eq!(lag.rest(), 25);
        lag.adjust(ms(120));
        assert_eq!(lag.rest(), 25 + 75 / 4);
        (0..100).for_each(|_| lag.adjust(ms(300)));
        assert_eq!(lag.rest(), MAX_REST, "never to a standstill");
        lag.executed(1);
        lag.adjust(ms(320));
        assert_eq!(lag.rest(), MAX_REST - STEP_DOWN);
        (0..100).for_each(|_| lag.adjust(ms(340)));
        assert_eq!(lag.rest(), 0);
    }

    /// With a backup at a third of the primary's speed, the throttle holds the lag near its target.
    #[test]
    fn a_slow_backup_is_held_near_the_target() {
        let mut lag = Lag::default();
        let (mut made, mut executed, mut worst) = (0.0, 0.0, Duration::ZERO);
        for t in 0..10_000u64 {
            made += 3.0 * f64::from(100 - lag.rest()) / 100.0;
            lag.made(ms(t), made as u64);
            executed = made.min(executed + 1.0);
            lag.executed(executed as u64);
            if t % 20 == 0 {
                lag.adjust(ms(t));
            }
            if t > 2000 {
                worst = worst.max(lag.lag(ms(t)));
            }
        }
        assert!(worst < LAG_TARGET * 2, "{worst:?}");
        assert!(lag.rest() > 0);
    }
}
