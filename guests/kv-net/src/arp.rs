//! ARP (RFC 826): what a received packet means to the server, and the packets that the server sends.

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Ipv4Address};

use crate::Host;

/// Bytes of an ARP packet for Ethernet and IPv4.
pub const PACKET: usize = 28;
/// The target's MAC address in a request.
const UNKNOWN: EthernetAddress = EthernetAddress([0; 6]);

/// What an ARP packet means to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// A neighbour's IP and MAC address, if the packet gives one.
    pub told: Option<(Ipv4Address, EthernetAddress)>,
    /// Was the packet sent to the server? From packets between others only corrections are learned.
    pub to_us: bool,
    /// The addresses of the host that must be answered, if any.
    pub asked_by: Option<(Ipv4Address, EthernetAddress)>,
}

/// Reads an ARP packet; `None` if it is not one for Ethernet and IPv4.
///
/// Every request for the server's address must be answered, whatever the sender's address: a host that
/// looks for a duplicate address has no address yet (RFC 5227), and a router may ask with an address
/// from another network. Only neighbours' addresses are worth remembering.
pub fn read(packet: &[u8], host: &Host) -> Option<Meaning> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: ip,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    let request = operation == ArpOperation::Request;
    if !(request || operation == ArpOperation::Reply) || !mac.is_unicast() {
        return None;
    }
    let to_us = target == host.ip();
    Some(Meaning {
        told: host.is_neighbor(ip).then_some((ip, mac)),
        to_us,
        asked_by: (request && to_us).then_some((ip, mac)),
    })
}

/// The answer to a host that asked for the server's address.
pub fn reply(host: &Host, ip: Ipv4Address, mac: EthernetAddress) -> [u8; PACKET] {
    packet(host, ArpOperation::Reply, ip, mac)
}

/// The request for the MAC address of `ip`. For the server's own address it is the announcement of that
/// address (RFC 5227, section 2.3).
pub fn request(host: &Host, ip: Ipv4Address) -> [u8; PACKET] {
    packet(host, ArpOperation::Request, ip, UNKNOWN)
}

fn packet(
    host: &Host,
    operation: ArpOperation,
    ip: Ipv4Address,
    mac: EthernetAddress,
) -> [u8; PACKET] {
    let mut bytes = [0; PACKET];
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: host.mac(),
        source_protocol_addr: host.ip(),
        target_hardware_addr: mac,
        target_protocol_addr: ip,
    };
    packet.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    bytes
}
