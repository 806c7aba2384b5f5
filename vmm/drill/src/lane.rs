//! One direction of a wire, with the frames that one host sends. It has no clock: the time is an
//! argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most bytes under way. A frame beyond that is dropped, as at a full port of a switch.
const UNDER_WAY_BYTES: usize = 1 << 20;

/// Where the type is in an Ethernet frame, and the protocol in an IPv4 packet in it.
const ETHERTYPE: std::ops::Range<usize> = 12..14;
const IP_PROTOCOL: usize = 23;
const IPV4: [u8; 2] = [0x08, 0x00];
const UDP: u8 = 17;

/// How a direction treats frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quality {
    /// No frame arrives.
    pub(super) cut: bool,
    /// No frame with UDP arrives: heartbeats are lost.
    pub(super) loses_udp: bool,
    /// How long a frame is under way.
    pub(super) delay: Duration,
    /// How many bytes it carries per second; `None` means no limit.
    pub(super) bytes_per_second: Option<u32>,
}

impl Quality {
    /// No frame arrives.
    pub(super) const CUT: Self = Self {
        cut: true,
        loses_udp: false,
        delay: Duration::ZERO,
        bytes_per_second: None,
    };
}

/// Counts of the frames so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Frames that arrived, or are under way.
    pub(super) passed: u64,
    /// Frames that did not arrive because the direction was cut.
    pub(super) cut: u64,
    /// Heartbeats that did not arrive because UDP was lost.
    pub(super) lost_udp: u64,
    /// Frames that did not arrive because too many bytes were under way.
    pub(super) overflowed: u64,
}

/// The frames under way in one direction.
#[derive(Debug, Default)]
pub(super) struct Lane {
    quality: Quality,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// When the last byte that was accepted leaves.
    busy_until: Option<Instant>,
    counts: Counts,
}

impl Lane {
    /// From now on frames are treated like this. A cut also drops the frames under way.
    pub(super) fn set(&mut self, quality: Quality) {
        self.quality = quality;
        if quality.cut {
            self.counts.passed -= self.under_way.len() as u64;
            self.counts.cut += self.under_way.len() as u64;
            self.under_way.clear();
            self.bytes = 0;
        }
    }

    /// Accepts a frame.
    pub(super) fn enter(&mut self, now: Instant, frame: &[u8]) {
        if self.quality.cut {
            self.counts.cut += 1;
        } else if self.quality.loses_udp && is_udp(frame) {
            self.counts.lost_udp += 1;
        } else if self.bytes + frame.len() > UNDER_WAY_BYTES {
            self.counts.overflowed += 1;
        } else {
            self.counts.passed += 1;
            let arrives = self.arrival(now, frame.len());
            self.bytes += frame.len();
            self.under_way.push_back((arrives, frame.to_vec()));
        }
    }

    fn arrival(&mut self, now: Instant, bytes: usize) -> Instant {
        let starts = self.busy_until.map_or(now, |busy| busy.max(now));
        let takes = match self.quality.bytes_per_second {
            Some(rate) => Duration::from_secs_f64(bytes as f64 / f64::from(rate)),
            None => Duration::ZERO,
        };
        self.busy_until = Some(starts + takes);
        let arrives = starts + takes + self.quality.delay;
        // Frames stay in order, also when the direction becomes faster.
        let last = self.under_way.back().map(|(last, _)| *last);
        last.map_or(arrives, |last| last.max(arrives))
    }

    /// The next frame that has arrived.
    pub(super) fn leave(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (arrives, _) = self.under_way.front()?;
        if *arrives > now {
            return None;
        }
        let (_, frame) = self.under_way.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    /// When the next frame arrives.
    pub(super) fn next(&self) -> Option<Instant> {
        self.under_way.front().map(|(arrives, _)| *arrives)
    }

    /// Counts of the frames so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

fn is_udp(frame: &[u8]) -> bool {
    frame.get(ETHERTYPE) == Some(&IPV4) && frame.get(IP_PROTOCOL) == Some(&UDP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn frame(protocol: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len];
        frame[ETHERTYPE].copy_from_slice(&IPV4);
        frame[IP_PROTOCOL] = protocol;
        frame
    }

    fn lane(quality: Quality) -> Lane {
        let mut lane = Lane::default();
        lane.set(quality);
        lane
    }

    #[test]
    fn a_good_wire_carries_all_at_once_and_in_order() {
        let (mut lane, now) = (lane(Quality::default()), Instant::now());
        for len in [60, 61, 62] {
            lane.enter(now, &frame(UDP, len));
        }
        let lens = [(); 4].map(|()| lane.leave(now).map(|f| f.len()));
        assert_eq!(lens, [Some(60), Some(61), Some(62), None]);
        assert_eq!(lane.counts().passed, 3);
    }

    #[test]
    fn a_cut_wire_carries_nothing_not_even_what_was_under_way() {
        let now = Instant::now();
        let mut lane = lane(Quality {
            delay: MS,
            ..Quality::default()
        });
        lane.enter(now, &frame(6, 60));
        lane.set(Quality::CUT);
        lane.enter(now, &frame(6, 60));
        assert_eq!(lane.leave(now + MS), None);
        let counts = Counts {
            cut: 2,
            ..Counts::default()
        };
        assert_eq!(lane.counts(), counts);
        lane.set(Quality::default());
        lane.enter(now, &frame(6, 60));
        assert!(lane.leave(now).is_some(), "a mended wire carries again");
    }

    #[test]
    fn lost_heartbeats_are_lost_alone() {
        let now = Instant::now();
        let mut lane = lane(Quality {
            loses_udp: true,
            ..Quality::default()
        });
        for protocol in [UDP, 6, UDP] {
            lane.enter(now, &frame(protocol, 60));
        }
        // ARP has no protocol field: byte 23 belongs to an address there.
        let mut arp = frame(UDP, 60);
        arp[ETHERTYPE].copy_from_slice(&[0x08, 0x06]);
        lane.enter(now, &arp);
        assert_eq!((lane.counts().passed, lane.counts().lost_udp), (2, 2));
        assert_eq!(lane.leave(now).map(|f| f[IP_PROTOCOL]), Some(6));
    }

    #[test]
    fn a_slow_wire_takes_its_time_for_each_byte_and_for_the_way() {
        let now = Instant::now();
        let mut lane = lane(Quality {
            delay: 5 * MS,
            bytes_per_second: Some(1_000_000),
            ..Quality::default()
        });
        for _ in 0..2 {
            lane.enter(now, &frame(6, 1000));
        }
        assert_eq!(lane.next(), Some(now + 6 * MS));
        assert_eq!(lane.leave(now + 5 * MS), None);
        assert!(lane.leave(now + 6 * MS).is_some());
        assert_eq!(lane.leave(now + 6 * MS), None, "the second one waited");
        assert_eq!(lane.next(), Some(now + 7 * MS));
        lane.set(Quality::default());
        lane.enter(now, &frame(6, 60));
        assert_eq!(lane.leave(now), None, "nobody overtakes");
        assert_eq!(lane.leave(now + 7 * MS).map(|f| f.len()), Some(1000));
        assert_eq!(lane.leave(now + 7 * MS).map(|f| f.len()), Some(60));
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let now = Instant::now();
        let mut lane = lane(Quality {
            delay: MS,
            ..Quality::default()
        });
        for _ in 0..UNDER_WAY_BYTES / 1000 + 5 {
            lane.enter(now, &frame(6, 1000));
        }
        assert_eq!(lane.counts().overflowed, 5);
    }
}
