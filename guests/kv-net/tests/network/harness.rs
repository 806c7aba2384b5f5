//! A server, its card, and peers on its link.

use kv_core::{Limits, Server};
use kv_net::smoltcp::phy::ChecksumCapabilities;
use kv_net::smoltcp::time::{Duration, Instant};
use kv_net::smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress,
    IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use kv_net::{Card, Host, MAX_FRAME, Network, PORT, Wake};
use std::collections::VecDeque;

pub const MAC: EthernetAddress = EthernetAddress([2, 0x4c, 0x53, 0, 0, 2]);
pub const IP: Ipv4Address = Ipv4Address::new(10, 77, 0, 2);
pub const GATEWAY: Ipv4Address = Ipv4Address::new(10, 77, 0, 1);
/// What every peer's first segment is numbered.
pub const FIRST: TcpSeqNumber = TcpSeqNumber(1000);

/// A card without limits, or with one.
pub struct FakeCard {
    pub received: VecDeque<Vec<u8>>,
    pub sent: Vec<Vec<u8>>,
    pub room: usize,
}

impl Card for FakeCard {
    fn receive(&mut self, buffer: &mut [u8; MAX_FRAME]) -> Option<usize> {
        let frame = self.received.pop_front()?;
        buffer[..frame.len()].copy_from_slice(&frame);
        Some(frame.len())
    }

    fn room(&mut self) -> usize {
        self.room - self.sent.len()
    }

    fn send(&mut self, header: &[u8], payload: &[u8]) {
        assert!(self.sent.len() < self.room, "sent without room");
        self.sent.push([header, payload].concat());
    }
}

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
    /// Bytes of its packet.
    pub packet: usize,
    pub may_fragment: bool,
}

/// The server and the time.
pub struct Lan {
    pub network: Network<FakeCard>,
    pub now: Instant,
    pub wake: Wake,
}

impl Lan {
    /// It has a gateway, and has announced itself; that is taken away.
    pub fn new() -> Lan {
        let mut lan = Lan::just_up();
        lan.pass(Duration::from_secs(100));
        lan.frames();
        lan
    }

    /// The network comes up now.
    pub fn just_up() -> Lan {
        let card = FakeCard {
            received: VecDeque::new(),
            sent: Vec::new(),
            room: usize::MAX,
        };
        let host = Host::new(MAC.0, IP.octets(), 24, GATEWAY.octets()).expect("an address");
        let limits = Limits {
            data: 8 << 20,
            buffers: 4 << 20,
        };
        let now = Instant::from_secs(1);
        let mut network = Network::new(card, host, Server::new(limits, 1), 1, now);
        let wake = network.poll(now);
        Lan { network, now, wake }
    }

    /// A frame arrives.
    pub fn hears(&mut self, frame: Vec<u8>) {
        self.hears_all([frame]);
    }

    /// Frames arrive together.
    pub fn hears_all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.network.card().received.extend(frames);
        self.settle();
    }

    /// Polls until it wants to wait.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.wake = self.network.poll(self.now);
            match self.wake {
                Wake::At(at) if at <= self.now => {}
                Wake::At(_) | Wake::Now | Wake::Never => return,
            }
        }
        panic!("it never waits: {:?}", self.wake);
    }

    /// Time passes, and the server is polled whenever it wants to be.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Wake::At(at) = self.wake
            && at <= end
        {
            self.now = at;
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// What it sent since the last time.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.network.card().sent)
    }

    /// The segments of what it sent since the last time.
    pub fn segments(&mut self) -> Vec<Segment> {
        let frames = self.frames();
        frames.iter().filter_map(|frame| segment(frame)).collect()
    }

    /// The neighbours that it asked for among what it sent since the last time.
    pub fn asked(&mut self) -> Vec<Ipv4Address> {
        let frames = self.frames();
        let asked = frames.iter().filter_map(|frame| arp(frame));
        let requests = asked.filter(|(_, operation, ..)| *operation == ArpOperation::Request);
        requests.map(|(.., target)| target).collect()
    }
}

/// A frame's segment, if it carries one. Its checksums must be right.
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

/// A frame's destination and ARP packet, if it carries one: what it does, whom it tells of, who is
/// its target.
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

/// A peer, or a router of peers.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    pub mac: EthernetAddress,
    pub ip: Ipv4Address,
    pub port: u16,
}

impl Remote {
    /// The neighbour with this number.
    pub fn neighbor(number: u8) -> Remote {
        Remote {
            mac: EthernetAddress([2, 0, 0, 0, 0, number]),
            ip: Ipv4Address::new(10, 77, 0, number),
            port: 40_000,
        }
    }

    /// The peer with this number beyond the gateway.
    pub fn far(number: u8) -> Remote {
        Remote {
            mac: Remote::neighbor(1).mac,
            ip: Ipv4Address::new(192, 0, 2, number),
            port: 40_000,
        }
    }

    /// The same with another port.
    pub fn at(self, port: u16) -> Remote {
        Remote { port, ..self }
    }

    pub fn ethernet(&self, protocol: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
        ethernet(self.mac, MAC, protocol, payload)
    }

    /// An ARP packet of it to `to`.
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

    /// An IP packet of it to the server.
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

    /// A segment of it to port `to`.
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

    /// Its request for a connection.
    pub fn syn(&self) -> Vec<u8> {
        self.segment_to(PORT, TcpControl::Syn, FIRST, None, u16::MAX, &[])
    }

    /// Opens a connection; the server must answer at once.
    pub fn connect(self, lan: &mut Lan) -> Client {
        lan.hears(self.syn());
        let answers = lan.segments();
        let answer = answers.iter().find(|it| it.to == (self.ip, self.port));
        let answer = answer.expect("an answer to the request");
        assert_eq!(answer.control, TcpControl::Syn, "{answer:?}");
        let mut client = Client {
            remote: self,
            seq: FIRST + 1,
            ack: answer.seq + 1,
            received: Vec::new(),
            window: u16::MAX,
        };
        client.say(lan, TcpControl::None, &[]);
        client
    }
}

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

/// A peer's end of a connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub remote: Remote,
    pub seq: TcpSeqNumber,
    pub ack: TcpSeqNumber,
    pub received: Vec<u8>,
    pub window: u16,
}

impl Client {
    /// Sends a segment.
    pub fn say(&mut self, lan: &mut Lan, control: TcpControl, payload: &[u8]) {
        let frame = self.remote.segment_to(
            PORT,
            control,
            self.seq,
            Some(self.ack),
            self.window,
            payload,
        );
        self.seq += payload.len() + control.len();
        lan.hears(frame);
    }

    /// Takes the segments that are for it, and acknowledges what continues what it has.
    pub fn take(&mut self, lan: &mut Lan, segments: &[Segment]) {
        let to = (self.remote.ip, self.remote.port);
        let before = self.ack;
        for segment in segments.iter().filter(|it| it.to == to) {
            assert_ne!(segment.control, TcpControl::Rst, "reset: {segment:?}");
            if segment.seq == self.ack {
                self.received.extend_from_slice(&segment.payload);
                self.ack += segment.payload.len() + segment.control.len();
            }
        }
        if self.ack != before {
            self.say(lan, TcpControl::None, &[]);
        }
    }

    /// Sends a command and waits for the whole reply.
    pub fn ask(&mut self, lan: &mut Lan, command: &[u8], reply: &[u8]) {
        self.say(lan, TcpControl::Psh, command);
        let segments = lan.segments();
        self.take(lan, &segments);
        assert_eq!(self.received, reply);
        self.received.clear();
    }
}
