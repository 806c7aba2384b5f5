//! Requests for a connection (SYNs) that wait until a place is free.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use smoltcp::time::{Duration, Instant};

use crate::Peer;

/// Most requests that wait. The oldest is dropped.
pub const WAITING: usize = 256;
/// The longest time that a request waits. A host that still wants a connection has repeated its request
/// by then: hosts do so after 1, 3 and 7 seconds.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the longest request that may wait: two headers, full of options.
pub const LONGEST: usize = 120;

#[derive(Debug)]
struct Request {
    peer: Peer,
    packet: Vec<u8>,
    since: Instant,
}

/// All waiting requests, the oldest first.
#[derive(Debug, Default)]
pub struct Waiting(VecDeque<Request>);

impl Waiting {
    /// Lets a request wait. A repeated request keeps its place in the queue.
    pub fn push(&mut self, peer: Peer, packet: &[u8], now: Instant) {
        if packet.len() > LONGEST {
            return;
        }
        if let Some(same) = self.0.iter_mut().find(|it| it.peer == peer) {
            same.packet = packet.to_vec();
            same.since = now;
            return;
        }
        if self.0.len() >= WAITING {
            self.0.pop_front();
        }
        self.0.push_back(Request {
            peer,
            packet: packet.to_vec(),
            since: now,
        });
    }

    /// The oldest request.
    pub fn pop(&mut self) -> Option<(Peer, Vec<u8>)> {
        let request = self.0.pop_front()?;
        Some((request.peer, request.packet))
    }

    /// Drops the requests that have waited too long. Returns whether any is left.
    pub fn expire(&mut self, now: Instant) -> bool {
        self.0.retain(|request| now < request.since + PATIENCE);
        !self.0.is_empty()
    }

    /// Does no request wait?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
