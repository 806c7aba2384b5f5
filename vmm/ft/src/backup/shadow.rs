//! Shadow receive: the backup keeps the frames that its own TAP gets, so that a request that died with
//! the primary need not wait until the client's TCP repeats it.
//!
//! Both TAPs get every frame, if the bridges do not learn where the guest is. A frame that the primary
//! received also arrives in the log, before or after it arrives here: the two are matched by their
//! hashes, and the frame is dropped. The frames that are left when this side goes live were never
//! logged.

use ft_protocol::Time;
use ft_protocol::log::{Entry, Event};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Most bytes of kept frames. The oldest are dropped first.
pub const RING_BYTES: usize = 4 << 20;
/// How long frames, and hashes of frames in the log, are kept.
pub const RING_TIME: Duration = Duration::from_secs(2);
/// Most hashes of the log's frames that wait for their frame.
const LOGGED: usize = 1 << 16;

/// The ring of frames that the log does not have.
#[derive(Debug, Default)]
pub struct Shadow {
    frames: VecDeque<Kept>,
    bytes: usize,
    /// Hashes of frames that were in the log before they arrived here, in order, and how often each.
    logged: VecDeque<(Time, u64)>,
    awaited: HashMap<u64, u32>,
}

#[derive(Debug)]
struct Kept {
    at: Time,
    hash: u64,
    data: Vec<u8>,
}

impl Shadow {
    /// The TAP gave this frame, which is for the guest.
    pub fn received(&mut self, now: Time, frame: &[u8]) {
        self.expire(now);
        let hash = xxh3_64(frame);
        if take_one(&mut self.awaited, hash) {
            return;
        }
        self.bytes += frame.len();
        self.frames.push_back(Kept {
            at: now,
            hash,
            data: frame.to_vec(),
        });
        while self.bytes > RING_BYTES {
            self.drop_oldest();
        }
    }

    /// These entries were added to the log.
    pub fn logged<'a>(&mut self, now: Time, entries: impl IntoIterator<Item = &'a Entry>) {
        self.expire(now);
        for entry in entries {
            let Event::Frame { data } = &entry.event else {
                continue;
            };
            let hash = xxh3_64(data);
            match self.frames.iter().position(|kept| kept.hash == hash) {
                Some(at) => {
                    let kept = self.frames.remove(at).expect("it was found there");
                    self.bytes -= kept.data.len();
                }
                None => {
                    self.logged.push_back((now, hash));
                    *self.awaited.entry(hash).or_default() += 1;
                }
            }
        }
        while self.logged.len() > LOGGED {
            self.forget_oldest();
        }
    }

    /// The frames that the log does not have, in order.
    pub fn take(&mut self, now: Time) -> Vec<Vec<u8>> {
        self.expire(now);
        self.bytes = 0;
        self.frames.drain(..).map(|kept| kept.data).collect()
    }

    fn expire(&mut self, now: Time) {
        let old = |at: Time| now.since(at) > RING_TIME;
        while self.frames.front().is_some_and(|kept| old(kept.at)) {
            self.drop_oldest();
        }
        while self.logged.front().is_some_and(|(at, _)| old(*at)) {
            self.forget_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(kept) = self.frames.pop_front() {
            self.bytes -= kept.data.len();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.logged.pop_front() {
            take_one(&mut self.awaited, hash);
        }
    }
}

/// Takes one `key` out. Returns whether there was one.
fn take_one<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) -> bool {
    let Some(count) = counts.get_mut(&key) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use ft_protocol::log::Position;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn ms(n: u64) -> Time {
        Time(n * 1_000_000)
    }

    fn frame(n: u8) -> Vec<u8> {
        let mut frame = vec![n; 60];
        frame[..6].copy_from_slice(&MAC);
        frame
    }

    fn entry(data: Vec<u8>) -> Entry {
        Entry {
            at: Position::exit(1),
            check: None,
            event: Event::Frame { data },
        }
    }

    #[test]
    fn what_the_log_has_is_dropped_whichever_came_first() {
        let mut shadow = Shadow::default();
        shadow.received(ms(0), &frame(1));
        shadow.logged(ms(1), [&entry(frame(2)), &entry(frame(1))]);
        shadow.received(ms(2), &frame(2));
        shadow.received(ms(3), &frame(3));
        shadow.received(ms(3), &frame(4));
        assert_eq!(shadow.take(ms(4)), [frame(3), frame(4)]);
        assert_eq!(shadow.take(ms(4)), [] as [Vec<u8>; 0]);
    }

    #[test]
    fn equal_frames_are_counted() {
        let mut shadow = Shadow::default();
        (0..3).for_each(|n| shadow.received(ms(n), &frame(1)));
        shadow.logged(ms(3), [&entry(frame(1)), &entry(frame(1))]);
        assert_eq!(shadow.take(ms(4)).len(), 1);
        shadow.logged(ms(5), [&entry(frame(2)), &entry(frame(2))]);
        (0..3).for_each(|n| shadow.received(ms(5 + n), &frame(2)));
        assert_eq!(shadow.take(ms(9)).len(), 1);
    }

    #[test]
    fn what_is_old_is_dropped_on_both_sides() {
        let mut shadow = Shadow::default();
        shadow.received(ms(0), &frame(1));
        shadow.logged(ms(0), [&entry(frame(2))]);
        shadow.received(ms(1999), &frame(3));
        shadow.received(ms(2001), &frame(2));
        assert_eq!(shadow.take(ms(2002)), [frame(3), frame(2)]);
        assert!(shadow.awaited.is_empty());
    }

    #[test]
    fn the_ring_is_bounded_and_keeps_the_newest() {
        let mut shadow = Shadow::default();
        let mut big = vec![0; 1000];
        big[..6].copy_from_slice(&MAC);
        for n in 0..6000u32 {
            big[10..14].copy_from_slice(&n.to_le_bytes());
            shadow.received(ms(1), &big);
        }
        let kept = shadow.take(ms(1));
        assert_eq!(kept.len(), RING_BYTES / 1000);
        assert_eq!(kept.last().unwrap()[10..14], 5999u32.to_le_bytes());
        for n in 0..2 * LOGGED as u32 {
            big[10..14].copy_from_slice(&n.to_le_bytes());
            shadow.logged(ms(1), [&entry(big.clone())]);
        }
        assert_eq!(
            (shadow.logged.len(), shadow.awaited.len()),
            (LOGGED, LOGGED)
        );
    }
}
