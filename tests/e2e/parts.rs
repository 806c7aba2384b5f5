//! The parts of the machine in which two members differ, as a divergence and a stopped replay report
//! them.

use crate::harness::{Scratch, replay_equal, run, text};
use crate::member::{Member, Told, pair, stage};
use crate::planted::{Sound, diverged, is_time};
use ft_protocol::log::Event;
use serde_json::Value;
use std::path::Path;

/// The machine's parts in a replay of a recording up to this exit.
#[track_caller]
pub fn parts_at(dir: &Path, exit: u64) -> Value {
    let (dir, exit) = (text(dir), exit.to_string());
    let done = run(["replay", &dir, "--until", &exit, "--json"]).expect(0);
    done.json()["parts"].take()
}

/// Names of the parts that differ.
fn differing(ours: &Value, theirs: &Value) -> Vec<String> {
    let (ours, theirs) = (
        ours.as_object().expect("parts"),
        theirs.as_object().expect("parts"),
    );
    assert!(ours.keys().eq(theirs.keys()), "{ours:?} {theirs:?}");
    let differs = |name: &&String| ours[*name] != theirs[*name];
    ours.keys().filter(differs).cloned().collect()
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_divergence_shows_in_which_parts_the_machine_differs() {
    let sound = Sound::of("ticker");
    let dir = sound.scratch.join("sound");
    // The random seed is in memory, and nothing reads it before the end.
    let done = sound.replay(|header, _| header.machine.seed ^= 1);
    let verdict = done.json();
    diverged("seed", done);
    let end = verdict["position"].as_u64().expect("a position");
    let same = parts_at(&dir, end);
    assert_eq!(differing(&verdict["parts"], &same), ["memory"], "{verdict}");
    assert_eq!(verdict["parts"]["memory"].as_str().map(str::len), Some(16));
    // A timer that was started at another time shows in the devices long before it expires.
    let started = sound.entries.iter().position(|entry| is_time(&entry.event));
    let started = started.expect("the timer was started");
    let done = sound.replay(|_, log| match &mut log[started].event {
        Event::Time { ns } => {
            *ns += 1;
            let mut checks = log[started + 1..]
                .iter_mut()
                .filter_map(|e| e.check.as_mut());
            checks.next().expect("a check").rip += 1;
        }
        other => panic!("{other:?}"),
    });
    let verdict = done.json();
    diverged("timer", done);
    let at = verdict["position"].as_u64().expect("a position");
    let differ = differing(&verdict["parts"], &parts_at(&dir, at));
    assert!(differ.contains(&"8254".into()), "{differ:?}");
    assert!(!differ.contains(&"vCPU registers".into()), "{differ:?}");
    // As text, one line each.
    let text = run(["replay", &sound.scratch.arg("planted"), "--verify"])
        .expect(3)
        .stdout;
    for (name, digest) in verdict["parts"].as_object().expect("parts") {
        let digest = digest.as_str().expect("text");
        let is_it = |line: &str| line.starts_with(name) && line.ends_with(digest);
        assert!(text.lines().any(is_it), "{name}: {text}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_that_diverges_tells_in_which_parts() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut primary = Member::primary(&scratch, "primary", "echo", &told);
    let flipped = told.planting("page-flips");
    let mut backup = Member::backup(&scratch, "backup", &flipped);
    backup.await_event("joined");
    primary.await_event("started");
    primary.process.end_input();
    let event = backup.await_event("diverged");
    backup.process.end().expect(3);
    primary.process.end().expect(0);
    let at = event["position"].as_u64().expect("a position");
    let same = parts_at(&scratch.join("primary"), at);
    assert_eq!(differing(&event["parts"], &same), ["memory"], "{event}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn two_equal_recordings_have_equal_parts_everywhere() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (primary, backup) = pair(&scratch, "ticker", &Told::new(&scratch));
    primary.process.end().expect(0);
    backup.process.end().expect(0);
    let (one, other) = (scratch.join("primary"), scratch.join("backup"));
    let last = replay_equal(&one)["position"].as_u64().expect("a position");
    let mut before = None;
    for exit in [0, 1, last / 3, last / 2, last - 1, last] {
        let parts = parts_at(&one, exit);
        assert_eq!(parts, parts_at(&other, exit), "at {exit}");
        assert_ne!(before.as_ref(), Some(&parts), "at {exit}");
        before = Some(parts);
    }
}
