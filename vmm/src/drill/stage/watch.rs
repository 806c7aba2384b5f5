//! Looking on while nothing is done.

use std::time::{Duration, Instant};

use super::super::events::Kind;
use super::{RunError, Stage};

/// A member that reports nothing is looked at again after this, also where its file tells of no change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Stage {
    /// Waits for `limit`, less if a member reports something that `wanted` accepts; whether one did. A
    /// member's end is an error.
    pub(in crate::drill) fn happens_within(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Kind) -> bool,
    ) -> Result<bool, RunError> {
        let deadline = Instant::now() + limit;
        loop {
            let told = self.members.logs();
            let mut events = told.iter().flat_map(|(_, events)| events);
            if events.any(|e| wanted(&e.kind)) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.members
                .pause("the quiet was over", left.min(LOOK_AGAIN))?;
        }
    }
}
