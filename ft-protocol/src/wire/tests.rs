use super::*;
use crate::testing::{self, Rng};

fn messages() -> Vec<Message> {
    let members = Members {
        primary: MemberId(1),
        backup: Some(MemberId(u128::MAX)),
    };
    vec![
        Message::Hello {
            protocol: PROTOCOL_VERSION,
            vm: "demo".into(),
            member: MemberId(2),
            host: testing::host(),
        },
        Message::Refuse {
            reason: "no".into(),
        },
        Message::Welcome {
            protocol: PROTOCOL_VERSION,
            generation: 4,
            members,
            nonce: Nonce(9),
            header: Box::new(testing::header()),
            image: vec![0x7f; 300_000],
        },
        Message::Ready,
        Message::Log {
            frames: vec![5; 1000],
        },
        Message::Ack {
            received: 3,
            consumed: 1 << 40,
            executed: 2,
        },
        Message::Released { output: 8 },
        Message::Heartbeat,
        Message::Diverged {
            at: Position::exit(77),
            what: "RIP".into(),
        },
        Message::Bye,
        Message::Handover,
        Message::Leave,
        Message::Request(Request::Switchover),
        Message::Probe { number: 1 },
        Message::Echo { number: u64::MAX },
    ]
}

#[test]
fn messages_come_back_in_order_however_the_stream_is_cut() {
    let mut encoder = WireEncoder::default();
    let mut stream = Vec::new();
    for message in messages() {
        encoder.encode(&message, &mut stream).unwrap();
    }
    let mut rng = Rng::seeded(3);
    for max in [7, 100, 100_000, 1 << 20] {
        let mut decoder = WireDecoder::new();
        let (mut got, mut rest) = (Vec::new(), &stream[..]);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + rng.below(max) as usize));
            decoder.push(now);
            rest = later;
            while let Some(message) = decoder.next_message().unwrap() {
                got.push(message);
            }
        }
        assert_eq!(got, messages());
    }
}

#[test]
fn a_log_message_of_pieces_is_the_one_of_them_all() {
    for lengths in [&[][..], &[0], &[3, 247], &[250, 1], &[70_000, 9, 300]] {
        let pieces: Vec<Vec<u8>> = (1..).zip(lengths).map(|(n, len)| vec![n; *len]).collect();
        let frames = pieces.concat();
        let (mut wanted, mut out) = (Vec::new(), Vec::new());
        let mut encoder = WireEncoder::default();
        encoder.encode(&Message::Ready, &mut wanted).unwrap();
        let log = Message::Log { frames };
        encoder.encode(&log, &mut wanted).unwrap();
        let mut encoder = WireEncoder::default();
        encoder.encode(&Message::Ready, &mut out).unwrap();
        let pieces = pieces.iter().map(Vec::as_slice);
        encoder.encode_log(pieces, &mut out).unwrap();
        assert_eq!(out, wanted, "{lengths:?}");
    }
}

#[test]
fn a_message_that_is_lost_repeated_or_garbled_is_damage() {
    let encoded = |seq, payload: &[u8]| {
        let mut stream = Vec::new();
        codec::encode_frame(seq, payload, &mut stream);
        let mut decoder = WireDecoder::new();
        decoder.push(&stream);
        decoder.next_message()
    };
    let mut payload = Vec::new();
    codec::encode_payload(&Message::Heartbeat, &mut payload);
    assert_eq!(encoded(0, &payload), Ok(Some(Message::Heartbeat)));
    assert!(encoded(1, &payload).is_err());
    payload.push(0);
    assert!(encoded(0, &payload).unwrap_err().what.contains("too many"));
    assert!(encoded(0, &[200]).is_err());
    let mut decoder = WireDecoder::new();
    decoder.push(b"GET / HTTP/1.1\r\nHost: x\r\n");
    assert!(decoder.next_message().is_err());
}

#[test]
fn the_longest_image_fits_and_a_longer_message_is_refused() {
    let mut welcome = messages().swap_remove(2);
    for (len, fits) in [(MAX_IMAGE, true), (MAX_MESSAGE_PAYLOAD, false)] {
        let Message::Welcome { image, .. } = &mut welcome else {
            unreachable!()
        };
        *image = vec![1; len];
        let mut out = Vec::new();
        assert_eq!(encode_message(0, &welcome, &mut out).is_ok(), fits);
        let mut decoder = WireDecoder::new();
        decoder.push(&out);
        let wanted = fits.then(|| welcome.clone());
        assert!(decoder.next_message().unwrap() == wanted, "{len}");
    }
}

#[test]
fn versions_one_apart_talk_and_others_do_not() {
    assert_eq!(common_version(7, 7), Some(7));
    assert_eq!(common_version(7, 6), Some(6));
    assert_eq!(common_version(7, 8), Some(7));
    assert_eq!(common_version(7, 5), None);
    assert_eq!(common_version(7, 9), None);
    assert_eq!(common_version(1, 0), None);
    assert_eq!(common_version(1, u32::MAX), None);
}

#[test]
fn garbled_messages_never_panic() {
    let mut rng = Rng::seeded(4);
    let samples = messages();
    for _ in 0..20_000 {
        let mut payload = Vec::new();
        let sample = &samples[rng.below(samples.len() as u64) as usize];
        if matches!(sample, Message::Welcome { .. }) && !rng.one_in(20) {
            continue;
        }
        codec::encode_payload(sample, &mut payload);
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(payload.len() as u64) as usize;
            payload[at] = if rng.one_in(2) {
                251 + rng.below(5) as u8
            } else {
                rng.next() as u8
            };
        }
        if let Ok(message) = codec::decode_payload::<Message>(&payload) {
            let mut again = Vec::new();
            codec::encode_payload(&message, &mut again);
            assert_eq!(codec::decode_payload::<Message>(&again), Ok(message));
        }
    }
}

#[test]
fn beats_come_back_and_anything_else_is_none() {
    let beat = Beat {
        generation: u64::MAX,
        from: MemberId(u128::MAX),
        count: u64::MAX,
    };
    let datagram = beat.encode();
    assert!(datagram.len() <= Beat::MAX_DATAGRAM, "{}", datagram.len());
    assert_eq!(Beat::decode(&datagram), Some(beat));
    for len in 0..datagram.len() {
        assert_eq!(Beat::decode(&datagram[..len]), None);
    }
    for at in 0..datagram.len() * 8 {
        let mut flipped = datagram.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        assert_eq!(Beat::decode(&flipped), None, "bit {at}");
    }
    assert_eq!(Beat::decode(&[datagram.clone(), datagram].concat()), None);
}
