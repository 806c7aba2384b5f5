//! `log diff`, `log export`, and what `log stat` says about bytes.

use crate::harness::{Scratch, record, run, text};
use crate::kv::{cli, recorded_kv, stop};
use crate::member::stage;
use crate::network::Segment;
use ft_protocol::log::Event;
use ft_protocol::log::file::{read_all, write_all};
use serde_json::Value;
use std::fs::{self, File};
use std::process::{Command, Stdio};

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn two_recordings_are_compared_in_words() {
    let scratch = Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    record("ticker", &a);
    fs::create_dir(&b).expect("a scratch directory");
    let (header, mut entries, _) =
        read_all(File::open(a.join("log")).expect("a log")).expect("sound");
    let write = |entries: &[_]| {
        let file = File::create(b.join("log")).expect("a scratch file");
        write_all(file, &header, entries).expect("room");
    };
    let (a, b_arg) = (text(&a), text(&b));
    let diff = |status: i32| {
        run(["log", "diff", &a, &b_arg, "--json"])
            .expect(status)
            .json()
    };
    write(&entries);
    let verdict = diff(0);
    assert_eq!(verdict["entries"], entries.len(), "{verdict}");
    assert_eq!(verdict["equal"], true, "{verdict}");
    // One clock entry is another.
    let clock = |entry: &&mut ft_protocol::log::Entry| matches!(entry.event, Event::Clock { .. });
    let changed = entries.iter_mut().filter(clock).nth(20).expect("it ticks");
    changed.event = Event::Clock { ns: 1 };
    let seq = 1 + entries
        .iter()
        .position(|it| it.event == Event::Clock { ns: 1 })
        .expect("there");
    write(&entries);
    let verdict = diff(1);
    assert_eq!(verdict["first"], seq, "{verdict}");
    assert!(
        verdict.to_string().contains("something else came in"),
        "{verdict}"
    );
    let words = run(["log", "diff", &a, &b_arg]).expect(1).stdout;
    assert!(
        words.contains(&format!("entry {seq} is the first that differs")),
        "{words}"
    );
    // The same up to where one of them ends.
    write(&entries[..10]);
    assert!(diff(1).to_string().contains("the other one ends before it"));
    run(["log", "diff", &a, &scratch.arg("nothing")]).refused();
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn bytes_are_counted_and_holds_computed() {
    let scratch = Scratch::new();
    let dir = scratch.join("ticker");
    record("ticker", &dir);
    let told = run(["log", "stat", &text(&dir), "--json", "--link", "1.5,100"])
        .expect(0)
        .json();
    let kinds = told["kind_bytes"].as_object().expect("bytes of each kind");
    let sum: u64 = kinds
        .values()
        .map(|it| it.as_u64().expect("a number"))
        .sum();
    assert_eq!(told["bytes"], sum, "{told}");
    let length = fs::metadata(dir.join("log")).expect("a log").len();
    assert!(sum < length && sum > length / 2, "{told} of {length}");
    // Never less than there and back.
    assert!(told["hold_ms"]["median"].as_f64() >= Some(3.0), "{told}");
    assert!(
        told["hold_ms"]["most"].as_f64() >= told["hold_ms"]["p99"].as_f64(),
        "{told}"
    );
    let sentence = run(["log", "stat", &text(&dir), "--link", "fast"]).refused();
    assert!(sentence.contains("MS,MBIT"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn json_and_a_timeline_hold_every_entry() {
    let scratch = Scratch::new();
    let dir = scratch.arg("threads");
    run(["run", "threads", "--record", &dir]).expect(0);
    let shown = run(["log", "show", &dir, "--json"]).expect(0).stdout;
    let entries: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let export = |format: &str| {
        run(["log", "export", &dir, "--format", format])
            .expect(0)
            .json()
    };
    let document = export("json");
    assert_eq!(document["entries"], Value::Array(entries.clone()));
    assert_eq!(document["header"]["guest"], "threads");
    // As the format's description has it: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    let trace = export("chrome-trace");
    let events = trace["traceEvents"].as_array().expect("a list");
    let instants: Vec<&Value> = events.iter().filter(|event| event["ph"] == "i").collect();
    assert_eq!(instants.len(), entries.len());
    let mut last = 0.0;
    for (instant, entry) in instants.into_iter().zip(&entries) {
        assert_eq!(instant["name"], entry["kind"]);
        assert_eq!(instant["args"]["entry"], entry["seq"]);
        let ts = instant["ts"].as_f64().expect("a time");
        assert!(
            ts >= last && instant["tid"].is_u64() && instant["pid"].is_u64(),
            "{instant}"
        );
        last = ts;
    }
    assert!(last > 1000.0, "{last}");
}

/// Frames of a pcap file with nanoseconds: time and bytes.
fn frames(mut file: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let word = |of: &mut &[u8]| {
        let (word, rest) = of.split_first_chunk::<4>().expect("whole words");
        *of = rest;
        u64::from(u32::from_le_bytes(*word))
    };
    let header: Vec<u64> = (0..6).map(|_| word(&mut file)).collect();
    assert_eq!((header[0], header[5]), (0xa1b2_3c4d, 1));
    let mut frames = Vec::new();
    while !file.is_empty() {
        let [s, ns, len, whole] = [(); 4].map(|()| word(&mut file));
        assert_eq!(len, whole);
        let (frame, rest) = file.split_at(len as usize);
        frames.push((s * 1_000_000_000 + ns, frame.to_vec()));
        file = rest;
    }
    frames
}

#[test]
#[cfg_attr(
    not(can_redis),
    ignore = "there is no KVM, no Redis tools, or this is not root"
)]
fn frames_of_both_directions_are_exported() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let kv = recorded_kv(&scratch, &segment);
    assert_eq!(cli(&segment, &["SET", "needle", "haystack"]), "OK");
    stop(kv);
    let dir = scratch.arg("kv");
    let pcap = scratch.join("frames.pcap");
    let status = Command::new(crate::harness::LOCKSTEP)
        .args(["log", "export", &dir, "--format", "pcap"])
        .stdout(Stdio::from(File::create(&pcap).expect("a scratch file")))
        .status();
    assert!(status.expect("it starts").success());
    let frames = frames(&fs::read(&pcap).expect("it was written"));
    assert!(frames.is_sorted_by(|a, b| a.0 <= b.0));
    let with = |text: &[u8]| {
        frames
            .iter()
            .filter(|(_, it)| it.windows(text.len()).any(|w| w == text))
            .count()
    };
    // The request came in, the answer went out.
    assert_eq!(with(b"haystack"), 1);
    assert!(with(b"+OK\r\n") >= 1);
    let tshark = Command::new("tshark")
        .args(["-r", &text(&pcap), "-Y", "resp", "-V"])
        .output();
    match tshark {
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && said.contains("haystack"), "{said}");
        }
        Err(e) => println!("there is no tshark here: {e}"),
    }
}
