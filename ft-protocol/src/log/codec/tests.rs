use super::*;
use crate::log::{Event, Header};
use crate::testing::{self, Rng};

/// Takes all frames that are complete.
fn drain(decoder: &mut FrameDecoder) -> Result<Vec<(u64, Vec<u8>, u64)>, Damage> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push((frame.seq, frame.payload.to_vec(), frame.offset));
    }
    Ok(frames)
}

#[test]
fn frames_come_back_however_the_stream_is_cut_into_pushes() {
    let mut stream = Vec::new();
    let mut wanted = Vec::new();
    for (i, len) in [0usize, 1, 7, 300, 0, 70_000].into_iter().enumerate() {
        let payload = vec![i as u8; len];
        wanted.push((5 + i as u64, payload.clone(), 1000 + stream.len() as u64));
        encode_frame(5 + i as u64, &payload, &mut stream);
    }
    let mut rng = Rng::seeded(1);
    for max in [1, 3, 17, 5000, 1 << 20] {
        let mut decoder = FrameDecoder::new(5, MAX_ENTRY_PAYLOAD, 1000);
        let (mut got, mut rest) = (Vec::new(), &stream[..]);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + rng.below(max) as usize));
            decoder.push(now);
            rest = later;
            got.extend(drain(&mut decoder).unwrap());
        }
        assert_eq!(got, wanted);
        assert_eq!(decoder.pending(), 0);
        assert_eq!(decoder.offset(), 1000 + stream.len() as u64);
    }
}

#[test]
fn a_gap_a_repeat_and_a_long_payload_are_damage_and_stay_it() {
    for (second, what) in [
        (4, "frame 4 where 2 belongs"),
        (1, "frame 1 where 2 belongs"),
    ] {
        let mut stream = Vec::new();
        encode_frame(1, b"one", &mut stream);
        let offset = stream.len() as u64;
        encode_frame(second, b"two", &mut stream);
        encode_frame(2, b"two", &mut stream);
        let mut decoder = FrameDecoder::new(1, MAX_ENTRY_PAYLOAD, 0);
        decoder.push(&stream);
        assert_eq!(decoder.next_frame().unwrap().unwrap().payload, b"one");
        let damage = Damage {
            offset,
            what: what.into(),
        };
        assert_eq!(decoder.next_frame(), Err(damage.clone()));
        assert_eq!(decoder.next_frame(), Err(damage));
    }
    let mut stream = Vec::new();
    encode_frame(1, &[0; 11], &mut stream);
    let mut decoder = FrameDecoder::new(1, 10, 0);
    decoder.push(&stream[..FRAME_HEADER_LEN]);
    assert!(
        decoder
            .next_frame()
            .unwrap_err()
            .what
            .contains("the limit is 10")
    );
}

#[test]
fn any_flipped_bit_is_damage_at_its_frame_even_before_the_frame_is_whole() {
    let mut stream = Vec::new();
    encode_frame(1, b"payload", &mut stream);
    encode_frame(2, b"more", &mut stream);
    let second = frame_len(7);
    for bit in 0..stream.len() * 8 {
        let mut bad = stream.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = FrameDecoder::new(1, MAX_ENTRY_PAYLOAD, 0);
        decoder.push(&bad);
        let damage = drain(&mut decoder).unwrap_err();
        let start = if bit / 8 < second { 0 } else { second };
        assert_eq!(damage.offset, start as u64, "bit {bit}");
        // A flipped bit in the length must not look like a frame that is still to come.
        let in_header = bit / 8 % second < FRAME_HEADER_LEN;
        let mut decoder = FrameDecoder::new(1, MAX_ENTRY_PAYLOAD, 0);
        decoder.push(&bad[..start + FRAME_HEADER_LEN]);
        assert_eq!(drain(&mut decoder).is_err(), in_header, "bit {bit}");
    }
}

