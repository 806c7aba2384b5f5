//! Faults can be planted into members of `lockstep-faults`, and nothing of that is in `lockstep`.

use crate::harness::{Done, LOCKSTEP, LOCKSTEP_FAULTS, Process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn run(program: &str, args: &[&str]) -> Done {
    Process::start(Command::new(program).args(args)).end()
}

/// A member that would be started, but for its cut.
fn member(program: &str, role: &[&str], cut: &str) -> String {
    let mut args = role.to_vec();
    args.extend(["--vm", "vm", "--arbiter", "file:/tmp"]);
    args.extend(["--channel", "127.0.0.1:1", "--cut", cut]);
    run(program, &args).refused()
}

#[test]
fn only_the_program_that_plants_faults_takes_a_cut() {
    let listen = &["member", "echo", "--listen", "127.0.0.1:2"][..];
    for role in [&["primary", "echo"][..], &["backup"], listen] {
        for cut in ["log-sent", "nowhere"] {
            let sentence = member(LOCKSTEP, role, cut);
            assert!(
                sentence.contains("unexpected argument '--cut'"),
                "{sentence}"
            );
        }
        let sentence = member(LOCKSTEP_FAULTS, role, "nowhere");
        for name in lockstep_faults::names() {
            assert!(sentence.contains(name), "{sentence}");
        }
    }
    // It is an option of members.
    let sentence = run(LOCKSTEP_FAULTS, &["run", "echo", "--cut", "log-sent"]).refused();
    assert!(
        sentence.contains("unexpected argument '--cut'"),
        "{sentence}"
    );
}

#[test]
fn the_plain_program_has_nothing_of_the_faults() {
    let text = |program: &str| {
        let bytes = fs::read(program).expect("readable");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (plain, faults) = (text(LOCKSTEP), text(LOCKSTEP_FAULTS));
    // A symbol of the crate has its name in it.
    let names = lockstep_faults::names().chain(["lockstep_faults", "--cut", "as it was told to"]);
    for name in names {
        assert!(faults.contains(name), "{name} is found where it is");
        assert!(!plain.contains(name), "{name} is in {LOCKSTEP}");
    }
}

/// The names of a program's drills, and what it says beside them.
fn drills(program: &str) -> (BTreeSet<String>, String) {
    let done = run(program, &["drill", "list", "--json"]).expect(0);
    let listed = done.json()["scenarios"].take();
    let name = |drill: &Value| drill["name"].as_str().expect("a name").to_owned();
    let names = listed.as_array().expect("a list").iter().map(name);
    let text = run(program, &["drill", "list"]).expect(0);
    (names.collect(), text.stderr)
}

#[test]
fn drills_that_plant_faults_are_those_of_the_program_that_does() {
    let ((plain, elsewhere), (all, nothing)) = (drills(LOCKSTEP), drills(LOCKSTEP_FAULTS));
    assert!(plain.is_subset(&all), "{plain:?} {all:?}");
    let planting: Vec<&String> = all.difference(&plain).collect();
    assert_eq!(planting.len(), 7, "{planting:?}");
    assert!(planting.iter().all(|name| name.starts_with("cut-")));
    assert!(elsewhere.contains("lockstep-faults drill"), "{elsewhere}");
    assert_eq!(nothing, "");
    let sentence = run(LOCKSTEP, &["drill", "cut-log-sent"]).refused();
    assert!(sentence.contains("lockstep-faults drill"), "{sentence}");
}
