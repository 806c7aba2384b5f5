//! The neighbours' MAC addresses, and packets that wait for one.
//!
//! A peer that sends to the server gives its address with that, so requests are rare. Their rate is
//! limited per neighbour, not for all together: neighbours that have vanished cannot delay others.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Address};

/// Most neighbours that are remembered. The one not heard for the longest time is replaced.
pub const NEIGHBORS: usize = 1024;
/// Most packets that wait until a neighbour's MAC address is known. The oldest is dropped.
pub const HELD: usize = 64;
/// An address that was not confirmed for this time is requested again, if it is still used.
pub const FRESH: Duration = Duration::from_secs(60);
/// Least time between two requests to the same neighbour.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After this many requests without an answer an address is forgotten.
pub const REQUESTS: u32 = 3;

#[derive(Clone, Copy, Debug)]
struct Neighbor {
    mac: Option<EthernetAddress>,
    /// When it was last confirmed; before that, when it was first requested.
    confirmed_at: Instant,
    asked_at: Option<Instant>,
    /// Requests since it was confirmed.
    requests: u32,
}

/// What is known about a neighbour when a packet is about to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its address; `None` if the packet must wait.
    pub mac: Option<EthernetAddress>,
    /// Must the neighbour's address be requested now? This counts as done.
    pub ask: bool,
}

/// All that is known about neighbours.
#[derive(Debug, Default)]
pub struct Neighbors {
    known: BTreeMap<Ipv4Address, Neighbor>,
    held: VecDeque<(Ipv4Address, Vec<u8>)>,
}

impl Neighbors {
    /// Learns from ARP that `ip` is at `mac`.
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

    /// Learns from an ARP packet to others that `ip` is at `mac`, if the neighbour is known.
    pub fn correct(&mut self, ip: Ipv4Address, mac: EthernetAddress, now: Instant) {
        if self.known.contains_key(&ip) {
            self.learn(ip, mac, now);
        }
    }

    /// Learns from a packet that `ip` is at `mac`, unless ARP has said otherwise: some hosts send from
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

    /// The neighbour's address, for a packet to `ip` that is about to leave.
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

    /// Keeps a packet until the address of `ip` is known.
    pub fn hold(&mut self, ip: Ipv4Address, packet: &[u8]) {
        if self.held.len() >= HELD {
            self.held.pop_front();
        }
        self.held.push_back((ip, packet.to_vec()));
    }

    /// The next packet whose neighbour's address is known now, with that address.
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
