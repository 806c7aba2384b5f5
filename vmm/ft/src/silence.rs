//! The longest silence of the peer, as the detector counts it: how near a member came to suspecting it.
//! Time in which this side itself did not run is included as far as the detector counts it.

use super::EventLog;
use lockstep_events::Event;
use std::time::Duration;

/// A shorter silence is normal between heartbeats: this is two intervals.
const WORTH_TELLING: Duration = Duration::from_millis(40);
/// The longest silence is reported again when it has grown by this much.
const STEP: Duration = Duration::from_millis(10);

/// The longest silence so far, and the last one that was reported.
#[derive(Debug, Default)]
pub struct LongestSilence {
    longest: Duration,
    told: Duration,
}

impl LongestSilence {
    /// At a tick, the peer, if there is one, had been silent for this time.
    pub fn note(&mut self, silence: Option<Duration>, events: &mut EventLog) {
        self.longest = self.longest.max(silence.unwrap_or_default());
        if self.longest >= WORTH_TELLING.max(self.told + STEP) {
            self.told = self.longest;
            let longest_ms = self.ms();
            events.emit(Event::Silence { longest_ms });
        }
    }

    /// The longest silence, ms.
    pub fn ms(&self) -> f64 {
        self.longest.as_secs_f64() * 1e3
    }
}
