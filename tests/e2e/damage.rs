//! Logs that are cut or damaged. The tests of `ft-protocol` prove for every byte that a cut can be told
//! from damage. Here a real log shows that the command says so.

use crate::harness::{Done, Random, Scratch, record, replay, run};
use ft_protocol::log::file::{PREFIX_LEN, read_all};
use ft_protocol::log::{LogError, LogReader, Tail};
use std::fs;
use std::path::PathBuf;

/// Number of cuts, and of flips, that the command replays, in addition to those near both ends.
const SAMPLES: usize = 24;
/// Number of frames at the end of which every byte is tried.
const LAST_FRAMES: usize = 4;

/// A recorded log, and a place for damaged copies of it.
struct Recorded {
    scratch: Scratch,
    bytes: Vec<u8>,
    /// Where each entry's frame starts.
    frames: Vec<u64>,
}

impl Recorded {
    fn new() -> Recorded {
        let scratch = Scratch::new();
        record("ticker", &scratch.join("whole"));
        let bytes = fs::read(scratch.join("whole/log")).expect("a log");
        let mut reader = LogReader::open(&bytes[..]).expect("a log");
        let mut frames = Vec::new();
        while let Some((_, offset, _)) = reader.next().expect("sound") {
            frames.push(offset);
        }
        fs::create_dir(scratch.join("copy")).expect("made");
        let image = (
            scratch.join("whole/guest.elf"),
            scratch.join("copy/guest.elf"),
        );
        fs::copy(image.0, image.1).expect("copied");
        Recorded {
            scratch,
            bytes,
            frames,
        }
    }

    /// The directory of a recording that has this log.
    fn with(&self, log: &[u8]) -> PathBuf {
        fs::write(self.scratch.join("copy/log"), log).expect("written");
        self.scratch.join("copy")
    }

    fn first_entry(&self) -> usize {
        self.frames[0] as usize
    }

    /// Number of entries that are complete in the first `cut` bytes.
    fn whole_entries(&self, cut: usize) -> usize {
        let ends = self.frames.iter().skip(1).map(|&end| end as usize);
        ends.chain([self.bytes.len()])
            .filter(|&end| end <= cut)
            .count()
    }

    /// Bytes of the last frames.
    fn last(&self) -> std::ops::Range<usize> {
        self.frames[self.frames.len() - LAST_FRAMES] as usize..self.bytes.len()
    }

    fn flipped(&self, at: usize, bit: usize) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at] ^= 1 << bit;
        bytes
    }
}

/// `log stat`, which needs no KVM.
fn stat(dir: &std::path::Path) -> Done {
    run(["log".as_ref(), "stat".as_ref(), dir.as_os_str()])
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_cut_at_any_byte_is_read_to_its_last_whole_entry() {
    let log = Recorded::new();
    for cut in 0..log.bytes.len() {
        match read_all(&log.bytes[..cut]) {
            Ok((_, entries, tail)) => {
                assert_eq!(entries.len(), log.whole_entries(cut), "cut at {cut}");
                assert!(
                    matches!(tail, Tail::Open | Tail::Cut { .. }),
                    "cut at {cut}"
                );
            }
            Err(LogError::CutInHeader) => assert!(cut < log.first_entry(), "cut at {cut}"),
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_cut_in_its_header_is_said_to_be_cut() {
    let log = Recorded::new();
    for cut in 0..log.first_entry() {
        let sentence = stat(&log.with(&log.bytes[..cut])).one_sentence(0);
        assert!(sentence.contains("cut"), "cut at {cut}: {sentence}");
    }
    for cut in [
        0,
        1,
        PREFIX_LEN - 1,
        PREFIX_LEN,
        PREFIX_LEN + 1,
        log.first_entry() - 1,
    ] {
        let sentence = replay(&log.with(&log.bytes[..cut])).one_sentence(0);
        assert!(sentence.contains("cut"), "cut at {cut}: {sentence}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_cut_anywhere_replays_and_says_that_it_was_cut() {
    let log = Recorded::new();
    let mut random = Random::new();
    let first = log.first_entry();
    let between = log.last().start - first;
    let sample: Vec<usize> = (0..SAMPLES)
        .map(|_| first + random.below(between))
        .collect();
    // Every byte of the last frames with `log stat`, which is fast, and every third with a replay.
    for cut in log.last() {
        let told = stat(&log.with(&log.bytes[..cut])).expect(0).stdout;
        assert!(told.contains("cut"), "cut at {cut}: {told}");
    }
    for cut in sample
        .into_iter()
        .chain([first])
        .chain(log.last().step_by(3))
    {
        let verdict = replay(&log.with(&log.bytes[..cut])).expect(0).json();
        assert_eq!(verdict["ok"], true, "cut at {cut}: {verdict}");
        assert_eq!(verdict["cut"], true, "cut at {cut}: {verdict}");
        let entries = verdict["entries"].as_u64();
        assert_eq!(entries, Some(log.whole_entries(cut) as u64), "cut at {cut}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_flipped_bit_is_never_taken_for_a_cut() {
    let log = Recorded::new();
    let mut random = Random::new();
    for at in 0..log.bytes.len() {
        let bit = random.below(8);
        match read_all(&log.flipped(at, bit)[..]) {
            Err(LogError::Damaged { offset, .. }) if at >= PREFIX_LEN => {
                assert!(offset <= at as u64, "bit {bit} of byte {at}: {offset}");
            }
            Err(LogError::BadMagic | LogError::BadVersion { .. }) if at < PREFIX_LEN => {}
            other => panic!("bit {bit} of byte {at}: {other:?}"),
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_flipped_bit_is_reported_with_its_place_and_status() {
    let log = Recorded::new();
    let mut random = Random::new();
    for at in 0..PREFIX_LEN {
        let dir = log.with(&log.flipped(at, random.below(8)));
        stat(&dir).refused();
        replay(&dir).one_sentence(2);
    }
    for at in (PREFIX_LEN..log.first_entry()).chain(log.last()) {
        let bit = random.below(8);
        let sentence = stat(&log.with(&log.flipped(at, bit))).one_sentence(3);
        assert!(
            sentence.contains("at byte "),
            "bit {bit} of {at}: {sentence}"
        );
    }
    let entries = log.bytes.len() - log.first_entry();
    for _ in 0..SAMPLES {
        let (at, bit) = (log.first_entry() + random.below(entries), random.below(8));
        let done = replay(&log.with(&log.flipped(at, bit)));
        let verdict = done.json();
        assert_eq!(verdict["ok"], false, "bit {bit} of {at}: {verdict}");
        let sentence = done.one_sentence(3);
        let placed = sentence.contains("at byte ") || sentence.contains("at position ");
        assert!(placed, "bit {bit} of {at}: {sentence}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn what_follows_the_end_is_damage() {
    let log = Recorded::new();
    let mut longer = log.bytes.clone();
    longer.push(0);
    let sentence = replay(&log.with(&longer)).one_sentence(3);
    assert!(sentence.contains("after its end"), "{sentence}");
}
