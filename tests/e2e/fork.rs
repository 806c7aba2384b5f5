//! Recordings that are left in the middle: by a replay that stops there, and by a machine that goes on live.

use crate::harness::{Process, Scratch, lockstep, record, replay_equal, run, text};
use crate::soft::own;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The number of exits in a recording.
fn exits(dir: &Path) -> u64 {
    replay_equal(dir)["position"].as_u64().expect("a number")
}

/// Goes on live from the middle of the recording, to the guest's end; twice on each of these CPUs.
#[track_caller]
fn fork_ends_well(scratch: &Scratch, dir: &Path, cpus: &[&str], last: &str) {
    let before = fs::read(dir.join("log")).expect("a log");
    let middle = exits(dir) / 2;
    let from = format!("{}@{middle}", text(dir));
    for (number, cpu) in cpus.iter().enumerate() {
        let fork = scratch.join(format!("fork-{number}"));
        let args = [
            "run",
            "--from",
            &from,
            "--cpu",
            cpu,
            "--record",
            &text(&fork),
        ];
        let done = run(args).expect(0);
        assert!(done.stdout.ends_with(last), "{done:#?}");
        let verdict = replay_equal(&fork);
        assert!(verdict["from"].as_u64() >= Some(middle), "{verdict}");
        assert!(verdict["outputs"].as_u64() > Some(0), "{verdict}");
        // A fork's recording can be left again.
        let later = verdict["position"].as_u64().expect("a number") - 3;
        let from = format!("{}@{later}", text(&fork));
        let done = run(["run", "--from", &from, "--cpu", cpu]).expect(0);
        assert!(done.stdout.ends_with(last), "{done:#?}");
    }
    assert_eq!(fs::read(dir.join("log")).expect("a log"), before);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_recording_of_kvm_goes_on_live_on_either_cpu() {
    let scratch = Scratch::new();
    let dir = scratch.join("ticker");
    record("ticker", &dir);
    fork_ends_well(
        &scratch,
        &dir,
        &["auto", "soft"],
        "ticker: done, 100 ticks\n",
    );
}

#[test]
fn a_recording_of_the_software_cpu_goes_on_live() {
    let scratch = Scratch::new();
    let (image, dir) = (own(&scratch, "primes.c"), scratch.join("primes.log"));
    run(["run", &image, "--record", &text(&dir)]).expect(0);
    fork_ends_well(&scratch, &dir, &["auto"], "primes: done\n");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_fork_takes_other_input_than_the_recording() {
    let scratch = Scratch::new();
    let dir = scratch.arg("echo");
    let mut first = Process::with_input(&mut lockstep(["run", "echo", "--record", &dir]));
    first.echo("one");
    first.echo("two");
    first.end_input();
    first.end().expect(0);
    let said = run(["log", "show", &dir, "--json"]).expect(0).stdout;
    let entries = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let inputs: Vec<u64> = entries
        .filter(|entry| entry["kind"] == "console-input")
        .map(|entry| entry["at"].as_u64().expect("an exit"))
        .collect();
    // Between the two lines.
    let from = format!("{dir}@{}", inputs[0]);
    let mut second = Process::with_input(&mut lockstep(["run", "--from", &from]));
    second.echo("other");
    second.end_input();
    let done = second.end().expect(0);
    assert!(!done.stdout.contains("two"), "{done:#?}");
}

#[test]
fn what_cannot_be_left_is_refused_in_a_sentence() {
    let scratch = Scratch::new();
    let (image, dir) = (own(&scratch, "primes.c"), scratch.join("primes.log"));
    run(["run", &image, "--record", &text(&dir)]).expect(0);
    let dir = text(&dir);
    let from = |more: &[&str]| run([&["run", "--from"], more].concat()).refused();
    let end = exits(Path::new(&dir));
    let sentence = from(&[&format!("{dir}@{end}")]);
    assert!(sentence.contains("choose an earlier one"), "{sentence}");
    assert!(from(&[&dir]).contains("DIR@EXIT"));
    assert!(from(&[&format!("{dir}@x")]).contains("no number"));
    assert!(from(&[&format!("{dir}@5"), "--mem", "32"]).contains("--mem"));
    assert!(from(&[&format!("{dir}@5"), "--net", "tap=nothing-here"]).contains("nothing-here"));
    let sentence = from(&[&format!("{dir}@5"), "--cpu", "kvm"]);
    assert!(sentence.contains("counts instructions"), "{sentence}");
}

/// The verdict of a replay up to this place.
#[track_caller]
fn until(dir: &str, place: &str) -> Value {
    run(["replay", dir, "--json", "--until", place])
        .expect(0)
        .json()
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_replay_stops_between_two_exits() {
    let scratch = Scratch::new();
    let dir = scratch.arg("compute");
    run(["run", "compute", "--record", &dir]).expect(0);
    // In the middle of a computation, where a quantum of edges leads to the next exit.
    let whole = until(&dir, "100");
    let edges = whole["edges"].as_u64().expect("a number");
    let inside = until(&dir, &format!("100:{}", edges + 1234));
    assert_eq!(inside["position"], 100, "{inside}");
    assert_eq!(inside["edges"], edges + 1234, "{inside}");
    assert_ne!(inside["parts"], whole["parts"]);
    assert_eq!(until(&dir, &format!("100:{}", edges + 1234)), inside);
    let sentence = run(["replay", &dir, "--cpu", "kvm", "--until", "100:1"]).refused();
    assert!(sentence.contains("between two exits"), "{sentence}");
    for bad in ["x", "1:", ":1", "1:2:3"] {
        assert!(
            run(["replay", &dir, "--until", bad])
                .refused()
                .contains("no number")
        );
    }
}
