//! Time, which the runtime passes in.

use std::time::Duration;

/// A moment: nanoseconds since an arbitrary start, on a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment this much later.
    pub fn after(self, wait: Duration) -> Time {
        Time(
            self.0
                .saturating_add(wait.as_nanos().try_into().unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero if it was not.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
