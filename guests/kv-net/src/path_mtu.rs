//! Paths that carry less than an Ethernet does (RFC 1191): a router on them answers a packet that
//! is too long with "fragmentation needed".

use alloc::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Address, Ipv4Packet,
    TcpSeqNumber,
};

use crate::{MTU, PORT, Peer};

/// Paths that are remembered. The one that was told of the longest time ago gives way.
pub const PATHS: usize = 256;
/// A path is remembered for this time; then longer packets are tried again (RFC 1191, section 6.3).
pub const REMEMBERED: Duration = Duration::from_secs(600);
/// Packets are cut no shorter than this, whatever a router says: else a forged message would make
/// many small ones out of each. To a path that carries less, routers may cut them further.
pub const LEAST: usize = 552;
/// Bytes of an ICMP message before the packet that it is about.
const ICMP_HEADER: usize = 8;
/// Bytes of that packet's payload that a router must send back (RFC 792).
const QUOTED: usize = 8;

/// A router's word that a packet of ours was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The connection whose segment it was.
    pub peer: Peer,
    /// That segment's sequence number.
    pub sequence: TcpSeqNumber,
    /// The packet's bytes.
    length: usize,
    /// What the router's next link carries, bytes; 0 if it does not say.
    told: usize,
}

/// Reads an IP packet that might be such a message.
pub fn read(packet: &Ipv4Packet<&[u8]>) -> Option<TooLong> {
    let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    let about_length = icmp.msg_type() == Icmpv4Message::DstUnreachable
        && icmp.msg_code() == u8::from(Icmpv4DstUnreachable::FragRequired);
    if packet.next_header() != IpProtocol::Icmp || !about_length || !icmp.verify_checksum() {
        return None;
    }
    let bytes = packet.payload();
    let told = bytes.get(6..ICMP_HEADER)?;
    // Not `new_checked`: the packet that was too long is not sent back whole.
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
    /// Bytes of the longest packet.
    pub mtu: usize,
    /// Whether routers may cut packets: the path carries less than [`LEAST`].
    pub may_fragment: bool,
}

/// The paths that are known to carry less.
#[derive(Debug, Default)]
pub struct Paths(BTreeMap<Ipv4Address, (Path, Instant)>);

impl Paths {
    /// Takes a router's word for it.
    pub fn learn(&mut self, message: &TooLong, now: Instant) {
        // Routers older than RFC 1191 do not say what they carry.
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

    /// What the path to `ip` carries, if it is less than a link does.
    pub fn find(&mut self, ip: Ipv4Address, now: Instant) -> Option<Path> {
        let &(path, since) = self.0.get(&ip)?;
        if now >= since + REMEMBERED {
            self.0.remove(&ip);
            return None;
        }
        Some(path)
    }
}
