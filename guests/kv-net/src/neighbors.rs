//! The neighbours' MAC addresses, and packets that wait for one.
//!
//! Who talks to us has told its address with it, so requests are rare. There is a limit on them per
//! neighbour and none for all together: vanished ones cannot hold up others.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Address};

/// Neighbours that are remembered. The one that was not heard for the longest time gives way.
pub const NEIGHBORS: usize = 1024;
/// Packets that wait until a neighbour's MAC address is known. The oldest gives way.
pub const HELD: usize = 64;
/// An address that was not confirmed for this time is asked for again, while it is still used.
pub const FRESH: Duration = Duration::from_secs(60);
/// The same neighbour is not asked for again within this time.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After so many requests without an answer an address is forgotten.
pub const REQUESTS: u32 = 3;

#[derive(Clone, Copy, Debug)]
struct Neighbor {
    mac: Option<EthernetAddress>,
    /// When it was last confirmed; when it was first looked for, if it never was.
    confirmed_at: Instant,
    asked_at: Option<Instant>,
    /// Requests since it was confirmed.
    requests: u32,
}

/// What is known when a packet is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where to send it; without it the packet has to wait.
    pub mac: Option<EthernetAddress>,
    /// Whether the neighbour is to be asked for its address now. This counts as done.
    pub ask: bool,
}

/// What is known of the neighbours.
#[derive(Debug, Default)]
pub struct Neighbors {
    known: BTreeMap<Ipv4Address, Neighbor>,
    held: VecDeque<(Ipv4Address, Vec<u8>)>,
}

impl Neighbors {
    /// ARP told that `ip` is at `mac`.
    pub fn learn(&mut self, ip: Ipv4Address, mac: EthernetAddress, now: Instant) {
        if !self.known.contains_key(&ip) {
            self.make_room();
        }
        let neighbor = Neighbor {
            mac: Some(mac),
            confirmed_at: now,
            asked_at: None,
            requests: 0,
        };
        self.known.insert(ip, neighbor);
    }

    /// ARP told others that `ip` is at `mac`: of use only if we know the neighbour.
    pub fn correct(&mut self, ip: Ipv4Address, mac: EthernetAddress, now: Instant) {
        if self.known.contains_key(&ip) {
            self.learn(ip, mac, now);
        }
    }

    /// A packet of `ip` came from `mac`. What ARP told goes before this: some hosts send from
    /// another card than they receive with.
    pub fn heard(&mut self, ip: Ipv4Address, mac: EthernetAddress, now: Instant) {
        match self.known.get_mut(&ip) {
            Some(neighbor) if neighbor.mac == Some(mac) => {
                neighbor.confirmed_at = now;
                neighbor.requests = 0;
            }
            Some(neighbor) if neighbor.mac.is_some() => {}
            Some(_) | None => self.learn(ip, mac, now),
        }
    }

    /// The way to `ip`, for a packet that is about to leave.
    pub fn find(&mut self, ip: Ipv4Address, now: Instant) -> Answer {
        if !self.known.contains_key(&ip) {
            self.make_room();
        }
        let neighbor = self.known.entry(ip).or_insert(Neighbor {
            mac: None,
            confirmed_at: now,
            asked_at: None,
            requests: 0,
        });
        let fresh = neighbor.mac.is_some() && now < neighbor.confirmed_at + FRESH;
        let patient = neighbor.asked_at.is_some_and(|at| now < at + ASK_AGAIN);
        let ask = !fresh && !patient;
        if ask {
            if neighbor.requests >= REQUESTS {
                neighbor.mac = None;
            }
            neighbor.requests = neighbor.requests.saturating_add(1);
            neighbor.asked_at = Some(now);
        }
        Answer {
            mac: neighbor.mac,
            ask,
        }
    }

    /// Keeps a packet until it is known where `ip` is.
    pub fn hold(&mut self, ip: Ipv4Address, packet: &[u8]) {
        if self.held.len() >= HELD {
            self.held.pop_front();
        }
        self.held.push_back((ip, packet.to_vec()));
    }

    /// The next packet that waits no more, and where it goes.
    pub fn release(&mut self) -> Option<(EthernetAddress, Vec<u8>)> {
        let mut held = self.held.iter().enumerate();
        let (index, mac) =
            held.find_map(|(index, (ip, _))| Some((index, self.known.get(ip)?.mac?)))?;
        let (_, packet) = self.held.remove(index)?;
        Some((mac, packet))
    }

    fn make_room(&mut self) {
        if self.known.len() < NEIGHBORS {
            return;
        }
        let stalest = self.known.iter().min_by_key(|(_, it)| it.confirmed_at);
        if let Some((&ip, _)) = stalest {
            self.known.remove(&ip);
        }
    }
}
