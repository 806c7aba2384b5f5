//! Paths that carry less than Ethernet.

use crate::frames::{IP, Remote, Segment, segment};
use crate::harness::{Client, Lan};
use kv_net::path_mtu::{LEAST, REMEMBERED};
use kv_net::smoltcp::time::Duration;
use kv_net::smoltcp::wire::{
    EthernetProtocol, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, IpAddress, IpProtocol,
    Ipv4Packet, TcpControl, TcpPacket,
};

/// Bytes of the reply.
const LARGE: usize = 100_000;

/// A router's message that `packet` was too long for its link.
fn too_long(router: Remote, packet: &[u8], mtu: u16) -> Vec<u8> {
    let mut bytes = [vec![0; 8], packet[..28].to_vec()].concat();
    let mut icmp = Icmpv4Packet::new_unchecked(&mut bytes[..]);
    icmp.set_msg_type(Icmpv4Message::DstUnreachable);
    icmp.set_msg_code(Icmpv4DstUnreachable::FragRequired.into());
    bytes[6..8].copy_from_slice(&mtu.to_be_bytes());
    Icmpv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
    let packet = router.packet(IpProtocol::Icmp, &bytes);
    router.ethernet(EthernetProtocol::Ipv4, &packet)
}

/// Decides whether a router refuses a segment: if so, returns the MTU that the router tells.
type Judge = fn(&Segment) -> Option<u16>;

/// Fetches a large value through a router with the limits of `judge`, which sends messages about them.
/// Returns the lengths of the packets that arrived, and how long it took.
fn fetch(lan: &mut Lan, client: &mut Client, judge: Judge) -> (Vec<usize>, Duration) {
    let began = lan.now;
    let mut lengths = Vec::new();
    client.say(lan, TcpControl::Psh, b"GET k\r\n");
    let whole = format!("${LARGE}\r\n").len() + LARGE + 2;
    while client.received.len() < whole {
        let frames = lan.frames();
        if frames.is_empty() {
            assert!(
                lan.now < began + Duration::from_secs(20),
                "nothing more comes"
            );
            lan.pass(Duration::from_millis(10));
        }
        for frame in frames {
            let one = segment(&frame).expect("a segment");
            match judge(&one) {
                Some(mtu) => lan.hears(too_long(client.remote, &frame[14..], mtu)),
                None => {
                    lengths.push(one.packet);
                    client.take(lan, &[one]);
                }
            }
        }
    }
    let reply = client.received.split_off(0);
    let value = &reply[whole - 2 - LARGE..whole - 2];
    assert!((0..LARGE).all(|at| value[at] == pattern(at)));
    (lengths, lan.now - began)
}

fn pattern(at: usize) -> u8 {
    b'a' + (at % 23) as u8
}

/// A server with the large value, and a client that requests it.
fn server() -> (Lan, Client) {
    let mut lan = Lan::new();
    let mut client = Remote::neighbor(7).connect(&mut lan);
    let value: Vec<u8> = (0..LARGE).map(pattern).collect();
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${LARGE}\r\n");
    let set = [set.as_bytes(), &value, b"\r\n"].concat();
    for part in set.chunks(1460) {
        client.say(&mut lan, TcpControl::None, part);
        let segments = lan.segments();
        client.take(&mut lan, &segments);
    }
    assert_eq!(client.received.split_off(0), b"+OK\r\n");
    (lan, client)
}

#[test]
fn a_large_reply_arrives_over_a_path_that_carries_1280_bytes() {
    let (mut lan, mut client) = server();
    let judge: Judge = |it| (it.packet > 1280).then_some(1280);
    let (lengths, took) = fetch(&mut lan, &mut client, judge);
    assert!(lengths.iter().all(|&it| it <= 1280));
    // This is the time of one retransmission.
    assert!(took < Duration::from_secs(2), "{took}");
    // From then on the limit is known to other connections as well.
    let mut next = client.remote.at(40_001).connect(&mut lan);
    let (lengths, took) = fetch(&mut lan, &mut next, judge);
    assert!(lengths.contains(&1280), "{lengths:?}");
    assert!(took < Duration::from_millis(100), "{took}");
}

#[test]
fn a_router_that_does_not_say_what_it_carries_is_served() {
    let (mut lan, mut client) = server();
    let (lengths, took) = fetch(&mut lan, &mut client, |it| (it.packet > 1000).then_some(0));
    assert!(lengths.iter().all(|&it| it <= LEAST));
    assert!(took < Duration::from_secs(2), "{took}");
}

#[test]
fn routers_may_cut_what_goes_over_a_path_that_carries_very_little() {
    let (mut lan, mut client) = server();
    let judge: Judge = |it| (it.packet > 296 && !it.may_fragment).then_some(296);
    let (lengths, took) = fetch(&mut lan, &mut client, judge);
    assert_eq!(lengths.iter().max(), Some(&LEAST));
    assert!(took < Duration::from_secs(2), "{took}");
}

