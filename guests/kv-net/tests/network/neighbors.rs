//! Neighbours: learned from what they send, and asked without delaying each other.

use crate::frames::{IP, MAC, Remote};
use crate::harness::{GATEWAY, Lan};
use kv_net::neighbors::{ASK_AGAIN, Answer, FRESH, NEIGHBORS, Neighbors, REQUESTS};
use kv_net::smoltcp::time::{Duration, Instant};
use kv_net::smoltcp::wire::{ArpOperation, EthernetAddress, Ipv4Address, TcpControl};

const A: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xa]);
const B: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xb]);
const START: Instant = Instant::from_micros_const(1_000_000);

fn ip(number: usize) -> Ipv4Address {
    Ipv4Address::from(0x0a00_0000 + number as u32)
}

#[test]
fn clients_with_addresses_of_their_own_are_answered_without_a_question() {
    let mut lan = Lan::new();
    for number in 10..110 {
        let remote = Remote::neighbor(number);
        let mut client = remote.connect(&mut lan);
        client.ask(&mut lan, b"PING\r\n", b"+PONG\r\n");
    }
    assert!(lan.asked().is_empty());
}

#[test]
fn an_answer_goes_to_where_its_request_came_from() {
    let mut lan = Lan::new();
    lan.hears_all((10..41).map(|number| Remote::neighbor(number).syn()));
    let answers = lan.segments();
    assert_eq!(answers.len(), 31);
    for (answer, number) in answers.iter().zip(10..) {
        let remote = Remote::neighbor(number);
        assert_eq!((answer.mac, answer.to.0), (remote.mac, remote.ip));
    }
}

#[test]
fn packets_wait_for_the_gateway_and_leave_together_when_it_answers() {
    let mut lan = Lan::new();
    lan.hears_all((1..41).map(|number| Remote::far(number).syn()));
    assert_eq!(lan.asked(), [GATEWAY]);
    let gateway = Remote::neighbor(1);
    lan.hears(gateway.arp(ArpOperation::Reply, MAC, IP));
    let answers = lan.segments();
    assert_eq!(answers.len(), 40);
    assert!(
        answers
            .iter()
            .all(|it| it.mac == gateway.mac && it.control == TcpControl::Syn)
    );
}

#[test]
fn a_gateway_that_is_silent_at_first_is_asked_again() {
    let mut lan = Lan::new();
    lan.hears(Remote::far(1).syn());
    assert_eq!(lan.asked(), [GATEWAY]);
    lan.pass(Duration::from_millis(900));
    assert!(lan.asked().is_empty());
    lan.pass(Duration::from_millis(200));
    assert_eq!(lan.asked(), [GATEWAY]);
}

#[test]
fn a_card_with_little_room_sends_what_waited_bit_by_bit() {
    let mut lan = Lan::new();
    lan.hears_all((1..41).map(|number| Remote::far(number).syn()));
    lan.frames();
    lan.network.card().room = 8;
    lan.hears(Remote::neighbor(1).arp(ArpOperation::Reply, MAC, IP));
    let mut answers = lan.segments();
    while lan.wake == kv_net::Wake::Now {
        lan.hears_all([]);
        answers.extend(lan.segments());
    }
    assert_eq!(answers.len(), 40);
}

#[test]
fn without_a_way_nothing_is_sent() {
    let host = kv_net::Host::new(MAC.0, IP.octets(), 24, [0; 4]).expect("an address");
    assert_eq!(host.next_hop(Remote::far(1).ip), None);
    assert_eq!(
        host.next_hop(Remote::neighbor(9).ip),
        Some(Remote::neighbor(9).ip)
    );
    for number in [0, 2, 255] {
        assert!(
            !host.is_neighbor(Ipv4Address::new(10, 77, 0, number)),
            "{number}"
        );
    }
}

#[test]
fn there_is_a_limit_on_questions_for_each_and_none_for_all() {
    let mut neighbors = Neighbors::default();
    let ask = |neighbors: &mut Neighbors, now| {
        (0..200)
            .filter(|&number| neighbors.find(ip(number), now).ask)
            .count()
    };
    assert_eq!(ask(&mut neighbors, START), 200);
    assert_eq!(ask(&mut neighbors, START), 0);
    assert_eq!(ask(&mut neighbors, START + ASK_AGAIN / 2), 0);
    assert_eq!(ask(&mut neighbors, START + ASK_AGAIN), 200);
}

#[test]
fn what_arp_told_goes_before_where_packets_come_from() {
    let mut neighbors = Neighbors::default();
    let found = |neighbors: &mut Neighbors| neighbors.find(ip(1), START).mac;
    neighbors.correct(ip(1), A, START);
    assert_eq!(found(&mut neighbors), None);
    neighbors.heard(ip(1), A, START);
    assert_eq!(found(&mut neighbors), Some(A));
    neighbors.heard(ip(1), B, START);
    assert_eq!(found(&mut neighbors), Some(A));
    neighbors.correct(ip(1), B, START);
    assert_eq!(found(&mut neighbors), Some(B));
    neighbors.learn(ip(1), A, START);
    assert_eq!(found(&mut neighbors), Some(A));
}

#[test]
fn an_old_address_is_used_and_asked_for_and_forgotten_without_an_answer() {
    let mut neighbors = Neighbors::default();
    neighbors.learn(ip(1), A, START);
    let mut now = START + FRESH - Duration::from_micros(1);
    let known = Answer {
        mac: Some(A),
        ask: false,
    };
    assert_eq!(neighbors.find(ip(1), now), known);
    now = START + FRESH;
    for _ in 0..REQUESTS {
        let asked = Answer { ask: true, ..known };
        assert_eq!(neighbors.find(ip(1), now), asked);
        assert_eq!(neighbors.find(ip(1), now), known);
        now += ASK_AGAIN;
    }
    let forgotten = Answer {
        mac: None,
        ask: true,
    };
    assert_eq!(neighbors.find(ip(1), now), forgotten);
    neighbors.heard(ip(1), B, now);
    assert_eq!(neighbors.find(ip(1), now).mac, Some(B));
}

#[test]
fn who_was_not_heard_for_the_longest_time_gives_way() {
    let mut neighbors = Neighbors::default();
    let at = |number: usize| START + Duration::from_millis(number as u64);
    for number in 0..NEIGHBORS {
        neighbors.learn(ip(number), A, at(number));
    }
    neighbors.heard(ip(0), A, at(NEIGHBORS));
    neighbors.learn(ip(NEIGHBORS), A, at(NEIGHBORS));
    let now = at(NEIGHBORS);
    assert_eq!(neighbors.find(ip(0), now).mac, Some(A));
    assert_eq!(neighbors.find(ip(NEIGHBORS), now).mac, Some(A));
    assert_eq!(neighbors.find(ip(1), now).mac, None);
}
