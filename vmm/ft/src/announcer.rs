//! A survivor announces to the network for minutes where the guest is now, more and more rarely.
//!
//! One announcement is not enough. A frame of the other side that was under way, or that a stopped side
//! still sent, teaches bridges the old place again, and a guest that no client asks sends nothing.

use ft_protocol::Time;
use ft_protocol::log::NetConfig;
use lockstep_backends::Tap;
use lockstep_backends::announce::{gratuitous_arp, rarp};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// How long the MAC is announced: the time after which bridges forget what they learned.
pub const ANNOUNCE_FOR: Duration = Duration::from_secs(300);
/// The first interval between two announcements.
pub const ANNOUNCE_FIRST: Duration = Duration::from_millis(100);
/// The longest interval between two announcements.
pub const ANNOUNCE_LAST: Duration = Duration::from_secs(10);
/// In between, an interval is this part of the time that has passed.
const SLOWING: u32 = 10;

/// A survivor's announcements.
#[derive(Debug)]
pub struct Announcer {
    tap: Arc<Tap>,
    net: NetConfig,
    since: Time,
    /// `None` when all were made.
    next: Option<Time>,
}

impl Announcer {
    /// For a guest with this network, which is behind this TAP since `now`.
    pub fn new(tap: Arc<Tap>, net: NetConfig, now: Time) -> Announcer {
        Announcer {
            tap,
            net,
            since: now,
            next: Some(now),
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Time> {
        self.next
    }

    /// Announces if that is due and `may` is true. A side that is not sure that the guest is here sends
    /// nothing.
    pub fn tick(&mut self, now: Time, may: bool) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        if may {
            self.announce();
        }
        let passed = now.since(self.since);
        let wait = (passed / SLOWING).clamp(ANNOUNCE_FIRST, ANNOUNCE_LAST);
        self.next = (passed < ANNOUNCE_FOR).then(|| now.after(wait));
    }

    fn announce(&self) {
        let ip = Ipv4Addr::from(self.net.ip);
        for frame in [gratuitous_arp(self.net.mac, ip), rarp(self.net.mac)] {
            if let Err(e) = self.tap.send(&frame) {
                tracing::warn!("cannot announce the MAC ({e})");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_netns::testing::in_own_network;

    #[test]
    fn it_announces_for_minutes_and_slows_down() {
        let path = concat!(module_path!(), "::it_announces_for_minutes_and_slows_down");
        in_own_network(path, || {
            let tap = Arc::new(Tap::open("tap-a").unwrap());
            let net = NetConfig {
                mac: [2, 0, 0, 0, 0, 9],
                ip: [10, 77, 0, 2],
                prefix_len: 24,
                gateway: [0; 4],
            };
            let start = Time(7);
            let mut announcer = Announcer::new(tap, net, start);
            let mut times = Vec::new();
            while let Some(next) = announcer.next() {
                announcer.tick(next, true);
                times.push(next.since(start));
            }
            let gaps: Vec<_> = times.windows(2).map(|t| t[1] - t[0]).collect();
            assert_eq!(times[0], Duration::ZERO, "at once");
            assert_eq!(gaps[0], ANNOUNCE_FIRST);
            assert!(gaps.is_sorted(), "{gaps:?}");
            assert_eq!(gaps.last(), Some(&ANNOUNCE_LAST));
            assert!(times.last().unwrap() >= &ANNOUNCE_FOR);
            assert!(times.len() < 100, "{} announcements", times.len());
        });
    }
}
