//! A peer that has forgotten its connection and opens a new one from the same port.

use crate::frames::Remote;
use crate::harness::Lan;
use kv_net::PORT;
use kv_net::smoltcp::wire::{TcpControl, TcpSeqNumber};

#[test]
fn it_is_told_of_the_old_connection_once_a_second_and_then_gets_a_new_one() {
    let mut lan = Lan::new();
    let remote = Remote::neighbor(7);
    let mut old = remote.connect(&mut lan);
    old.ask(&mut lan, b"PING\r\n", b"+PONG\r\n");
    let first = TcpSeqNumber(77_000);
    let request = remote.segment_to(PORT, TcpControl::Syn, first, None, 1000, &[]);
    lan.hears_all([request.clone(), request.clone()]);
    let answers = lan.segments();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].control, TcpControl::None);
    assert_eq!((answers[0].seq, answers[0].ack), (old.ack, Some(old.seq)));
    // The peer resets what it does not know (RFC 9293, 3.5.2), and repeats its request.
    let number = answers[0].ack.expect("an acknowledgement");
    lan.hears(remote.segment_to(PORT, TcpControl::Rst, number, None, 0, &[]));
    lan.hears(request);
    let answers = lan.segments();
    assert_eq!(answers[0].control, TcpControl::Syn);
    assert_eq!(answers[0].ack, Some(first + 1));
    assert_eq!(lan.network.connections().taken(), 1);
}

#[test]
fn a_forged_request_does_not_harm_the_connection() {
    let mut lan = Lan::new();
    let remote = Remote::neighbor(7);
    let mut client = remote.connect(&mut lan);
    lan.hears(remote.segment_to(PORT, TcpControl::Syn, TcpSeqNumber(5), None, 1000, &[]));
    lan.segments();
    client.ask(&mut lan, b"PING\r\n", b"+PONG\r\n");
}
