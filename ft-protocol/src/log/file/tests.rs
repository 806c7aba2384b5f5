use super::*;
use crate::log::codec::{encode_entry, frame_len};
use crate::testing::{entries, entry, header};

/// The sample log, and where each frame ends, the header's first.
fn sample() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for n in 0..=entries().len() {
        bytes.clear();
        write_all(&mut bytes, &header(), &entries()[..n]).unwrap();
        ends.push(bytes.len());
    }
    (bytes, ends)
}

#[test]
fn a_log_comes_back_with_offsets_and_sequences() {
    let (bytes, ends) = sample();
    let mut log = LogReader::open(&bytes[..]).unwrap();
    assert_eq!(log.header(), &header());
    for (i, wanted) in entries().into_iter().enumerate() {
        let got = log.next().unwrap().unwrap();
        assert_eq!(got, (i as u64 + 1, ends[i] as u64, wanted));
    }
    assert!(log.next().unwrap().is_none());
    assert_eq!(log.tail(), Tail::Ended);
}

#[test]
fn cut_at_every_byte_it_reads_to_the_last_whole_entry_and_says_so() {
    let (bytes, ends) = sample();
    for cut in 0..=bytes.len() {
        let read = read_all(&bytes[..cut]);
        if cut < ends[0] {
            assert!(
                matches!(read, Err(LogError::CutInHeader)),
                "cut at {cut}: {read:?}"
            );
            continue;
        }
        let (head, got, tail) = read.unwrap();
        let whole = ends.iter().filter(|&&end| end <= cut).count() - 1;
        assert_eq!(head, header());
        assert_eq!(got, entries()[..whole], "cut at {cut}");
        let wanted = match ends[whole] {
            end if end == bytes.len() => Tail::Ended,
            end if end == cut => Tail::Open,
            end => Tail::Cut { offset: end as u64 },
        };
        assert_eq!(tail, wanted, "cut at {cut}");
    }
}

