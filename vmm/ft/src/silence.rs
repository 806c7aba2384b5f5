//! The longest silence of the other side, as the detector counts it: how near a member came to suspecting
//! it. Time in which this side itself did not run is in it as far as the detector counts it.

use super::EventLog;
use lockstep_events::Event;
use std::time::Duration;

/// Silence that is shorter is what heartbeats make: two of them.
const WORTH_TELLING: Duration = Duration::from_millis(40);
/// The longest one is told again when it has grown by so much.
const STEP: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug, Default)]
pub struct LongestSilence {
    longest: Duration,
    told: Duration,
}

impl LongestSilence {
    /// The other side, if there is one, was silent for so long at a tick.
    pub fn note(&mut self, silence: Option<Duration>, events: &mut EventLog) {
        self.longest = self.longest.max(silence.unwrap_or_default());
        if self.longest >= WORTH_TELLING.max(self.told + STEP) {
            self.told = self.longest;
            let longest_ms = self.ms();
            events.emit(Event::Silence { longest_ms });
        }
    }

    /// The longest one, ms.
    pub fn ms(&self) -> f64 {
        self.longest.as_secs_f64() * 1e3
    }
}
