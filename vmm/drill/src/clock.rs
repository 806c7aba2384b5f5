//! The clock of members' events and of the drill's own moments.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, nanoseconds: the same for all processes of one host.
pub(super) fn mono_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("CLOCK_MONOTONIC starts at zero");
    seconds * 1_000_000_000 + now.tv_nsec as u64
}