#[test]
fn every_flipped_bit_is_found_where_it_is() {
    let (bytes, ends) = sample();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = read_all(&bad[..]).unwrap_err();
        if bit / 8 < PREFIX_LEN {
            assert!(matches!(error, LogError::BadMagic), "bit {bit}: {error}");
            continue;
        }
        let start = ends
            .iter()
            .copied()
            .filter(|&end| end <= bit / 8)
            .max()
            .unwrap_or(PREFIX_LEN);
        match error {
            LogError::Damaged { offset, .. } => assert_eq!(offset, start as u64, "bit {bit}"),
            other => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn every_byte_set_to_anything_else_is_never_success_and_never_a_cut() {
    let (bytes, _) = sample();
    for at in 0..bytes.len() {
        for mask in [0xff, 0x80, 0x0f, 0xa5] {
            let mut bad = bytes.clone();
            bad[at] ^= mask;
            let error = read_all(&bad[..]).unwrap_err();
            let expected = match error {
                LogError::BadMagic => at < PREFIX_LEN,
                LogError::Damaged { .. } => at >= PREFIX_LEN,
                _ => false,
            };
            assert!(expected, "byte {at} ^ {mask:#x}: {error}");
        }
    }
}

#[test]
fn other_files_and_other_versions_are_told_apart() {
    for other in [
        &b"\x7fELF"[..],
        b"x",
        b"a text that is longer than a prefix",
        &[0; 100],
    ] {
        assert!(matches!(read_all(other), Err(LogError::BadMagic)));
    }
    for other in [FORMAT_VERSION - 1, FORMAT_VERSION + 1] {
        let (mut bytes, _) = sample();
        bytes[..PREFIX_LEN].copy_from_slice(&prefix(other));
        match read_all(&bytes[..]) {
            Err(LogError::BadVersion { found }) => assert_eq!(found, other),
            result => panic!("{result:?}"),
        }
    }
}

#[test]
fn a_log_can_begin_at_a_checkpoint() {
    let start = LogStart {
        seq: 4711,
        outputs: 12,
        at: Position { exit: 9, edges: 77 },
    };
    let mut log = LogWriter::create_at(Vec::new(), &header(), start).unwrap();
    assert_eq!(log.append(&entry(9, Event::Progress)).unwrap(), 4712);
    assert_eq!(log.append(&entry(10, Event::Progress)).unwrap(), 4713);
    let bytes = log.into_inner();
    let mut log = LogReader::open(&bytes[..]).unwrap();
    assert_eq!((log.header(), log.start()), (&header(), start));
    assert_eq!(log.next().unwrap().unwrap().0, 4712);
    assert_eq!(log.next().unwrap().unwrap().0, 4713);
    assert!(log.next().unwrap().is_none());
    // Nothing may come before the start, neither by number nor by position.
    let cases = [
        (1, 9, "frame 1 where 4712 belongs"),
        (4712, 8, "goes back from position 9:0"),
    ];
    for (seq, exit, why) in cases {
        let log = LogWriter::create_at(Vec::new(), &header(), start).unwrap();
        let mut bytes = log.into_inner();
        encode_entry(seq, &entry(exit, Event::Progress), &mut bytes);
        let error = read_all(&bytes[..]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_start_that_no_machine_reaches_is_damage() {
    let late = u64::MAX;
    for start in [(late, 0, 0), (0, late, 0), (0, 0, late)] {
        let (seq, outputs, exit) = start;
        let at = Position::exit(exit);
        let mut bytes = prefix(FORMAT_VERSION).to_vec();
        codec::frame_around(0, MAX_ENTRY_PAYLOAD, &mut bytes, |out| {
            codec::encode_payload(&header(), out);
            codec::encode_payload(&LogStart { seq, outputs, at }, out);
        });
        let error = read_all(&bytes[..]).unwrap_err().to_string();
        assert!(error.contains("begins where no log can"), "{error}");
    }
}

/// Reads the sample's header, and then these frames.
fn read_after_header(frames: &[u8]) -> Result<(Header, Vec<Entry>, Tail), LogError> {
    let (bytes, ends) = sample();
    read_all(&[&bytes[..ends[0]], frames].concat()[..])
}

#[test]
fn what_has_good_checksums_but_makes_no_sense_is_damage() {
    let end = entries().pop().unwrap();
    let mut backwards = Vec::new();
    encode_entry(1, &entry(9, Event::Progress), &mut backwards);
    let second = backwards.len();
    encode_entry(2, &entry(8, Event::Progress), &mut backwards);
    let mut after_end = Vec::new();
    encode_entry(1, &end, &mut after_end);
    let past = after_end.len();
    encode_entry(2, &end, &mut after_end);
    let mut dropped = Vec::new();
    encode_entry(2, &end, &mut dropped);
    let mut foreign = Vec::new();
    codec::encode_frame(1, &[0xff; 9], &mut foreign);
    let mut long = Vec::new();
    codec::encode_frame(1, &vec![0; MAX_ENTRY_PAYLOAD + 1], &mut long);
    let cases = [
        (&backwards[..], second, "goes back from position 9:0 to 8:0"),
        (&after_end, past, "after its end"),
        (&after_end[..past + 1], past, "after its end"),
        (&dropped, 0, "frame 2 where 1 belongs"),
        (&foreign, 0, "not understood"),
        (&long, 0, "the limit is"),
    ];
    for (frames, at, why) in cases {
        match read_after_header(frames) {
            Err(LogError::Damaged { offset, what }) => {
                assert_eq!(offset as usize, sample().1[0] + at, "{what}");
                assert!(what.contains(why), "{what}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn a_header_that_makes_no_sense_is_damage() {
    let mut bytes = prefix(FORMAT_VERSION).to_vec();
    codec::encode_frame(0, b"no header", &mut bytes);
    match read_all(&bytes[..]) {
        Err(LogError::Damaged { offset: 16, what }) => assert!(what.contains("the header")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_is_reported_again_when_asked_again() {
    let (mut bytes, ends) = sample();
    bytes[ends[0] + 20] ^= 1;
    let mut log = LogReader::open(&bytes[..]).unwrap();
    for _ in 0..2 {
        assert!(matches!(log.next(), Err(LogError::Damaged { .. })));
    }
}

/// A reader that gives one piece per read, with an interrupted read before each.
struct Pieces(Vec<Vec<u8>>, bool);

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let piece = if self.0.is_empty() {
            Vec::new()
        } else {
            self.0.remove(0)
        };
        buf[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

#[test]
fn a_log_can_be_followed_while_it_is_written() {
    let (bytes, ends) = sample();
    // An empty read means the end of the file as it is then.
    let middle = ends[2] + frame_len(0) / 2;
    let head = &bytes[7..PREFIX_LEN];
    let rest = [&bytes[PREFIX_LEN..middle], &[], &bytes[middle..]];
    let pieces = [&bytes[..7], head, rest[0], rest[1], rest[2]].map(<[u8]>::to_vec);
    let mut log = LogReader::open(Pieces(pieces.to_vec(), false)).unwrap();
    for _ in 0..2 {
        assert!(log.next().unwrap().is_some());
    }
    assert!(log.next().unwrap().is_none());
    assert_eq!(
        log.tail(),
        Tail::Cut {
            offset: ends[2] as u64
        }
    );
    let mut rest = Vec::new();
    while let Some((_, _, entry)) = log.next().unwrap() {
        rest.push(entry);
    }
    assert_eq!(rest, entries()[2..]);
    assert_eq!(log.tail(), Tail::Ended);
}

#[test]
fn encoded_frames_append_like_entries() {
    let mut frames = Vec::new();
    for (i, entry) in entries().iter().enumerate().skip(1) {
        encode_entry(i as u64 + 1, entry, &mut frames);
    }
    let mut log = LogWriter::create(Vec::new(), &header()).unwrap();
    assert_eq!(log.append(&entries()[0]).unwrap(), 1);
    log.append_frames(&frames).unwrap();
    assert_eq!(log.next_seq(), entries().len() as u64 + 1);
    assert_eq!(log.into_inner(), sample().0);
}

#[test]
#[should_panic(expected = "in order")]
fn frames_out_of_order_are_not_appended() {
    let mut frames = Vec::new();
    encode_entry(2, &entries()[0], &mut frames);
    let mut log = LogWriter::create(Vec::new(), &header()).unwrap();
    let _ = log.append_frames(&frames);
}
