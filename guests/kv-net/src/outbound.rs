//! The way out: an IP packet becomes one or several frames to the right neighbour.

use alloc::vec;
use alloc::vec::Vec;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr,
};

use crate::neighbors::Neighbors;
use crate::path_mtu::Paths;
use crate::watch::Watch;
use crate::{Card, Host, MTU, PORT, Peer, arp, ethernet, segment};

/// Most frames that one packet can make: its pieces, and a request for the neighbour's address.
const ROOM: usize = segment::MOST_PIECES + 1;
/// Hop limit of the packets that are made here; the stack uses the same.
const HOP_LIMIT: u8 = 64;

/// All stages that a packet passes on its way out.
pub(crate) struct Outbound<C> {
    pub(crate) card: C,
    pub(crate) host: Host,
    pub(crate) neighbors: Neighbors,
    pub(crate) paths: Paths,
    pub(crate) watch: Watch,
    /// The stack writes its next packet here.
    scratch: Vec<u8>,
    /// The identification of the next packet that routers may fragment.
    identification: u16,
    starved: bool,
}

impl<C: Card> Outbound<C> {
    pub(crate) fn new(card: C, host: Host) -> Self {
        Self {
            card,
            host,
            neighbors: Neighbors::default(),
            paths: Paths::default(),
            watch: Watch::default(),
            scratch: vec![0; MTU],
            identification: 0,
            starved: false,
        }
    }

    /// Does the card have room for all frames that one packet can make?
    pub(crate) fn has_room(&mut self) -> bool {
        let room = self.card.room() >= ROOM;
        self.starved |= !room;
        room
    }

    /// Was anything left undone since the last call because there was no room?
    pub(crate) fn take_starved(&mut self) -> bool {
        core::mem::take(&mut self.starved)
    }

    /// Sends the packet of `length` bytes that `fill` writes.
    pub(crate) fn write<R>(
        &mut self,
        length: usize,
        now: Instant,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let mut scratch = core::mem::take(&mut self.scratch);
        let result = fill(&mut scratch[..length]);
        self.send(&mut scratch[..length], now);
        self.scratch = scratch;
        result
    }

    /// Sends a packet, or keeps it until its neighbour's address is known.
    fn send(&mut self, packet: &mut [u8], now: Instant) {
        let Ok(ip) = Ipv4Packet::new_checked(&*packet) else {
            return;
        };
        self.watch.sent(&ip, now);
        let Some(hop) = self.host.next_hop(ip.dst_addr()) else {
            return;
        };
        let answer = self.neighbors.find(hop, now);
        if answer.ask {
            let request = arp::request(&self.host, hop);
            self.send_arp(EthernetAddress::BROADCAST, &request);
        }
        match answer.mac {
            Some(mac) => self.transmit(mac, packet, now),
            None => self.neighbors.hold(hop, packet),
        }
    }

    /// Sends the kept packets whose neighbours have answered, as long as there is room. If the room
    /// ends, the caller notices at its next step.
    pub(crate) fn send_held(&mut self, now: Instant) {
        while self.card.room() >= ROOM {
            let Some((mac, mut packet)) = self.neighbors.release() else {
                return;
            };
            self.transmit(mac, &mut packet, now);
        }
    }

    fn transmit(&mut self, mac: EthernetAddress, packet: &mut [u8], now: Instant) {
        let header = ethernet::header(self.host.mac(), mac, EthernetProtocol::Ipv4);
        let destination = Ipv4Packet::new_unchecked(&*packet).dst_addr();
        let card = &mut self.card;
        match self.paths.find(destination, now) {
            Some(path) => segment::fit(packet, path, &mut self.identification, |piece| {
                card.send(&header, piece);
            }),
            None => card.send(&header, packet),
        }
    }

    pub(crate) fn send_arp(&mut self, mac: EthernetAddress, packet: &[u8; arp::PACKET]) {
        let header = ethernet::header(self.host.mac(), mac, EthernetProtocol::Arp);
        self.card.send(&header, packet);
    }

    /// Announces the server's address to all.
    pub(crate) fn announce(&mut self) {
        let announcement = arp::request(&self.host, self.host.ip());
        self.send_arp(EthernetAddress::BROADCAST, &announcement);
    }

    /// Answers a peer that wants to open a connection that exists (RFC 5961, section 4). If the peer
    /// has forgotten the old connection, it resets that one, and its next request opens a new one.
    pub(crate) fn challenge(&mut self, peer: Peer, now: Instant) {
        let Some(said) = self.watch.challenge(peer, now) else {
            return;
        };
        let segment = TcpRepr {
            src_port: PORT,
            dst_port: peer.port,
            control: TcpControl::None,
            seq_number: said.next,
            ack_number: Some(said.acknowledged),
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let packet = Ipv4Repr {
            src_addr: self.host.ip(),
            dst_addr: peer.ip,
            next_header: IpProtocol::Tcp,
            payload_len: segment.buffer_len(),
            hop_limit: HOP_LIMIT,
        };
        let length = packet.buffer_len() + segment.buffer_len();
        let addresses = [packet.src_addr, packet.dst_addr].map(IpAddress::Ipv4);
        self.write(length, now, |bytes| {
            let checksums = ChecksumCapabilities::default();
            let mut ip = Ipv4Packet::new_unchecked(bytes);
            packet.emit(&mut ip, &checksums);
            segment.emit(
                &mut TcpPacket::new_unchecked(ip.payload_mut()),
                &addresses[0],
                &addresses[1],
                &checksums,
            );
        });
    }
}
