//! The way in. ARP frames are answered here; IP packets for the server are passed to the stack.

use alloc::boxed::Box;
use core::mem;
use core::ops::Range;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

use crate::ethernet::{self, Opened};
use crate::outbound::Outbound;
use crate::watch::Watch;
use crate::{Card, Host, MAX_FRAME, MTU, PORT, Peer, arp, path_mtu};

/// What kind of packet came in for the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// This peer wants to open a connection.
    Request(Peer),
    /// This peer resets a connection.
    Reset(Peer),
    /// Anything else.
    Other,
}

/// Both directions, as the stack's device, which carries IP packets.
pub(crate) struct Wire<C> {
    /// The last frame that came in.
    frame: Box<[u8; MAX_FRAME]>,
    /// The place in the frame of the packet for the stack.
    packet: Range<usize>,
    pub(crate) out: Outbound<C>,
}

impl<C: Card> Wire<C> {
    pub(crate) fn new(card: C, host: Host) -> Self {
        Self {
            frame: Box::new([0; MAX_FRAME]),
            packet: 0..0,
            out: Outbound::new(card, host),
        }
    }

    /// Receives frames until one has a packet for the stack, or there are no more.
    pub(crate) fn fetch(&mut self, now: Instant) -> Option<Arrival> {
        loop {
            self.out.send_held(now);
            // Before a frame is received there must be room for an answer to it.
            if !self.out.has_room() {
                return None;
            }
            let length = self.out.card.receive(&mut self.frame)?;
            let Some(opened) = ethernet::open(&self.frame[..length], self.out.host.mac()) else {
                continue;
            };
            if opened.protocol == EthernetProtocol::Arp {
                self.take_arp(&opened, now);
            } else if opened.protocol == EthernetProtocol::Ipv4
                && let Some(arrival) = self.take_packet(&opened, now)
            {
                return Some(arrival);
            }
        }
    }

    /// The packet for the stack.
    pub(crate) fn packet(&self) -> &[u8] {
        &self.frame[self.packet.clone()]
    }

    /// Puts a packet back that came in earlier. It is not longer than a frame.
    pub(crate) fn put_back(&mut self, packet: &[u8]) {
        self.frame[..packet.len()].copy_from_slice(packet);
        self.packet = 0..packet.len();
    }

    /// Drops the packet: the stack does not get it.
    pub(crate) fn discard(&mut self) {
        self.packet = 0..0;
    }

    fn take_arp(&mut self, opened: &Opened, now: Instant) {
        let Some(meaning) = arp::read(&self.frame[opened.payload.clone()], &self.out.host) else {
            return;
        };
        if let Some((ip, mac)) = meaning.told {
            match meaning.to_us {
                true => self.out.neighbors.learn(ip, mac, now),
                false => self.out.neighbors.correct(ip, mac, now),
            }
        }
        if let Some((ip, mac)) = meaning.asked_by {
            let reply = arp::reply(&self.out.host, ip, mac);
            self.out.send_arp(mac, &reply);
        }
    }

    /// `None` if the packet is not for the server, or is not for the stack. The stack does not
    /// reassemble fragments, and nothing that is broadcast is meant for a server.
    fn take_packet(&mut self, opened: &Opened, now: Instant) -> Option<Arrival> {
        let bytes = &self.frame[opened.payload.clone()];
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let fragment = packet.more_frags() || packet.frag_offset() != 0;
        let ours = packet.dst_addr() == self.out.host.ip() && !opened.broadcast;
        if !ours || fragment || !packet.verify_checksum() {
            return None;
        }
        let source = packet.src_addr();
        if self.out.host.is_neighbor(source) {
            self.out.neighbors.heard(source, opened.source, now);
        }
        if let Some(message) = path_mtu::read(&packet) {
            if self.out.watch.is_under_way(&message) {
                self.out.paths.learn(&message, now);
            }
            return None;
        }
        let start = opened.payload.start;
        self.packet = start..start + usize::from(packet.total_len());
        Some(look(&packet, &mut self.out.watch))
    }
}

/// What kind of packet this is. The watch of its connection sees it too.
fn look(packet: &Ipv4Packet<&[u8]>, watch: &mut Watch) -> Arrival {
    if packet.next_header() != IpProtocol::Tcp {
        return Arrival::Other;
    }
    // The stack drops packets without a valid segment.
    let Ok(segment) = TcpPacket::new_checked(packet.payload()) else {
        return Arrival::Other;
    };
    if segment.dst_port() != PORT {
        return Arrival::Other;
    }
    let peer = Peer {
        ip: packet.src_addr(),
        port: segment.src_port(),
    };
    watch.heard(peer, &segment);
    match (segment.rst(), segment.syn() && !segment.ack()) {
        (true, _) => Arrival::Reset(peer),
        (false, true) => Arrival::Request(peer),
        (false, false) => Arrival::Other,
    }
}

/// The received packet, for the stack.
pub(crate) struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a packet that the stack sends.
pub(crate) struct ToSend<'a, C> {
    out: &'a mut Outbound<C>,
    now: Instant,
}

impl<C: Card> phy::TxToken for ToSend<'_, C> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.out.write(length, self.now, fill)
    }
}

impl<C: Card> Device for Wire<C> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = ToSend<'a, C>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Received<'_>, ToSend<'_, C>)> {
        let packet = mem::take(&mut self.packet);
        let out = &mut self.out;
        (!packet.is_empty()).then(|| (Received(&self.frame[packet]), ToSend { out, now }))
    }

    fn transmit(&mut self, now: Instant) -> Option<ToSend<'_, C>> {
        let out = &mut self.out;
        out.has_room().then_some(ToSend { out, now })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}
