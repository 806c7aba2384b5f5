//! Recordings that begin in the middle: with a checkpoint of a machine that ran before.

use crate::harness::{Random, Scratch, backend, replay, replay_equal, run};
use crate::parts::parts_at;
use crate::state::{capture, following};
use ft_protocol::log::codec::encode_entry;
use ft_protocol::log::{Header, LogStart};
use lockstep_replay::journal::Chunk;
use lockstep_replay::{Checkpoint, CheckpointError, IfSlow, LogDir, LogDirWriter};
use std::fs;

/// Number of damaged copies of a checkpoint that are read.
const SAMPLES: usize = 400;

/// Records `guest` into `whole`, and into `rest` only what comes after a random position.
fn split(scratch: &Scratch, guest: &str, exits: usize) -> (Header, LogStart) {
    let whole = scratch.arg("whole");
    run(["run", guest, "--mem", "32", "--record", &whole]).expect(0);
    let (header, machine, mut edge) = following(&scratch.join("whole"));
    edge.only_left = true;
    let (machine, state) = capture(machine, &mut edge, exits);
    let followed = edge.follower.followed();
    let start = LogStart {
        seq: followed.entries,
        outputs: followed.outputs,
        at: state.position(),
    };
    let dir = LogDir::open(&scratch.join("whole"));
    let image = dir.image(&header).expect("its image");
    let rest = scratch.join("rest");
    let writer = LogDirWriter::create_at(
        &rest,
        &header,
        &image,
        start,
        (&state, machine.ram()),
        &|| (),
    );
    let writer = writer.unwrap_or_else(|e| panic!("{e}"));
    let mut log = dir.log().expect("a log");
    let (mut frames, mut last_seq) = (Vec::new(), start.seq);
    while let Some((seq, _, entry)) = log.next_with_offset().expect("sound") {
        if seq > start.seq {
            encode_entry(seq, &entry, &mut frames);
            last_seq = seq;
        }
    }
    let total_bytes = frames.len() as u64;
    let chunk = Chunk {
        frames: frames.into(),
        last_seq,
        total_bytes,
    };
    let mut consumer = writer.consumer(IfSlow::Wait);
    consumer.take(&chunk).expect("written");
    drop(consumer);
    writer.finish().expect("written");
    (header, start)
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_rest_of_a_recording_replays_from_its_checkpoint() {
    for (guest, exits) in [("chaos", 4000), ("ticker", 150)] {
        let scratch = Scratch::new();
        let (_, start) = split(&scratch, guest, exits);
        assert!(start.seq > 0 && start.at.exit > 0, "{start:?}");
        let (whole, rest) = (
            replay_equal(&scratch.join("whole")),
            replay_equal(&scratch.join("rest")),
        );
        for same in ["position", "edges", "digest", "end"] {
            assert_eq!(whole[same], rest[same], "{whole} {rest}");
        }
        let entries = |verdict: &serde_json::Value| verdict["entries"].as_u64().expect("a number");
        assert_eq!(entries(&whole), entries(&rest) + start.seq);
        assert_eq!(rest["from"].as_u64(), Some(start.at.exit), "{rest}");
        let dir = scratch.arg("rest");
        let told = run(["replay", &dir, "--verify"]).expect(0).stdout;
        assert!(
            told.contains(&format!("from position {}", start.at)),
            "{told}"
        );
        let stat = run(["log", "stat", &dir, "--json"]).expect(0).json();
        assert_eq!(stat["start"]["seq"].as_u64(), Some(start.seq), "{stat}");
        let shown = run(["log", "show", &dir]).expect(0).stdout;
        let first = shown
            .split_whitespace()
            .next()
            .and_then(|seq| seq.parse().ok());
        assert_eq!(first, Some(start.seq + 1), "{shown}");
        until_around(&dir, start);
        for exit in [start.at.exit + 1, start.at.exit + 20] {
            let of = |name| parts_at(&scratch.join(name), exit);
            assert_eq!(of("whole"), of("rest"), "at {exit}");
        }
    }
}

/// A replay stops where `--until` says, if that is not before the checkpoint.
fn until_around(dir: &str, start: LogStart) {
    let before = start.at.exit.to_string();
    let sentence = run(["replay", dir, "--until", &before]).refused();
    assert!(sentence.contains("begins at position"), "{sentence}");
    let after = (start.at.exit + 1).to_string();
    let verdict = run(["replay", dir, "--until", &after, "--json"])
        .expect(0)
        .json();
    assert_eq!(verdict["position"].to_string(), after, "{verdict}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_checkpoint_that_is_missing_damaged_or_anothers_is_told() {
    let scratch = Scratch::new();
    let (header, start) = split(&scratch, "ticker", 150);
    let path = scratch.join("rest/checkpoint");
    let sound = fs::read(&path).expect("a checkpoint");
    sample_damage(&sound, &header, start);

    let put = |bytes: &[u8]| fs::write(&path, bytes).expect("written");
    let rest = scratch.arg("rest");
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    put(&damaged);
    let sentence = run(["replay", &rest]).one_sentence(3);
    assert!(sentence.contains("damaged at byte"), "{sentence}");
    put(&sound[..sound.len() - 1]);
    let sentence = run(["replay", &rest]).one_sentence(3);
    assert!(sentence.contains("cut"), "{sentence}");
    let mut newer = sound.clone();
    newer[8..16].copy_from_slice(&[2, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff]);
    put(&newer);
    let sentence = run(["replay", &rest]).refused();
    assert!(sentence.contains("version 2"), "{sentence}");
    fs::remove_file(&path).expect("removed");
    let sentence = run(["replay", &rest]).refused();
    assert!(sentence.contains("whole with its checkpoint"), "{sentence}");

    let other = Scratch::new();
    split(&other, "ticker", 150);
    fs::copy(other.join("rest/checkpoint"), &path).expect("copied");
    let sentence = run(["replay", &rest]).refused();
    assert!(sentence.contains("not the one"), "{sentence}");
    put(&sound);
    replay_equal(&scratch.join("rest"));
}

/// Cuts and flips at random places, in addition to those near both ends.
fn sample_damage(sound: &[u8], header: &Header, start: LogStart) {
    let read = |bytes: &[u8]| Checkpoint::read(bytes, header, start);
    read(sound).unwrap_or_else(|e| panic!("{e}"));
    let mut random = Random::new();
    let ends = (0..100).chain(sound.len() - 100..sound.len());
    let places: Vec<usize> = ends
        .chain((0..SAMPLES).map(|_| random.below(sound.len())))
        .collect();
    for at in places {
        match read(&sound[..at]) {
            Err(CheckpointError::Cut) => {}
            other => panic!("cut at {at}: {other:?}"),
        }
        let mut flipped = sound.to_vec();
        flipped[at] ^= 1 << random.below(8);
        match read(&flipped) {
            Err(CheckpointError::BadMagic) if at < 16 => {}
            Err(CheckpointError::Damaged { offset, .. }) => assert!(offset as usize <= at),
            other => panic!("flipped at {at}: {other:?}"),
        }
    }
    let longer = [sound, &[0]].concat();
    assert!(matches!(
        read(&longer),
        Err(CheckpointError::Damaged { .. })
    ));
}

/// One byte of a page is changed, and all checksums are corrected. The first digest afterwards detects
/// it, and says that memory differs.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn another_byte_of_memory_is_found_by_the_next_digest() {
    let scratch = Scratch::new();
    let (header, start) = split(&scratch, "ticker", 150);
    let path = scratch.join("rest/checkpoint");
    let checkpoint = Checkpoint::read(&fs::read(&path).expect("read")[..], &header, start);
    let checkpoint = checkpoint.unwrap_or_else(|e| panic!("{e}"));
    let mut machine = checkpoint
        .restore(backend(header.machine.cpu), &header.machine)
        .unwrap_or_else(|e| panic!("{e}"));
    let state = machine.save().expect("it can be saved");
    let last = machine.ram().len() as u64 - 1;
    machine.ram().write(last, &[1]).expect("it lies there");
    let file = fs::File::create(&path).expect("made");
    lockstep_replay::checkpoint::write(file, &header, start, (&state, machine.ram()), &|| ())
        .expect("written");
    let done = replay(&scratch.join("rest")).expect(3).json();
    let error = done["error"].as_str().expect("text");
    assert!(error.contains("digest of memory differs"), "{error}");
}
