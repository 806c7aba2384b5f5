//! Paths that carry less than Ethernet (RFC 1191): a router on such a path answers a packet that is too
//! long with "fragmentation needed".

use alloc::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Address, Ipv4Packet,
    TcpSeqNumber,
};

use crate::{MTU, PORT, Peer};

/// Most paths that are remembered. The one learned the longest time ago is replaced.
pub const PATHS: usize = 256;
/// How long a path is remembered; after that, longer packets are tried again (RFC 1191, section 6.3).
pub const REMEMBERED: Duration = Duration::from_secs(600);
/// Packets are not cut shorter than this, whatever a router says: else a forged message could make many
/// small packets of each. Routers may fragment packets on a path that carries less.
pub const LEAST: usize = 552;
/// Bytes of an ICMP message before the packet that it quotes.
const ICMP_HEADER: usize = 8;
/// Bytes of that packet's payload that a router must quote (RFC 792).
const QUOTED: usize = 8;

/// A router's message that a packet of the server was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The peer of the connection to which the segment belonged.
    pub peer: Peer,
    /// The segment's sequence number.
    pub sequence: TcpSeqNumber,
    /// Length of the packet, bytes.
    length: usize,
    /// MTU of the router's next link, bytes; 0 if it does not say.
    told: usize,
}

/// Reads an IP packet that may be such a message.
pub fn read(packet: &Ipv4Packet<&[u8]>) -> Option<TooLong> {
    let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    let about_length = icmp.msg_type() == Icmpv4Message::DstUnreachable
        && icmp.msg_code() == u8::from(Icmpv4DstUnreachable::FragRequired);
    if packet.next_header() != IpProtocol::Icmp || !about_length || !icmp.verify_checksum() {
        return None;
    }
    let bytes = packet.payload();
    let told = bytes.get(6..ICMP_HEADER)?;
    // Not `new_checked`: the quoted packet is not complete.
    let quoted = bytes.get(ICMP_HEADER..)?;
    let header = usize::from(quoted.first()? & 0x0f) * 4;
    let segment = quoted.get(header..header + QUOTED)?;
    let quoted = Ipv4Packet::new_unchecked(quoted);
    let number = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    let ours = quoted.version() == 4
        && header >= 20
        && quoted.next_header() == IpProtocol::Tcp
        && quoted.src_addr() == packet.dst_addr()
        && number(0) == PORT;
    ours.then(|| TooLong {
        peer: Peer {
            ip: quoted.dst_addr(),
            port: number(2),
        },
        sequence: TcpSeqNumber(i32::from_be_bytes([
            segment[4], segment[5], segment[6], segment[7],
        ])),
        length: usize::from(quoted.total_len()),
        told: usize::from(u16::from_be_bytes([told[0], told[1]])),
    })
}

/// What a path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Length of the longest packet, bytes.
    pub mtu: usize,
    /// May routers fragment packets? Yes if the path carries less than [`LEAST`].
    pub may_fragment: bool,
}

/// The paths that are known to carry less than Ethernet.
#[derive(Debug, Default)]
pub struct Paths(BTreeMap<Ipv4Address, (Path, Instant)>);

impl Paths {
    /// Learns from a router's message.
    pub fn learn(&mut self, message: &TooLong, now: Instant) {
        // Routers older than RFC 1191 do not give their MTU.
        let told = if message.told == 0 {
            LEAST
        } else {
            message.told
        };
        let known = self.find(message.peer.ip, now).map_or(MTU, |path| path.mtu);
        if told >= known || told >= message.length {
            return;
        }
        if self.0.len() >= PATHS {
            let oldest = self.0.iter().min_by_key(|(_, (_, since))| *since);
            if let Some((&ip, _)) = oldest {
                self.0.remove(&ip);
            }
        }
        let path = Path {
            mtu: told.max(LEAST),
            may_fragment: told < LEAST,
        };
        self.0.insert(message.peer.ip, (path, now));
    }

    /// What the path to `ip` carries, if it is less than the link.
    pub fn find(&mut self, ip: Ipv4Address, now: Instant) -> Option<Path> {
        let &(path, since) = self.0.get(&ip)?;
        if now >= since + REMEMBERED {
            self.0.remove(&ip);
            return None;
        }
        Some(path)
    }
}
