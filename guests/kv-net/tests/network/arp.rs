//! Requests for the server's address, priority tags, and the announcements at boot.

use crate::frames::{IP, MAC, Remote, arp, tagged};
use crate::harness::{GATEWAY, Lan};
use kv_net::smoltcp::time::{Duration, Instant};
use kv_net::smoltcp::wire::{
    ArpOperation, EthernetAddress, EthernetProtocol, Ipv4Address, TcpControl,
};

const ALL: EthernetAddress = EthernetAddress::BROADCAST;

/// The destination of the one answer that a frame gets.
fn answered(lan: &mut Lan, frame: Vec<u8>) -> Option<EthernetAddress> {
    lan.hears(frame);
    let frames = lan.frames();
    let answers: Vec<_> = frames.iter().filter_map(|frame| arp(frame)).collect();
    assert!(answers.len() <= 1, "{answers:?}");
    let &(to, operation, told, _) = answers.first()?;
    assert_eq!(operation, ArpOperation::Reply);
    assert_eq!(told, (IP, MAC));
    Some(to)
}

#[test]
fn every_request_for_our_address_is_answered() {
    let mut lan = Lan::new();
    let neighbor = Remote::neighbor(7);
    let nobody = Ipv4Address::UNSPECIFIED;
    let foreign = Ipv4Address::new(192, 168, 55, 1);
    for ip in [neighbor.ip, nobody, foreign, IP, Ipv4Address::BROADCAST] {
        let asking = Remote { ip, ..neighbor };
        for to in [ALL, MAC] {
            let request = asking.arp(ArpOperation::Request, to, IP);
            assert_eq!(answered(&mut lan, request), Some(neighbor.mac), "{ip} {to}");
        }
    }
}

#[test]
fn nothing_else_is_answered() {
    let mut lan = Lan::new();
    let neighbor = Remote::neighbor(7);
    let other = EthernetAddress([2, 9, 9, 9, 9, 9]);
    let odd = |mac| Remote { mac, ..neighbor };
    for frame in [
        neighbor.arp(ArpOperation::Request, ALL, Ipv4Address::new(10, 77, 0, 9)),
        neighbor.arp(ArpOperation::Reply, MAC, IP),
        neighbor.arp(ArpOperation::Unknown(3), MAC, IP),
        neighbor.arp(ArpOperation::Request, other, IP),
        odd(ALL).arp(ArpOperation::Request, MAC, IP),
        // The server's own frame, come back.
        odd(MAC).arp(ArpOperation::Request, ALL, IP),
        neighbor.ethernet(EthernetProtocol::Arp, &[0; 27]),
    ] {
        assert_eq!(answered(&mut lan, frame.clone()), None, "{frame:?}");
    }
}

#[test]
fn only_neighbors_are_remembered() {
    let mut lan = Lan::new();
    let router = Remote::neighbor(1);
    let foreign = Remote {
        ip: Remote::far(1).ip,
        mac: EthernetAddress([2, 5, 5, 5, 5, 5]),
        ..router
    };
    let host = kv_net::Host::new(MAC.0, IP.octets(), 24, [0; 4]).expect("an address");
    for (remote, told) in [(foreign, false), (router, true)] {
        let request = remote.arp(ArpOperation::Request, ALL, IP);
        let meaning = kv_net::arp::read(&request[14..], &host).expect("a request");
        assert_eq!(meaning.told.is_some(), told, "{remote:?}");
    }
    lan.hears(foreign.arp(ArpOperation::Request, ALL, IP));
    lan.hears(foreign.syn());
    // Packets to it still go through the gateway.
    assert_eq!(lan.asked(), [GATEWAY]);
    lan.hears(router.arp(ArpOperation::Reply, MAC, IP));
    let segments = lan.segments();
    assert_eq!(segments.len(), 1, "{segments:?}");
    assert_eq!(segments[0].mac, router.mac);
    assert_eq!(segments[0].control, TcpControl::Syn);
}

#[test]
fn frames_with_a_priority_are_served_and_those_of_a_vlan_are_not() {
    let neighbor = Remote::neighbor(7);
    let request = neighbor.arp(ArpOperation::Request, ALL, IP);
    for (tag, served) in [
        (0x0000, true),
        (0xe000, true),
        (0x1000, true),
        (0x0001, false),
        (0xe064, false),
        (0x0fff, false),
    ] {
        let mut lan = Lan::new();
        let answer = answered(&mut lan, tagged(&request, tag));
        assert_eq!(answer.is_some(), served, "{tag:#06x}");
        lan.hears(tagged(&neighbor.syn(), tag));
        assert_eq!(lan.segments().len(), usize::from(served), "{tag:#06x}");
    }
    let mut lan = Lan::new();
    let cut = tagged(&request, 0)[..15].to_vec();
    assert_eq!(answered(&mut lan, cut), None);
    // A tag within a tag belongs to another network.
    assert_eq!(answered(&mut lan, tagged(&tagged(&request, 0), 0)), None);
}

#[test]
fn the_address_is_announced_when_the_network_comes_up_and_a_few_times_more() {
    let mut lan = Lan::just_up();
    let mut announced = Vec::new();
    let up = lan.now;
    let quarter = Duration::from_millis(250);
    while lan.now < up + Duration::from_secs(120) {
        for frame in lan.frames() {
            let (to, operation, told, target) = arp(&frame).expect("an announcement");
            assert_eq!((to, operation), (ALL, ArpOperation::Request));
            assert_eq!((told, target), ((IP, MAC), IP));
            announced.push((lan.now - up).total_millis() / 1000);
        }
        lan.pass(quarter);
    }
    assert_eq!(announced, [0, 1, 3, 7, 15, 31]);
    assert_eq!(lan.wake, kv_net::Wake::Never);
}

#[test]
fn a_card_without_room_delays_the_announcement() {
    let mut lan = Lan::new();
    lan.network.card().room = 0;
    let mut late = Lan::just_up();
    late.frames();
    late.network.card().room = 0;
    late.now = Instant::from_secs(2);
    late.hears_all([]);
    assert!(late.frames().is_empty());
    late.network.card().room = 64;
    late.hears_all([]);
    assert_eq!(late.asked(), [IP]);
}
