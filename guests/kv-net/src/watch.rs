//! Watches the segments between the server and its peers: which peers do not answer, and what the
//! server sent last.

use alloc::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber};

use crate::path_mtu::TooLong;
use crate::{PORT, Peer};

/// Least time between two answers to a peer that opens a connection that exists (RFC 5961, section 7).
const CHALLENGE_AGAIN: Duration = Duration::from_secs(1);
/// Bytes that may be under way to a peer: more than the stack's send window.
const UNDER_WAY: i32 = 1 << 16;

/// The numbers of the last segment that the server sent on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The sequence number after everything that was sent.
    pub next: TcpSeqNumber,
    /// The sequence number up to which the server has acknowledged.
    pub acknowledged: TcpSeqNumber,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// Since when a segment that needs an answer has none.
    unanswered_since: Option<Instant>,
    said: Option<Said>,
    /// The highest acknowledgement that was received.
    heard: Option<TcpSeqNumber>,
    challenged_at: Option<Instant>,
}

/// The peers of all connections.
#[derive(Debug, Default)]
pub struct Watch(BTreeMap<Peer, Watched>);

impl Watch {
    /// A connection with `peer` begins.
    pub fn begin(&mut self, peer: Peer) {
        self.0.insert(peer, Watched::default());
    }

    /// The connection with `peer` is over.
    pub fn end(&mut self, peer: Peer) {
        self.0.remove(&peer);
    }

    /// Since when `peer` has not answered.
    pub fn unanswered_since(&self, peer: Peer) -> Option<Instant> {
        self.0.get(&peer)?.unanswered_since
    }

    /// A segment came from `peer`. It is an answer if it acknowledges more than those before, or is
    /// nothing but an acknowledgement. A peer that does not receive the server's segments repeats its
    /// own instead.
    pub fn heard(&mut self, peer: Peer, segment: &TcpPacket<&[u8]>) {
        let Some(watched) = self.0.get_mut(&peer).filter(|_| segment.ack()) else {
            return;
        };
        let number = segment.ack_number();
        let news = watched.heard.is_none_or(|before| number > before);
        if news || segment.segment_len() == 0 {
            watched.unanswered_since = None;
        }
        if news {
            watched.heard = Some(number);
        }
    }

    /// Notes a packet that leaves.
    pub fn sent(&mut self, packet: &Ipv4Packet<&[u8]>, now: Instant) {
        if packet.next_header() != IpProtocol::Tcp {
            return;
        }
        let Ok(segment) = TcpPacket::new_checked(packet.payload()) else {
            return;
        };
        let peer = Peer {
            ip: packet.dst_addr(),
            port: segment.dst_port(),
        };
        let watched = self.0.get_mut(&peer).filter(|_| segment.src_port() == PORT);
        let Some(watched) = watched.filter(|_| !segment.rst()) else {
            return;
        };
        // A segment that takes no sequence numbers is only an acknowledgement, and has no answer.
        if segment.segment_len() > 0 {
            watched.unanswered_since.get_or_insert(now);
        }
        let next = segment.seq_number() + segment.segment_len();
        let before = watched.said.map_or(next, |said| said.next);
        watched.said = Some(Said {
            next: next.max(before),
            acknowledged: segment.ack_number(),
        });
    }

    /// May the segment that a router found too long be under way? If not, the router's message is
    /// forged or old.
    pub fn is_under_way(&self, message: &TooLong) -> bool {
        let said = self.0.get(&message.peer).and_then(|it| it.said);
        said.is_some_and(|said| {
            let back = said.next.0.wrapping_sub(message.sequence.0);
            (0..=UNDER_WAY).contains(&back)
        })
    }

    /// The numbers to send again to `peer`, which wants to open a connection that exists. `None` if
    /// this was done a moment ago.
    pub fn challenge(&mut self, peer: Peer, now: Instant) -> Option<Said> {
        let watched = self.0.get_mut(&peer)?;
        let again_at = watched.challenged_at.map(|at| at + CHALLENGE_AGAIN);
        if again_at.is_some_and(|at| now < at) {
            return None;
        }
        watched.challenged_at = Some(now);
        watched.said
    }
}
