//! The failure detector: heartbeats and silence (paper, section 2.3).

use crate::Time;
use std::fmt;
use std::time::Duration;

/// Own ticks may be this many heartbeat intervals apart before the detector distrusts itself; no tick
/// counts more than so much silence.
pub const LATE_TICKS: u32 = 3;

/// How fast a silent peer is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// A heartbeat is sent, and silence measured, this often.
    pub heartbeat: Duration,
    /// A peer of a running pair that is silent for so long, on the channel and by UDP, is suspected.
    pub silence: Duration,
    /// A channel that is silent for so long is given up, though the peer still sends beats by UDP: a
    /// pair without its channel stands still.
    pub stuck: Duration,
    /// The same while the pair is being made: a guest image is sent and a machine built.
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

/// Why the other side is thought dead. It may not be: only the arbiter decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// Its connection closed: a hint that skips the wait, and is no proof.
    Closed,
    /// Nothing was heard of it for so long, on no way.
    Silent(Duration),
    /// It sends beats, and its channel carried nothing for so long.
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
/// Call [`Detector::tick`] when [`Detector::next_tick`] has come, [`Detector::heard`] for whatever
/// the peer sends on the channel, [`Detector::heard_beat`] for a beat by UDP, and look at
/// [`Detector::suspicion`] after a tick. Whatever has arrived by the time of a tick is to be handed in
/// before it: a peer is not silent because nobody has listened yet.
///
/// A tick that comes late shows that this side itself did not run, with all of its host perhaps, and so
/// could not have heard: the silence counts from then. That is granted once until the peer is heard
/// again. On a host where every tick is late, each further one counts as [`LATE_TICKS`] intervals: a dead
/// peer is found out there too, only later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Detector {
    heartbeat: Duration,
    limit: Duration,
    stuck: Duration,
    /// Silence of the channel counts from here, and that of beats.
    heard: Time,
    beat: Time,
    last_tick: Time,
    /// A late tick was forgiven since the peer was heard.
    forgiven: bool,
    closed: bool,
}

impl Detector {
    /// Starts to watch; `limit` is the silence that is suspicious.
    pub fn new(timing: &Timing, limit: Duration, now: Time) -> Detector {
        Detector {
            heartbeat: timing.heartbeat,
            limit,
            stuck: timing.stuck,
            heard: now,
            beat: now,
            last_tick: now,
            forgiven: false,
            closed: false,
        }
    }

    /// Starts the silence anew, with another limit.
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

    /// When the next tick is due: a heartbeat after the last, or as soon as silence is suspicious.
    pub fn next_tick(&self) -> Time {
        let regular = self.last_tick.after(self.heartbeat);
        let suspicious = self.heard.max(self.beat).after(self.limit);
        match suspicious > self.last_tick {
            true => regular.min(suspicious),
            false => regular,
        }
    }

    /// Whether this side itself did not run as it should since its last tick.
    pub fn is_late(&self, now: Time) -> bool {
        now.since(self.last_tick) > self.heartbeat * LATE_TICKS
    }

    /// Does the tick if it is due; whether it was.
    pub fn tick(&mut self, now: Time) -> bool {
        if now < self.next_tick() {
            return false;
        }
        let (since, counts) = (now.since(self.last_tick), self.heartbeat * LATE_TICKS);
        if since > counts {
            let absent = match std::mem::replace(&mut self.forgiven, true) {
                // All that counted so far, too: who knows how long a host slept before it was noticed.
                false => now.since(Time(0)),
                true => since - counts,
            };
            self.heard = self.heard.after(absent).min(now);
            self.beat = self.beat.after(absent).min(now);
        }
        self.last_tick = now;
        true
    }

    /// How long the peer has been silent, on both ways.
    pub fn silence(&self, now: Time) -> Duration {
        now.since(self.heard.max(self.beat))
    }

    /// What there is against the peer at the last tick.
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
