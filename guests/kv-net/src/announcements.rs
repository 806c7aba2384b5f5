//! When to announce our address after the network has come up.
//!
//! Hosts may remember another MAC address for it, of a machine that had it before. One frame would
//! do, if it arrived; but a bridge may take half a minute before it forwards (two times its forward
//! delay of 15 s), so it is repeated, at growing distances.

use smoltcp::time::{Duration, Instant};

/// How often the address is announced: at once, and 1, 3, 7, 15, 31 seconds later.
const TIMES: u32 = 6;
/// From the first announcement to the second; each later distance is twice the one before.
const FIRST_DISTANCE: Duration = Duration::from_secs(1);

/// The announcements that are still to be made.
#[derive(Clone, Copy, Debug)]
pub struct Announcements {
    left: u32,
    next_at: Instant,
    distance: Duration,
}

impl Announcements {
    /// The network comes up now.
    pub fn new(now: Instant) -> Self {
        Self {
            left: TIMES,
            next_at: now,
            distance: FIRST_DISTANCE,
        }
    }

    /// Whether one is due; it counts as made then.
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
