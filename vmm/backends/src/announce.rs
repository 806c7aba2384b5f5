//! The frames with which a survivor announces to the network where a MAC address is now.
//!
//! Bridges and switches learn from the source address of any frame, hosts from ARP. A survivor sends
//! both frames of this module for minutes after it went live. The gratuitous ARP also reaches hosts
//! that have forgotten the guest. The RARP reaches networks that filter unsolicited ARP, and needs no
//! IP address.

use std::net::Ipv4Addr;

/// Length of an announcement, in bytes: the shortest frame that Ethernet allows, without its CRC.
pub const ANNOUNCEMENT_LEN: usize = 60;

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_RARP: u16 = 0x8035;
/// RFC 826: hardware type 1 is Ethernet, with addresses of 6 bytes; IPv4 addresses have 4.
const ARP_ETHERNET_IPV4: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];
/// RFC 826, `ares_op$REQUEST`.
const OPERATION_REQUEST: u16 = 1;
/// RFC 903, "reverse request".
const OPERATION_REVERSE_REQUEST: u16 = 3;

/// A gratuitous ARP: the broadcast request "who has `ip`?", sent by the owner of `ip` (RFC 5227,
/// section 2.3).
pub fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr) -> [u8; ANNOUNCEMENT_LEN] {
    frame(ETHERTYPE_ARP, OPERATION_REQUEST, mac, ip, [0; 6], ip)
}

/// A broadcast RARP request of `mac` for its own address (RFC 903). It contains no IP address.
pub fn rarp(mac: [u8; 6]) -> [u8; ANNOUNCEMENT_LEN] {
    let unknown = Ipv4Addr::UNSPECIFIED;
    frame(
        ETHERTYPE_RARP,
        OPERATION_REVERSE_REQUEST,
        mac,
        unknown,
        mac,
        unknown,
    )
}

/// One broadcast Ethernet frame with an ARP packet of RFC 826's layout, padded with zeros.
fn frame(
    ethertype: u16,
    operation: u16,
    sender_mac: [u8; 6],
    sender_ip: Ipv4Addr,
    target_mac: [u8; 6],
    target_ip: Ipv4Addr,
) -> [u8; ANNOUNCEMENT_LEN] {
    let mut frame = [0; ANNOUNCEMENT_LEN];
    let mut rest = &mut frame[..];
    for field in [
        &BROADCAST[..],
        &sender_mac,
        &ethertype.to_be_bytes(),
        &ARP_ETHERNET_IPV4,
        &operation.to_be_bytes(),
        &sender_mac,
        &sender_ip.octets(),
        &target_mac,
        &target_ip.octets(),
    ] {
        let (here, after) = rest.split_at_mut(field.len());
        here.copy_from_slice(field);
        rest = after;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x02, 0x4c, 0x53, 0x00, 0x00, 0x02];
    const IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    #[test]
    fn a_gratuitous_arp_has_the_bytes_of_rfc_826() {
        let mut expected = vec![
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x4c, 0x53, 0x00, 0x00, 0x02, 0x08,
            0x06, //
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, //
            0x02, 0x4c, 0x53, 0x00, 0x00, 0x02, 10, 77, 0, 2, //
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 10, 77, 0, 2,
        ];
        expected.resize(60, 0);
        assert_eq!(gratuitous_arp(MAC, IP).as_slice(), expected);
    }

    #[test]
    fn a_rarp_asks_for_its_own_mac_and_claims_no_address() {
        let mut expected = vec![
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x4c, 0x53, 0x00, 0x00, 0x02, 0x80,
            0x35, //
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x03, //
            0x02, 0x4c, 0x53, 0x00, 0x00, 0x02, 0, 0, 0, 0, //
            0x02, 0x4c, 0x53, 0x00, 0x00, 0x02, 0, 0, 0, 0,
        ];
        expected.resize(60, 0);
        assert_eq!(rarp(MAC).as_slice(), expected);
    }
}
