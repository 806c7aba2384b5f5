//! The failure detector: heartbeats and silence (paper, section 2.3).

use crate::Time;
use std::fmt;
use std::time::Duration;

/// If this side's own ticks are more heartbeat intervals apart than this, the detector distrusts
/// itself. One tick never counts as more silence than this.
pub const LATE_TICKS: u32 = 3;

/// How soon a silent peer is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Interval between two heartbeats, and between two checks for silence.
    pub heartbeat: Duration,
    /// A peer of a running pair is suspected after this time without anything on the channel or by UDP.
    pub silence: Duration,
    /// A channel that carried nothing for this time is given up, even if beats arrive by UDP: a pair
    /// stands still without its channel.
    pub stuck: Duration,
    /// The limit of silence while the pair is being made: a guest image is sent and a machine built.
    pub joining: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(20),
            silence: Duration::from_millis(250),
            stuck: Duration::from_secs(2),
            joining: Duration::from_secs(10),
        }
    }
}

/// Why the peer is thought dead. It may be alive: only the arbiter decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// Its connection closed. This is a hint that saves the wait, but not a proof.
    Closed,
    /// Nothing was heard of it for this time, neither on the channel nor by UDP.
    Silent(Duration),
    /// It sends beats, but its channel carried nothing for this time.
    Stuck(Duration),
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspicion::Closed => write!(f, "its connection closed"),
            Suspicion::Silent(time) => write!(f, "it was silent for {} ms", time.as_millis()),
            Suspicion::Stuck(time) => {
                write!(f, "its channel carried nothing for {} ms", time.as_millis())
            }
        }
    }
}

/// Watches one peer.
///
/// Call [`Detector::tick`] when [`Detector::next_tick`] has come, [`Detector::heard`] for everything
/// that the peer sends on the channel, [`Detector::heard_beat`] for a beat by UDP, and check
/// [`Detector::suspicion`] after a tick. Everything that has arrived must be passed in before the tick:
/// a peer is not silent only because this side has not read yet.
///
/// A late tick shows that this side itself did not run, perhaps its whole host, and so could not have
/// heard: the silence then counts from that tick. This is granted once until the peer is heard again.
/// On a host where every tick is late, each further one counts as [`LATE_TICKS`] intervals: a dead peer
/// is noticed there too, only later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Detector {
    heartbeat: Duration,
    limit: Duration,
    stuck: Duration,
    /// The times from which the silence of the channel, and that of beats, is counted.
    heard: Time,
    beat: Time,
    last_tick: Time,
    /// By how much the next tick was put off.
    put_off: Duration,
    /// Was a late tick forgiven since the peer was last heard?
    forgiven: bool,
    closed: bool,
}

impl Detector {
    /// Starts to watch. A silence longer than `limit` is suspicious.
    pub fn new(timing: &Timing, limit: Duration, now: Time) -> Detector {
        Detector {
            heartbeat: timing.heartbeat,
            limit,
            stuck: timing.stuck,
            heard: now,
            beat: now,
            last_tick: now,
            put_off: Duration::ZERO,
            forgiven: false,
            closed: false,
        }
    }

    /// Counts the silence from now, with another limit.
    pub fn relimit(&mut self, limit: Duration, now: Time) {
        (self.limit, self.heard, self.beat) = (limit, now, now);
        self.forgiven = false;
    }

    /// The peer sent something on the channel. Withdraws a suspicion for silence.
    pub fn heard(&mut self, now: Time) {
        self.heard = self.heard.max(now);
        self.forgiven = false;
    }

    /// The peer sent a beat by UDP.
    pub fn heard_beat(&mut self, now: Time) {
        self.beat = self.beat.max(now);
        self.forgiven = false;
    }

    /// The connection closed.
    pub fn closed(&mut self) {
        self.closed = true;
    }

    /// When the next tick is due: a heartbeat after the last one, or when the silence becomes
    /// suspicious.
    pub fn next_tick(&self) -> Time {
        let regular = self.last_tick.after(self.heartbeat);
        let suspicious = self.heard.max(self.beat).after(self.limit);
        match suspicious > self.last_tick {
            true => regular.min(suspicious),
            false => regular,
        }
    }

    /// The next tick may be done this much later than [`Detector::next_tick`], because nothing is under
    /// way: it is not late for that. Must be much less than the limit of silence.
    pub fn put_off(&mut self, by: Duration) {
        self.put_off = by;
    }

    /// Did this side itself fail to run as it should since its last tick?
    pub fn is_late(&self, now: Time) -> bool {
        now.since(self.last_tick) > self.counts()
    }

    /// The most silence that one tick counts.
    fn counts(&self) -> Duration {
        self.heartbeat * LATE_TICKS + self.put_off
    }

    /// Does the tick if it is due. Returns whether it was.
    pub fn tick(&mut self, now: Time) -> bool {
        if now < self.next_tick() {
            return false;
        }
        let (since, counts) = (now.since(self.last_tick), self.counts());
        if since > counts {
            let absent = match std::mem::replace(&mut self.forgiven, true) {
                // The silence that counted before is dropped too: a host may have slept long before
                // that was noticed.
                false => now.since(Time(0)),
                true => since - counts,
            };
            self.heard = self.heard.after(absent).min(now);
            self.beat = self.beat.after(absent).min(now);
        }
        (self.last_tick, self.put_off) = (now, Duration::ZERO);
        true
    }

    /// How long the peer has been silent, on the channel and by UDP.
    pub fn silence(&self, now: Time) -> Duration {
        now.since(self.heard.max(self.beat))
    }

    /// The suspicion after the last tick, if any.
    pub fn suspicion(&self) -> Option<Suspicion> {
        let channel = self.last_tick.since(self.heard);
        let silence = channel.min(self.last_tick.since(self.beat));
        if self.closed {
            Some(Suspicion::Closed)
        } else if silence >= self.limit {
            Some(Suspicion::Silent(silence))
        } else if channel >= self.stuck.max(self.limit) {
            Some(Suspicion::Stuck(channel))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
