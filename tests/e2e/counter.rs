//! Interrupts inside computation: the software instruction counter.

use crate::harness::{Scratch, record, replay_equal, run};
use ft_protocol::log::file::{FORMAT_VERSION, read_all, write_all};
use ft_protocol::log::{Entry, Event};
use std::fs::{self, File};

/// How often `threads` is replayed here; a documented command does it a hundred times.
const REPLAYS: usize = 5;

fn entries(scratch: &Scratch, name: &str) -> Vec<Entry> {
    let log = File::open(scratch.join(name).join("log")).expect("a log");
    read_all(log).expect("sound").1
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn threads_switched_inside_computation_replay_to_the_bit() {
    let scratch = Scratch::new();
    let printed = record("threads", &scratch.join("threads"));
    assert!(printed.contains("threads: done"), "{printed}");
    // Interrupts came while the guest had computed since its last exit: at the ends of quanta.
    let (mut edges, mut inside) = (0, 0);
    for entry in entries(&scratch, "threads") {
        if matches!(entry.event, Event::Interrupt { .. }) {
            inside += u64::from(entry.at.edges - edges > 10_000);
            edges = entry.at.edges;
        }
    }
    assert!(inside > 100, "{inside} interrupts inside computation");
    let first = replay_equal(&scratch.join("threads"));
    assert!(first["interrupts"].as_u64() >= Some(1000), "{first}");
    assert!(first["edges"].as_u64() > Some(1_000_000), "{first}");
    for _ in 1..REPLAYS {
        assert_eq!(replay_equal(&scratch.join("threads")), first);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn two_runs_of_threads_differ_and_each_replays() {
    let scratch = Scratch::new();
    let printed = ["a", "b"].map(|name| record("threads", &scratch.join(name)));
    assert_ne!(printed[0], printed[1], "where interrupts land shows");
    for (name, printed) in ["a", "b"].into_iter().zip(printed) {
        let replayed = run(["replay", &scratch.arg(name)]).expect(0);
        assert_eq!(replayed.stdout, printed);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn chaos_replays_with_its_entropy() {
    let scratch = Scratch::new();
    let printed = record("chaos", &scratch.join("chaos"));
    assert!(printed.contains("chaos: done"), "{printed}");
    let entropy = |entry: &Entry| matches!(entry.event, Event::Entropy { .. });
    let log = entries(&scratch, "chaos");
    assert!(log.iter().any(entropy), "virtio-rng was asked");
    let first = replay_equal(&scratch.join("chaos"));
    assert_eq!(replay_equal(&scratch.join("chaos")), first);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_timer_reaches_a_guest_that_only_computes_within_two_quanta() {
    let printed = run(["run", "latency"]).expect(0).stdout;
    let line = printed.lines().find(|l| l.starts_with("latency: quanta"));
    let line = line.unwrap_or_else(|| panic!("no quanta in {printed}"));
    let words: Vec<&str> = line.split(' ').collect();
    let p99 = words.iter().position(|word| *word == "p99");
    let p99: u64 = p99
        .and_then(|at| words[at + 1].parse().ok())
        .unwrap_or_else(|| panic!("no p99 in {line}"));
    assert!(p99 < 2, "{line}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn edges_that_differ_are_a_divergence_with_its_position() {
    let scratch = Scratch::new();
    record("ticker", &scratch.join("ticker"));
    let path = scratch.join("ticker").join("log");
    let log = File::open(&path).expect("a log");
    let (header, mut entries, _) = read_all(log).expect("sound");
    let interrupt = |entry: &Entry| matches!(entry.event, Event::Interrupt { .. });
    let planted = entries.iter().position(interrupt).expect("an interrupt");
    // All later entries are shifted too, so that positions still rise.
    for entry in &mut entries[planted..] {
        entry.at.edges += 1;
    }
    let at = entries[planted].at;
    write_all(File::create(&path).expect("writable"), &header, &entries).expect("written");
    let sentence = run(["replay", &scratch.arg("ticker"), "--verify"]).one_sentence(3);
    assert!(sentence.contains("the guest's count is"), "{sentence}");
    let position = format!("{}:{}", at.exit, at.edges - 1);
    assert!(sentence.contains(&position), "{position}: {sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_of_another_format_is_refused_with_a_sentence() {
    let scratch = Scratch::new();
    record("hello", &scratch.join("hello"));
    let path = scratch.join("hello").join("log");
    let mut bytes = fs::read(&path).expect("a log");
    let old = FORMAT_VERSION - 1;
    bytes[8..12].copy_from_slice(&old.to_le_bytes());
    bytes[12..16].copy_from_slice(&(!old).to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let sentence = run(["replay", &scratch.arg("hello")]).refused();
    let wanted = format!("version {old}");
    assert!(sentence.contains(&wanted), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_of_another_machine_model_is_refused_with_a_sentence() {
    let scratch = Scratch::new();
    record("hello", &scratch.join("hello"));
    let path = scratch.join("hello").join("log");
    let (mut header, entries, _) = read_all(&fs::read(&path).expect("a log")[..]).expect("sound");
    header.machine.model += 1;
    let file = fs::File::create(&path).expect("written");
    write_all(file, &header, &entries).expect("written");
    let sentence = run(["replay", &scratch.arg("hello")]).refused();
    assert!(sentence.contains("machine model"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_doctor_finds_this_host_good() {
    let found = run(["doctor", "--json"]).expect(0).json();
    assert_eq!(found["good"], true, "{found}");
    let kvm = &found["findings"]["kvm"];
    let what = kvm["what"].as_str().expect("text");
    assert!(what.contains("twice the same"), "{kvm}");
    assert!(found["findings"]["branch_counter"]["what"].is_string());
    let bridges = found["findings"]["bridges"]["what"].as_str().expect("text");
    assert!(bridges.contains("firewall"), "{bridges}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_computing_guest_outlives_its_primary() {
    let scratch = Scratch::new();
    let report = scratch.arg("report");
    let drill = ["drill", "kill-computing", "--runs", "2", "--json"];
    let verdict = run(drill.iter().copied().chain(["--report", &report]))
        .expect(0)
        .json();
    for count in ["failed_runs", "split_brains", "divergences"] {
        assert_eq!(verdict[count], 0, "{verdict}");
    }
}
