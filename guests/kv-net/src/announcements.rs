//! When to announce the server's address after the network has come up.
//!
//! Hosts may remember a different MAC address for it, that of a machine that had the address before.
//! One frame would be enough if it arrived. But a bridge may forward nothing for its first half minute
//! (two times its forward delay of 15 s), so the announcement is repeated, at growing intervals.

use smoltcp::time::{Duration, Instant};

/// How often the address is announced: at once, and 1, 3, 7, 15, 31 seconds later.
const TIMES: u32 = 6;
/// Time from the first announcement to the second; each later interval is twice the one before.
const FIRST_DISTANCE: Duration = Duration::from_secs(1);

/// The announcements that are still to come.
#[derive(Clone, Copy, Debug)]
pub struct Announcements {
    left: u32,
    next_at: Instant,
    distance: Duration,
}

impl Announcements {
    /// The announcements of a network that comes up now.
    pub fn new(now: Instant) -> Self {
        Self {
            left: TIMES,
            next_at: now,
            distance: FIRST_DISTANCE,
        }
    }

    /// Is an announcement due? If so, it counts as made.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.next_at().is_some_and(|at| at <= now);
        if due {
            self.left -= 1;
            self.next_at = now + self.distance;
            self.distance *= 2;
        }
        due
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.next_at)
    }
}
