//! Frames of peers, and what the server's frames say. The end-to-end tests use this file too.

use kv_net::PORT;
use kv_net::smoltcp::phy::ChecksumCapabilities;
use kv_net::smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress,
    IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

/// The server's addresses.
pub const MAC: EthernetAddress = EthernetAddress([2, 0x4c, 0x53, 0, 0, 2]);
pub const IP: Ipv4Address = Ipv4Address::new(10, 77, 0, 2);
/// The sequence number of every peer's first segment.
pub const FIRST: TcpSeqNumber = TcpSeqNumber(1000);

/// A segment that the server sent.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The frame's destination.
    pub mac: EthernetAddress,
    pub to: (Ipv4Address, u16),
    pub control: TcpControl,
    pub seq: TcpSeqNumber,
    pub ack: Option<TcpSeqNumber>,
    pub payload: Vec<u8>,
    /// Length of its packet, bytes.
    pub packet: usize,
    pub may_fragment: bool,
}

/// The segment in a frame, if there is one. Its checksums must be right.
pub fn segment(frame: &[u8]) -> Option<Segment> {
    let frame = EthernetFrame::new_checked(frame).expect("a frame");
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    assert_eq!(frame.src_addr(), MAC);
    let packet = Ipv4Packet::new_checked(frame.payload()).expect("a packet");
    assert!(packet.verify_checksum());
    assert_eq!(usize::from(packet.total_len()), frame.payload().len());
    assert!(packet.next_header() == IpProtocol::Tcp);
    let [from, to] = [packet.src_addr(), packet.dst_addr()].map(IpAddress::Ipv4);
    let tcp = TcpPacket::new_checked(packet.payload()).expect("a segment");
    let repr = TcpRepr::parse(&tcp, &from, &to, &ChecksumCapabilities::default());
    let repr = repr.expect("a good segment");
    Some(Segment {
        mac: frame.dst_addr(),
        to: (packet.dst_addr(), repr.dst_port),
        control: repr.control,
        seq: repr.seq_number,
        ack: repr.ack_number,
        payload: repr.payload.to_vec(),
        packet: frame.payload().len(),
        may_fragment: !packet.dont_frag(),
    })
}

/// A frame's destination and the ARP packet in it, if there is one: operation, the address that it
/// gives, and its target.
pub fn arp(
    frame: &[u8],
) -> Option<(
    EthernetAddress,
    ArpOperation,
    (Ipv4Address, EthernetAddress),
    Ipv4Address,
)> {
    let frame = EthernetFrame::new_checked(frame).expect("a frame");
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(frame.payload()).expect("an ARP packet");
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).expect("for Ethernet and IPv4")
    else {
        panic!("of another kind")
    };
    Some((
        frame.dst_addr(),
        operation,
        (source_protocol_addr, source_hardware_addr),
        target_protocol_addr,
    ))
}

/// A peer, or a router to peers.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    pub mac: EthernetAddress,
    pub ip: Ipv4Address,
    pub port: u16,
}

impl Remote {
    /// A neighbour, by number.
    pub fn neighbor(number: u8) -> Remote {
        Remote {
            mac: EthernetAddress([2, 0, 0, 0, 0, number]),
            ip: Ipv4Address::new(10, 77, 0, number),
            port: 40_000,
        }
    }

    /// A peer beyond the gateway, by number.
    pub fn far(number: u8) -> Remote {
        Remote {
            mac: Remote::neighbor(1).mac,
            ip: Ipv4Address::new(192, 0, 2, number),
            port: 40_000,
        }
    }

    /// The same peer with another port.
    pub fn at(self, port: u16) -> Remote {
        Remote { port, ..self }
    }

    pub fn ethernet(&self, protocol: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
        ethernet(self.mac, MAC, protocol, payload)
    }

    /// An ARP packet from this peer to `to`.
    pub fn arp(
        &self,
        operation: ArpOperation,
        to: EthernetAddress,
        target: Ipv4Address,
    ) -> Vec<u8> {
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: self.mac,
            source_protocol_addr: self.ip,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        ethernet(self.mac, to, EthernetProtocol::Arp, &bytes)
    }

    /// An IP packet from this peer to the server.
    pub fn packet(&self, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let repr = Ipv4Repr {
            src_addr: self.ip,
            dst_addr: IP,
            next_header: protocol,
            payload_len: payload.len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; repr.buffer_len() + payload.len()];
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        repr.emit(&mut packet, &ChecksumCapabilities::default());
        packet.payload_mut().copy_from_slice(payload);
        bytes
    }

    /// A segment from this peer to port `to`.
    pub fn segment_to(
        &self,
        to: u16,
        control: TcpControl,
        seq: TcpSeqNumber,
        ack: Option<TcpSeqNumber>,
        window: u16,
        payload: &[u8],
    ) -> Vec<u8> {
        let repr = TcpRepr {
            src_port: self.port,
            dst_port: to,
            control,
            seq_number: seq,
            ack_number: ack,
            window_len: window,
            window_scale: None,
            max_seg_size: (control == TcpControl::Syn).then_some(1460),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut bytes),
            &IpAddress::Ipv4(self.ip),
            &IpAddress::Ipv4(IP),
            &ChecksumCapabilities::default(),
        );
        let packet = self.packet(IpProtocol::Tcp, &bytes);
        self.ethernet(EthernetProtocol::Ipv4, &packet)
    }

    /// This peer's request for a connection.
    pub fn syn(&self) -> Vec<u8> {
        self.segment_to(PORT, TcpControl::Syn, FIRST, None, u16::MAX, &[])
    }
}

/// A frame.
pub fn ethernet(
    from: EthernetAddress,
    to: EthernetAddress,
    protocol: EthernetProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; 14];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(from);
    frame.set_dst_addr(to);
    frame.set_ethertype(protocol);
    bytes.extend_from_slice(payload);
    bytes
}

/// The same frame with a VLAN tag.
pub fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    let protocol: [u8; 2] = frame[12..14].try_into().expect("two bytes");
    let payload = [&tag.to_be_bytes(), &protocol, &frame[14..]].concat();
    let [to, from] = [&frame[..6], &frame[6..12]].map(EthernetAddress::from_bytes);
    ethernet(from, to, EthernetProtocol::Unknown(0x8100), &payload)
}
