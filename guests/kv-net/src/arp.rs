//! ARP (RFC 826): what packets of it mean to us, and those that we send.

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Ipv4Address};

use crate::Host;

/// Bytes of an ARP packet for Ethernet and IPv4.
pub const PACKET: usize = 28;
/// What a request says about the MAC address that it asks for.
const UNKNOWN: EthernetAddress = EthernetAddress([0; 6]);

/// What an ARP packet means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// A neighbour, and its MAC address, if the packet tells of one.
    pub told: Option<(Ipv4Address, EthernetAddress)>,
    /// Whether the packet was to us. Of others' packets only corrections are taken.
    pub to_us: bool,
    /// Who is to be answered, if anyone.
    pub asked_by: Option<(Ipv4Address, EthernetAddress)>,
}

/// Reads an ARP packet; `None` if it is none that we understand.
///
/// Every request for our address is to be answered, whoever asks: a host that looks for a
/// duplicate address has none yet (RFC 5227), and a router may ask with an address of another
/// network. Only neighbours' addresses are worth remembering.
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

/// The answer to who asked for our address.
pub fn reply(host: &Host, ip: Ipv4Address, mac: EthernetAddress) -> [u8; PACKET] {
    packet(host, ArpOperation::Reply, ip, mac)
}

/// The question who has `ip`. For our own address it is the announcement of that (RFC 5227,
/// section 2.3).
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