#[test]
fn a_path_is_tried_anew_after_a_while() {
    let (mut lan, mut client) = server();
    fetch(&mut lan, &mut client, |it| {
        (it.packet > 1280).then_some(1280)
    });
    lan.pass(REMEMBERED);
    lan.segments();
    let mut client = client.remote.at(40_001).connect(&mut lan);
    let (lengths, _) = fetch(&mut lan, &mut client, |_| None);
    assert!(lengths.contains(&1500), "{lengths:?}");
}

#[test]
fn words_about_packets_that_are_not_under_way_change_nothing() {
    let (mut lan, mut client) = server();
    client.say(&mut lan, TcpControl::Psh, b"GET k\r\n");
    let frames = lan.frames();
    let packet = frames[0][14..].to_vec();
    let change = |at: usize, to: u8| {
        let mut changed = packet.clone();
        changed[at] = to;
        changed
    };
    let router = Remote::neighbor(9);
    for quoted in [
        // Changes to the quoted packet: the server's port, the peer, its port, the place in the stream,
        // the sender, the protocol, and an invalid version and header length.
        change(21, 80),
        change(19, 8),
        change(23, 9),
        change(24, packet[24] ^ 0x40),
        change(15, IP.octets()[3] + 1),
        change(9, 17),
        change(0, 0x65),
        change(0, 0x41),
        change(0, 0x4f),
    ] {
        lan.hears(too_long(router, &quoted, 600));
    }
    // A message that would make packets longer, and one with a wrong checksum.
    lan.hears(too_long(router, &packet, 1600));
    let mut damaged = too_long(router, &packet, 600);
    damaged[14 + 20 + 7] ^= 1;
    lan.hears(damaged);
    for length in 34..70 {
        let whole = too_long(router, &packet, 600);
        lan.hears(whole[..length].to_vec());
    }
    let (lengths, _) = fetch_rest(&mut lan, &mut client, &frames);
    assert!(lengths.contains(&1500), "{lengths:?}");
    assert!(
        !lengths.iter().any(|&it| it < 1500 && it > 700),
        "{lengths:?}"
    );
}

/// Receives the packets under way, and what follows.
fn fetch_rest(lan: &mut Lan, client: &mut Client, frames: &[Vec<u8>]) -> (Vec<usize>, Duration) {
    let began = lan.now;
    let segments: Vec<Segment> = frames.iter().filter_map(|frame| segment(frame)).collect();
    client.take(lan, &segments);
    let mut lengths = Vec::new();
    loop {
        let segments = lan.segments();
        if segments.is_empty() {
            return (lengths, lan.now - began);
        }
        lengths.extend(
            segments
                .iter()
                .filter(|it| it.payload.len() > 700)
                .map(|it| it.packet),
        );
        client.take(lan, &segments);
    }
}

/// The same frame with another control flag.
fn with(control: TcpControl, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    let [from, to] = [packet.src_addr(), packet.dst_addr()].map(IpAddress::Ipv4);
    let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
    segment.set_psh(control == TcpControl::Psh);
    segment.set_fin(control == TcpControl::Fin);
    segment.fill_checksum(&from, &to);
    frame
}

#[test]
fn what_is_cut_says_the_same() {
    use kv_net::path_mtu::Path;
    let (mut lan, mut client) = server();
    client.say(&mut lan, TcpControl::Psh, b"GET k\r\n");
    let mut frames = lan.frames();
    let plain = frames[0].clone();
    for control in [TcpControl::Psh, TcpControl::Fin] {
        frames.push(with(control, &plain));
    }
    for mtu in [552, 576, 1000, 1280, 1499, 1500] {
        for frame in &frames {
            let whole = segment(frame).expect("a segment");
            let mut packet = frame[14..].to_vec();
            let (mut payload, mut number, mut ends) = (Vec::new(), 5, Vec::new());
            let path = Path {
                mtu,
                may_fragment: mtu == 552,
            };
            kv_net::segment::fit(&mut packet, path, &mut number, |piece| {
                let piece = segment(&[&frame[..14], piece].concat()).expect("a segment");
                assert!(piece.packet <= mtu);
                assert_eq!(piece.seq, whole.seq + payload.len());
                assert_eq!(
                    (piece.ack, piece.may_fragment),
                    (whole.ack, path.may_fragment)
                );
                payload.extend(piece.payload);
                ends.push(piece.control);
            });
            assert_eq!(payload, whole.payload);
            assert_eq!(ends.pop(), Some(whole.control));
            assert!(ends.iter().all(|&it| it == TcpControl::None));
            assert!(ends.len() < kv_net::segment::MOST_PIECES);
        }
    }
}
