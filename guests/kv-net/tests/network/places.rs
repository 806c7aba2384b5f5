//! Places for connections: which requests get one, and what happens to connections whose peers have
//! vanished.

use crate::frames::{FIRST, Remote, Segment};
use crate::harness::{Client, Lan};
use kv_net::PORT;
use kv_net::connections::{ANSWER_LIMIT, CONNECTIONS, RECLAIM_AFTER};
use kv_net::smoltcp::time::Duration;
use kv_net::smoltcp::wire::TcpControl;
use kv_net::waiting::{PATIENCE, WAITING};

const MOMENT: Duration = Duration::from_millis(1);

fn remote(number: usize) -> Remote {
    Remote::neighbor(10 + (number / 1000) as u8).at(1000 + (number % 1000) as u16)
}

fn requests(numbers: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Vec<u8>> {
    numbers.into_iter().map(|number| remote(number).syn())
}

fn of_control(segments: &[Segment], control: TcpControl) -> usize {
    segments.iter().filter(|it| it.control == control).count()
}

/// Was `number` accepted since the last call? No request may have been refused.
fn let_in(lan: &mut Lan, number: usize) -> bool {
    let segments = lan.segments();
    assert_eq!(of_control(&segments, TcpControl::Rst), 0, "{segments:?}");
    let to = (remote(number).ip, remote(number).port);
    segments
        .iter()
        .any(|it| it.to == to && it.control == TcpControl::Syn)
}

/// A server whose places are all taken by peers that are active.
fn full() -> (Lan, Vec<Client>) {
    let mut lan = Lan::new();
    let clients = (0..CONNECTIONS)
        .map(|number| remote(number).connect(&mut lan))
        .collect();
    (lan, clients)
}

#[test]
fn requests_whose_answers_are_lost_keep_nobody_out_for_long() {
    let mut lan = Lan::new();
    lan.hears_all(requests(0..CONNECTIONS));
    assert_eq!(of_control(&lan.segments(), TcpControl::Syn), CONNECTIONS);
    lan.hears(remote(5000).syn());
    assert!(!let_in(&mut lan, 5000));
    lan.pass(RECLAIM_AFTER - MOMENT);
    assert!(!let_in(&mut lan, 5000));
    lan.pass(MOMENT);
    assert!(let_in(&mut lan, 5000));
    // Only as many connections end as are needed, and the others soon after.
    assert_eq!(lan.network.connections().taken(), CONNECTIONS);
    lan.pass(ANSWER_LIMIT - RECLAIM_AFTER - MOMENT);
    assert_eq!(lan.network.connections().taken(), CONNECTIONS);
    lan.pass(MOMENT);
    assert_eq!(lan.network.connections().taken(), 1);
}

#[test]
fn who_cannot_hear_us_but_repeats_itself_is_given_up_as_well() {
    let mut lan = Lan::new();
    lan.hears_all(requests(0..CONNECTIONS));
    for _ in 0..3 {
        lan.pass(Duration::from_millis(500));
        lan.hears_all(requests(0..CONNECTIONS));
    }
    lan.segments();
    lan.hears(remote(5000).syn());
    lan.pass(RECLAIM_AFTER - Duration::from_millis(1500));
    assert!(let_in(&mut lan, 5000));
}

/// Peers that close and never acknowledge the server's close.
fn in_last_ack(lan: &mut Lan, clients: &mut [Client]) {
    for client in clients.iter_mut() {
        client.say(lan, TcpControl::Fin, &[]);
        let closes = lan.segments();
        assert_eq!(of_control(&closes, TcpControl::Fin), 1, "{closes:?}");
    }
}

#[test]
fn peers_that_vanish_while_they_close_keep_nobody_out_for_long() {
    let (mut lan, mut clients) = full();
    in_last_ack(&mut lan, &mut clients);
    lan.hears_all(requests(5000..5010));
    assert!(!let_in(&mut lan, 5000));
    lan.pass(RECLAIM_AFTER);
    let answers = lan.segments();
    for number in 5000..5010 {
        let to = remote(number).port;
        assert!(
            answers
                .iter()
                .any(|it| it.to.1 == to && it.control == TcpControl::Syn)
        );
    }
    lan.pass(ANSWER_LIMIT);
    // Those ten have not answered since, either.
    lan.pass(ANSWER_LIMIT);
    assert_eq!(lan.network.connections().taken(), 0);
}

#[test]
fn a_reply_that_is_never_acknowledged_keeps_no_place_of_one_that_closes() {
    let mut lan = Lan::new();
    let mut client = remote(1).connect(&mut lan);
    client.say(&mut lan, TcpControl::Psh, b"PING\r\n");
    client.say(&mut lan, TcpControl::Fin, &[]);
    lan.pass(ANSWER_LIMIT);
    assert_eq!(lan.network.connections().taken(), 0);
}

#[test]
fn an_open_connection_keeps_its_place_though_its_peer_is_silent() {
    let (mut lan, mut clients) = full();
    // A reply that is not acknowledged yet: the peer may be slow, or there may be a failover.
    for client in &mut clients {
        client.say(&mut lan, TcpControl::Psh, b"PING\r\n");
    }
    lan.hears(remote(5000).syn());
    lan.pass(PATIENCE + ANSWER_LIMIT);
    assert!(!let_in(&mut lan, 5000));
    assert_eq!(lan.network.connections().taken(), CONNECTIONS);
}

#[test]
fn a_request_waits_and_gets_the_next_place_at_once() {
    let (mut lan, mut clients) = full();
    lan.hears_all(requests(5000..5003));
    assert!(!let_in(&mut lan, 5000));
    for number in 5000..5003 {
        let mut leaving = clients.pop().expect("many");
        leaving.say(&mut lan, TcpControl::Fin, &[]);
        let closes = lan.segments();
        leaving.take(&mut lan, &closes);
        // In the order in which the requests came.
        assert!(let_in(&mut lan, number), "{number}");
    }
}

#[test]
fn who_comes_last_does_not_get_the_place_that_somebody_waits_for() {
    let mut lan = Lan::new();
    let last = CONNECTIONS - 1;
    let _clients: Vec<_> = (0..last).map(|it| remote(it).connect(&mut lan)).collect();
    lan.hears_all(requests([last, 5000]));
    lan.segments();
    // The moment when the peer that does not answer loses its place.
    lan.now += RECLAIM_AFTER;
    lan.hears(remote(5001).syn());
    let answers = lan.segments();
    let let_in: Vec<u16> = answers.iter().map(|it| it.to.1).collect();
    assert!(let_in.contains(&remote(5000).port), "{answers:?}");
    assert!(!let_in.contains(&remote(5001).port), "{answers:?}");
}

#[test]
fn a_request_that_is_not_repeated_is_forgotten() {
    let (mut lan, mut clients) = full();
    lan.hears_all(requests(5000..5002));
    lan.pass(PATIENCE - MOMENT);
    lan.hears(remote(5001).syn());
    lan.pass(MOMENT);
    let mut leaving = clients.pop().expect("many");
    leaving.say(&mut lan, TcpControl::Fin, &[]);
    let closes = lan.segments();
    leaving.take(&mut lan, &closes);
    assert!(let_in(&mut lan, 5001));
}

#[test]
fn no_number_of_requests_is_refused_or_remembered_without_limit() {
    let (mut lan, mut clients) = full();
    lan.hears_all(requests(5000..5000 + 4 * WAITING));
    assert!(lan.segments().is_empty());
    for client in &mut clients {
        client.say(&mut lan, TcpControl::Rst, &[]);
    }
    let answers = lan.segments();
    assert_eq!(of_control(&answers, TcpControl::Syn), CONNECTIONS);
    let oldest = answers.iter().map(|it| it.to).min().expect("some");
    let kept = remote(5000 + 3 * WAITING);
    assert_eq!(oldest, (kept.ip, kept.port));
}

#[test]
fn requests_for_other_ports_are_refused() {
    let mut lan = Lan::new();
    let request = remote(1).segment_to(PORT + 1, TcpControl::Syn, FIRST, None, 1000, &[]);
    lan.hears(request);
    let answers = lan.segments();
    assert_eq!(of_control(&answers, TcpControl::Rst), 1, "{answers:?}");
}

#[test]
fn a_peer_that_resets_or_damages_its_request_leaves_no_socket_that_listens() {
    let mut lan = Lan::new();
    for number in 0..3 * CONNECTIONS {
        let remote = remote(number);
        lan.hears(remote.syn());
        let answer = lan.segments().remove(0);
        let reset = remote.segment_to(
            PORT,
            TcpControl::Rst,
            FIRST + 1,
            Some(answer.seq + 1),
            0,
            &[],
        );
        // The next request comes at the same moment.
        let mut damaged = Remote::neighbor(200).syn();
        damaged[52] ^= 1;
        lan.hears_all([reset, damaged]);
        assert_eq!(lan.network.connections().taken(), 0);
        assert!(lan.segments().is_empty());
    }
}

#[test]
fn who_reads_slowly_after_closing_is_not_cut_while_it_answers() {
    let mut lan = Lan::new();
    let mut client = remote(1).connect(&mut lan);
    let value = vec![b'x'; 8000];
    let set = [
        &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8000\r\n"[..],
        &value[..1000],
    ]
    .concat();
    client.say(&mut lan, TcpControl::None, &set);
    for part in value[1000..].chunks(1000) {
        client.say(&mut lan, TcpControl::None, part);
    }
    lan.segments();
    client.say(&mut lan, TcpControl::Psh, b"\r\n");
    let segments = lan.segments();
    client.take(&mut lan, &segments);
    assert_eq!(client.received, b"+OK\r\n");
    // The peer accepts nothing now, closes its side, and answers keep-alives.
    client.window = 0;
    client.say(&mut lan, TcpControl::Psh, b"GET k\r\n");
    client.say(&mut lan, TcpControl::Fin, &[]);
    client.received.clear();
    for _ in 0..600 {
        lan.pass(Duration::from_millis(100));
        let segments = lan.segments();
        if segments.iter().any(|it| !it.payload.is_empty()) {
            client.say(&mut lan, TcpControl::None, &[]);
        }
    }
    assert_eq!(lan.network.connections().taken(), 1);
    client.window = u16::MAX;
    client.say(&mut lan, TcpControl::None, &[]);
    for _ in 0..30 {
        let segments = lan.segments();
        client.take(&mut lan, &segments);
    }
    assert_eq!(client.received.len(), "$8000\r\n".len() + 8000 + 2);
}
