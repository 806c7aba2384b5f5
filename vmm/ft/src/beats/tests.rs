use super::*;
use ft_protocol::arbiter::MemberId;
use std::net::Ipv4Addr;

const EVERY: Duration = Duration::from_millis(5);

/// A peer's socket, and beats towards it.
fn pair() -> (StdSocket, Beats) {
    let peer = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let beats = Beats::towards(peer.local_addr().unwrap(), EVERY).unwrap();
    (peer, beats)
}

fn beat(count: u64) -> Beat {
    Beat {
        generation: 3,
        from: MemberId(7),
        count,
    }
}

/// The next beat that the peer gets within `limit`.
fn heard(peer: &StdSocket, limit: Duration) -> Option<Beat> {
    peer.set_read_timeout(Some(limit)).unwrap();
    let mut datagram = [0; Beat::MAX_DATAGRAM];
    let len = peer.recv(&mut datagram).ok()?;
    Some(Beat::decode(&datagram[..len]).expect("a beat"))
}

#[tokio::test]
async fn a_runtime_that_does_not_run_for_a_while_is_heard_all_the_same() {
    let (peer, beats) = pair();
    beats.send(beat(40));
    // This thread, the runtime's, does nothing but look.
    let mut last = 39;
    let began = Instant::now();
    while began.elapsed() < LICENCE / 2 {
        let heard = heard(&peer, LICENCE / 4).expect("a beat");
        assert!(heard.count > last, "{} after {last}", heard.count);
        assert_eq!(Beat { count: 40, ..heard }, beat(40));
        last = heard.count;
    }
    assert!(last > 45, "{last}");
}

#[tokio::test]
async fn a_runtime_that_hangs_falls_silent() {
    let (peer, beats) = pair();
    beats.send(beat(1));
    let began = Instant::now();
    while heard(&peer, LICENCE / 4).is_some() {
        assert!(began.elapsed() < LICENCE * 2);
    }
    assert!(began.elapsed() >= LICENCE);
    // It wakes up.
    beats.send(beat(2));
    assert!(heard(&peer, LICENCE).is_some());
}

#[tokio::test]
async fn a_side_that_is_to_be_silent_is_at_once_and_counts_on_after_that() {
    let (peer, beats) = pair();
    beats.send(beat(1));
    for _ in 0..10 {
        heard(&peer, LICENCE).expect("a beat");
    }
    beats.silence();
    // One may have been under way.
    let mut last = 10;
    while let Some(heard) = heard(&peer, EVERY * 20) {
        last = heard.count;
        assert!(last < 13, "{last}");
    }
    beats.send(beat(2));
    assert!(heard(&peer, LICENCE).expect("a beat").count > last);
}

#[tokio::test]
async fn what_has_arrived_is_found_without_the_runtime_having_looked() {
    let (peer, beats) = pair();
    beats.send(beat(1));
    let mut datagram = [0; Beat::MAX_DATAGRAM];
    let (_, address) = peer.recv_from(&mut datagram).unwrap();
    assert_eq!(beats.arrived(), None);
    peer.send_to(b"no beat", address).unwrap();
    peer.send_to(&beat(9).encode(), address).unwrap();
    assert!(!beats.pass());
    let (beat, from) = beats.arrived().expect("a beat");
    assert!(beats.pass());
    assert_eq!((beat.count, from), (9, peer.local_addr().unwrap()));
    assert_eq!(beats.arrived(), None);
}
