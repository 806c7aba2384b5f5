//! Which frames of a TAP are for the guest: those to its address, and a limited rate of broadcasts and
//! multicasts.
//!
//! A bridge that does not know where an address is sends its frames to every port. Frames for others
//! would cost work in the log, on the backup and in the guest, so they are dropped here, before they
//! are logged or kept.

use lockstep_devices::virtio::net::{MAX_FRAME, MIN_FRAME};
use std::time::{Duration, Instant};

/// Most broadcasts and multicasts that are accepted per second. More are dropped and counted.
pub const GROUP_FRAMES_PER_SECOND: u32 = 1000;
/// Most of them that are accepted at once.
pub const GROUP_BURST: u32 = 200;
/// Least time between two warnings that there were more.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// Counts of the frames that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Frames for others, and frames longer or shorter than virtio-net accepts.
    pub foreign: u64,
    /// Broadcasts and multicasts above the limit.
    pub over_rate: u64,
}

/// The filter for one guest.
#[derive(Debug)]
pub struct FrameFilter {
    mac: [u8; 6],
    /// How many broadcasts and multicasts may come now, and when that was computed.
    room: f64,
    at: Option<Instant>,
    counts: Filtered,
    /// The time of the last warning, and the number of dropped frames that it gave.
    warned: Option<(Instant, u64)>,
}

impl FrameFilter {
    /// A filter for the guest with this MAC address.
    pub fn new(mac: [u8; 6]) -> FrameFilter {
        FrameFilter {
            mac,
            room: f64::from(GROUP_BURST),
            at: None,
            counts: Filtered::default(),
            warned: None,
        }
    }

    /// Is this frame for the guest? `now` is called only if the rate matters.
    pub fn passes(&mut self, frame: &[u8], now: impl FnOnce() -> Instant) -> bool {
        if !(MIN_FRAME..=MAX_FRAME).contains(&frame.len()) {
            self.counts.foreign += 1;
            return false;
        }
        let (to, from) = (&frame[..6], &frame[6..12]);
        // The guest's own broadcasts come back through the other member's TAP. A network card does not
        // receive what it sends.
        let group = to[0] & 1 == 1 && from != self.mac;
        match group {
            true => self.has_room(now()),
            false => {
                let its = to == self.mac;
                self.counts.foreign += u64::from(!its);
                its
            }
        }
    }

    fn has_room(&mut self, now: Instant) -> bool {
        let since = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let more = since.as_secs_f64() * f64::from(GROUP_FRAMES_PER_SECOND);
        self.room = (self.room + more).min(f64::from(GROUP_BURST));
        self.at = Some(now);
        let room = self.room >= 1.0;
        match room {
            true => self.room -= 1.0,
            false => self.counts.over_rate += 1,
        }
        room
    }

    /// How many frames were dropped so far.
    pub fn counts(&self) -> Filtered {
        self.counts
    }

    /// How many broadcasts and multicasts were dropped so far, if a warning is due now.
    pub fn to_tell(&mut self, now: impl FnOnce() -> Instant) -> Option<u64> {
        let (last, told) = match self.warned {
            Some((at, told)) => (Some(at), told),
            None => (None, 0),
        };
        if self.counts.over_rate == told {
            return None;
        }
        let now = now();
        let due = last.is_none_or(|at| now.saturating_duration_since(at) >= WARN_AGAIN);
        due.then(|| {
            self.warned = Some((now, self.counts.over_rate));
            self.counts.over_rate
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 8];

    fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        [&to[..], &from, &[8, 0], &[0; 46]].concat()
    }

    #[test]
    fn the_guest_gets_its_own_and_what_is_for_everybody() {
        let now = Instant::now();
        let mut filter = FrameFilter::new(MAC);
        assert!(filter.passes(&frame(MAC, OTHER), || unreachable!("no clock is needed")));
        for to in [
            [0xff; 6],
            [0x01, 0, 0x5e, 0, 0, 1],
            [0x33, 0x33, 0, 0, 0, 1],
        ] {
            assert!(filter.passes(&frame(to, OTHER), || now), "{to:?}");
        }
        assert_eq!(filter.counts(), Filtered::default());
    }

    #[test]
    fn what_is_for_others_its_own_echo_and_what_is_no_frame_are_dropped() {
        let now = Instant::now();
        let mut filter = FrameFilter::new(MAC);
        let mut long = frame(MAC, OTHER);
        long.resize(MAX_FRAME + 1, 0);
        for bad in [
            &frame(OTHER, MAC)[..],
            &frame([0xff; 6], MAC),
            &long,
            &MAC,
            &[],
        ] {
            assert!(!filter.passes(bad, || now), "{bad:?}");
        }
        let foreign = Filtered {
            foreign: 5,
            over_rate: 0,
        };
        assert_eq!(filter.counts(), foreign);
    }

    #[test]
    fn broadcasts_are_limited_by_rate_and_unicast_is_not() {
        let start = Instant::now();
        let mut filter = FrameFilter::new(MAC);
        let all = frame([0xff; 6], OTHER);
        // Ten times the rate, for two seconds.
        let step = Duration::from_secs(1) / (10 * GROUP_FRAMES_PER_SECOND);
        let passed = (0..20 * GROUP_FRAMES_PER_SECOND)
            .filter(|n| filter.passes(&all, || start + step * *n))
            .count() as u32;
        let due = 2 * GROUP_FRAMES_PER_SECOND + GROUP_BURST;
        assert!((due - 2..=due).contains(&passed), "{passed}");
        let over_rate = u64::from(20 * GROUP_FRAMES_PER_SECOND - passed);
        assert_eq!(
            filter.counts(),
            Filtered {
                foreign: 0,
                over_rate
            }
        );
        assert!((0..10_000).all(|_| filter.passes(&frame(MAC, OTHER), || start)));
        let later = start + Duration::from_secs(3);
        assert!(filter.passes(&all, || later), "it recovers");
    }

    #[test]
    fn too_many_broadcasts_are_told_at_once_and_then_now_and_then() {
        let start = Instant::now();
        let mut filter = FrameFilter::new(MAC);
        assert_eq!(filter.to_tell(|| start), None);
        let all = frame([0xff; 6], OTHER);
        let flood = |filter: &mut FrameFilter| {
            for _ in 0..GROUP_BURST + 5 {
                filter.passes(&all, || start);
            }
        };
        flood(&mut filter);
        assert_eq!(filter.to_tell(|| start), Some(5));
        assert_eq!(filter.to_tell(|| start), None);
        flood(&mut filter);
        assert_eq!(filter.to_tell(|| start), None, "not so soon");
        let later = start + WARN_AGAIN;
        assert_eq!(filter.to_tell(|| later), Some(u64::from(GROUP_BURST) + 10));
    }
}
