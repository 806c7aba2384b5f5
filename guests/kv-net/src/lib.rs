//! The network of the guest `kv`, without its card: frames in, frames out.
//!
//! smoltcp is the TCP/IP stack. What lies below IP is done here, with the limits that a server needs:
//!
//! - [`ethernet`] and [`arp`] decide which frames are for the server, and answer requests for its
//!   address.
//! - [`neighbors`] remembers the neighbours' MAC addresses.
//! - [`path_mtu`] remembers which paths carry less than Ethernet; segments are cut to fit.
//! - [`watch`] sees all segments of a connection, and so knows which peers do not answer.
//! - [`connections`] has the places for connections, and decides which request gets one.
//! - [`Network`] puts all of this together.
//!
//! There is no clock, and no randomness but the seed: what the network sends is a function of what it
//! received, and when.
#![no_std]

extern crate alloc;

pub mod announcements;
pub mod arp;
pub mod connections;
pub mod ethernet;
mod inbound;
pub mod neighbors;
mod network;
mod outbound;
pub mod path_mtu;
pub mod segment;
pub mod waiting;
pub mod watch;

use smoltcp::wire::{EthernetAddress, Ipv4Address, Ipv4Cidr};

pub use network::{Network, Wake};
/// The stack, whose types are part of this crate's interface.
pub use smoltcp;

/// Redis's port.
pub const PORT: u16 = 6379;
/// Bytes of the longest IP packet.
pub const MTU: usize = 1500;
/// Bytes of the longest frame: an Ethernet header, one VLAN tag and an IP packet.
pub const MAX_FRAME: usize = 1518;

/// A network card.
pub trait Card {
    /// Receives the next frame into `buffer`. Returns its length in bytes, or `None` if no frame waits.
    fn receive(&mut self, buffer: &mut [u8; MAX_FRAME]) -> Option<usize>;

    /// How many frames can be sent now.
    fn room(&mut self) -> usize;

    /// Sends a frame: an Ethernet header and its payload. There must be room.
    fn send(&mut self, header: &[u8], payload: &[u8]);
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its address.
    pub ip: Ipv4Address,
    /// Its port.
    pub port: u16,
}

/// The server's addresses, and the gateway to other networks.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    mac: EthernetAddress,
    /// The server's address, and which addresses are on the link.
    address: Ipv4Cidr,
    gateway: Option<Ipv4Address>,
}

impl Host {
    /// A host with these addresses; `None` if `ip` with this prefix cannot be a host's address. A
    /// `gateway` of zeros means that there is none.
    pub fn new(mac: [u8; 6], ip: [u8; 4], prefix_len: u8, gateway: [u8; 4]) -> Option<Self> {
        let [ip, gateway] = [ip, gateway].map(Ipv4Address::from);
        if prefix_len > 32 || ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() {
            return None;
        }
        Some(Self {
            mac: EthernetAddress(mac),
            address: Ipv4Cidr::new(ip, prefix_len),
            gateway: (!gateway.is_unspecified()).then_some(gateway),
        })
    }

    /// The server's MAC address.
    pub fn mac(&self) -> EthernetAddress {
        self.mac
    }

    /// The server's IP address.
    pub fn ip(&self) -> Ipv4Address {
        self.address.address()
    }

    /// Is `ip` the address of another host on the link?
    pub fn is_neighbor(&self, ip: Ipv4Address) -> bool {
        let network = self.address.network().address();
        // RFC 3021: a network of two addresses has no network address and no broadcast address.
        let reserved = self.address.prefix_len() < 31
            && (ip == network || Some(ip) == self.address.broadcast());
        let usable = !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast();
        let on_link = self.address.contains_addr(&ip) || Some(ip) == self.gateway;
        usable && on_link && !reserved && ip != self.ip()
    }

    /// The neighbour to which packets for `ip` are sent; `None` if there is no way to `ip`.
    pub fn next_hop(&self, ip: Ipv4Address) -> Option<Ipv4Address> {
        if self.is_neighbor(ip) {
            return Some(ip);
        }
        let elsewhere =
            !self.address.contains_addr(&ip) && !ip.is_broadcast() && !ip.is_multicast();
        self.gateway.filter(|_| elsewhere)
    }
}