#[test]
fn entries_and_headers_come_back_and_trailing_bytes_are_refused() {
    for entry in testing::entries() {
        let mut payload = Vec::new();
        encode_payload(&entry, &mut payload);
        assert_eq!(decode_entry(&payload), Ok(entry));
        payload.push(0);
        assert_eq!(decode_entry(&payload), Err(PayloadError::Trailing(1)));
        for cut in 0..payload.len() - 1 {
            assert!(decode_entry(&payload[..cut]).is_err());
        }
    }
    let mut payload = Vec::new();
    encode_payload(&testing::header(), &mut payload);
    assert_eq!(decode_payload::<Header>(&payload), Ok(testing::header()));
}

#[test]
fn the_longest_entry_fits_and_one_byte_more_is_refused() {
    let whole = |len| {
        let entry = testing::entry(u64::MAX, Event::Frame { data: vec![7; len] });
        let mut frame = Vec::new();
        encode_entry(1, &entry, &mut frame);
        (entry, frame)
    };
    let (_, frame) = whole(MAX_ENTRY_PAYLOAD / 2);
    let around = frame.len() - MAX_ENTRY_PAYLOAD / 2 - FRAME_HEADER_LEN - FRAME_TRAILER_LEN;
    let (entry, frame) = whole(MAX_ENTRY_PAYLOAD - around);
    let mut decoder = FrameDecoder::new(1, MAX_ENTRY_PAYLOAD, 0);
    decoder.push(&frame);
    assert_eq!(
        decode_entry(decoder.next_frame().unwrap().unwrap().payload),
        Ok(entry)
    );
    let longer = std::panic::catch_unwind(|| whole(MAX_ENTRY_PAYLOAD - around + 1));
    assert!(longer.is_err());
}

#[test]
fn payloads_of_every_size_class_come_back() {
    for len in [
        0,
        0xfff,
        0x1000,
        0x1001,
        0xffff,
        0x1_0000,
        0x10_0000,
        0x10_0001,
        3 << 20,
    ] {
        let mut payload = Vec::new();
        encode_payload(&vec![1u8; len], &mut payload);
        assert_eq!(decode_payload::<Vec<u8>>(&payload).unwrap().len(), len);
    }
}

#[test]
fn a_huge_length_is_refused_before_anything_is_allocated_for_it() {
    // The encoding of a byte string of 2^40 bytes, and of two of them.
    let lie = [&[253u8][..], &(1u64 << 40).to_le_bytes(), &[1, 2]].concat();
    let error = decode_payload::<Vec<u8>>(&lie).unwrap_err();
    assert!(
        matches!(&error, PayloadError::Undecodable(e) if e.contains("Limit")),
        "{error}"
    );
}

#[test]
fn random_payloads_and_streams_never_panic() {
    let mut rng = Rng::seeded(2);
    let samples: Vec<Vec<u8>> = testing::entries()
        .iter()
        .map(|e| {
            let mut payload = Vec::new();
            encode_payload(e, &mut payload);
            payload
        })
        .collect();
    for _ in 0..200_000 {
        let mut payload = match rng.below(3) {
            0 => (0..rng.below(64)).map(|_| rng.next() as u8).collect(),
            _ => samples[rng.below(samples.len() as u64) as usize].clone(),
        };
        for _ in 0..rng.below(4) {
            if let Some(len) = std::num::NonZero::new(payload.len() as u64) {
                let at = rng.below(len.get()) as usize;
                payload[at] = if rng.one_in(2) {
                    251 + rng.below(5) as u8
                } else {
                    rng.next() as u8
                };
            }
        }
        // What decodes must be a value that can be encoded and decoded again.
        if let Ok(entry) = decode_entry(&payload) {
            let mut again = Vec::new();
            encode_payload(&entry, &mut again);
            assert_eq!(decode_entry(&again), Ok(entry));
        }
        let _ = decode_payload::<Header>(&payload);
        let mut decoder = FrameDecoder::new(0, MAX_ENTRY_PAYLOAD, 0);
        decoder.push(&payload);
        assert!(!matches!(decoder.next_frame(), Ok(Some(_))));
    }
}
