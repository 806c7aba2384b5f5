//! The clock that members' events and the drill's own moments share.

use rustix::time::{ClockId, clock_gettime};

/// Now on CLOCK_MONOTONIC, in nanoseconds: comparable across the processes of one machine.
pub(super) fn mono_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("CLOCK_MONOTONIC starts at zero");
    seconds * 1_000_000_000 + now.tv_nsec as u64
}
