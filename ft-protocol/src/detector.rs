//! The failure detector: heartbeats and silence (paper, section 2.3).

use crate::Time;
use std::fmt;
use std::time::Duration;

/// Own ticks may be this many heartbeat intervals apart before the detector distrusts itself.
pub const LATE_TICKS: u32 = 3;

/// How fast a silent peer is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A heartbeat is sent, and silence measured, this often.
    pub heartbeat: Duration,
    /// A peer of a running pair that is silent for so long is suspected.
    pub silence: Duration,
    /// The same while the pair is being made: a guest image is sent and a machine built.
    pub joining: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(20),
            silence: Duration::from_millis(250),
            joining: Duration::from_secs(10),
        }
    }
}

/// Why the other side is thought dead. It may not be: only the arbiter decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Its connection closed: a hint that skips the wait, and is no proof.
    Closed,
    /// Nothing was heard of it for so long.
    Silent(Duration),
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspicion::Closed => write!(f, "its connection closed"),
            Suspicion::Silent(time) => write!(f, "it was silent for {} ms", time.as_millis()),
        }
    }
}

/// Watches one peer.
///
/// Call [`Detector::tick`] when [`Detector::next_tick`] has come, [`Detector::heard`] for whatever
/// the peer sends, and look at [`Detector::suspicion`] after a tick. A tick that comes late shows
/// that this side itself did not run, and so could not have heard: the silence counts from then.
#[derive(Debug)]
pub struct Detector {
    heartbeat: Duration,
    limit: Duration,
    /// Silence counts from here.
    heard: Time,
    last_tick: Time,
    closed: bool,
}

impl Detector {
    /// Starts to watch; `limit` is the silence that is suspicious.
    pub fn new(heartbeat: Duration, limit: Duration, now: Time) -> Detector {
        Detector {
            heartbeat,
            limit,
            heard: now,
            last_tick: now,
            closed: false,
        }
    }

    /// Starts the silence anew, with another limit.
    pub fn relimit(&mut self, limit: Duration, now: Time) {
        (self.limit, self.heard) = (limit, now);
    }

    /// The peer sent something. Withdraws a suspicion for silence.
    pub fn heard(&mut self, now: Time) {
        self.heard = self.heard.max(now);
    }

    /// The connection closed.
    pub fn closed(&mut self) {
        self.closed = true;
    }

    /// When the next tick is due.
    pub fn next_tick(&self) -> Time {
        self.last_tick.after(self.heartbeat)
    }

    /// Does the tick if it is due; whether it was.
    pub fn tick(&mut self, now: Time) -> bool {
        if now < self.next_tick() {
            return false;
        }
        if now.since(self.last_tick) > self.heartbeat * LATE_TICKS {
            self.heard = self.heard.max(now);
        }
        self.last_tick = now;
        true
    }

    /// What there is against the peer at the last tick.
    pub fn suspicion(&self) -> Option<Suspicion> {
        let silence = self.last_tick.since(self.heard);
        match (self.closed, silence >= self.limit) {
            (true, _) => Some(Suspicion::Closed),
            (false, true) => Some(Suspicion::Silent(silence)),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests;
