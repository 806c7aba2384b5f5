//! Records that vanish, and what is put back.

use super::*;
use ft_protocol::arbiter::{Look, Standing};
use ft_protocol::transfer::Right;
use std::fs;

const P: MemberId = MemberId(1);
const B: MemberId = MemberId(2);

fn standing(won: bool) -> Standing {
    let OpenRecord {
        generation,
        members,
        nonce,
        ..
    } = record(1);
    let right = Right {
        generation,
        members,
        nonce,
    };
    Standing { right, won }
}

/// Everything is gone, as from an etcd that was restarted empty.
fn vanish(arbiter: &dyn Arbiter) {
    for name in arbiter.list("vm").unwrap() {
        arbiter.remove("vm", name).unwrap();
        arbiter.remove("vm", name).unwrap();
    }
    assert_eq!(arbiter.list("vm").unwrap(), []);
}

fn is_missing(answer: &ClaimAnswer) -> bool {
    matches!(answer, ClaimAnswer::Missing(why) if why.contains("1.open"))
}

#[test]
fn what_vanished_is_nobodys_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    vanishes(&FileArbiter::new(dir.path()));
}

pub fn vanishes(arbiter: &dyn Arbiter) {
    arbiter.prove("vm").unwrap();
    assert_eq!(arbiter.list("vm").unwrap(), [], "a proof leaves nothing");
    assert_eq!(open(arbiter, &record(1)), OpenAnswer::Opened);
    let (pair, won) = (standing(false), standing(true));
    assert_eq!(look(arbiter, "vm", P, Some(&pair)), Look::Sound);
    vanish(arbiter);
    for member in [P, B] {
        let answer = claim(arbiter, "vm", 1, member);
        assert!(is_missing(&answer), "{answer:?}");
    }
    let found = look(arbiter, "vm", P, Some(&pair));
    assert!(matches!(found, Look::Missing(_)), "{found:?}");
    put_back(arbiter, "vm", P, &pair).unwrap();
    assert_eq!(look(arbiter, "vm", P, Some(&pair)), Look::Sound);
    assert_eq!(claim(arbiter, "vm", 1, B), ClaimAnswer::Won);

    // Whoever won puts its claim back as well, and the other one finds that it lost.
    assert_eq!(look(arbiter, "vm", B, Some(&won)), Look::Sound);
    vanish(arbiter);
    put_back(arbiter, "vm", B, &won).unwrap();
    assert_eq!(look(arbiter, "vm", B, Some(&won)), Look::Sound);
    assert_eq!(claim(arbiter, "vm", 1, P), ClaimAnswer::Lost { by: B });

    // Nothing is put back over another's claim.
    arbiter.remove("vm", name(1, RecordKind::Open)).unwrap();
    let why = put_back(arbiter, "vm", P, &won).unwrap_err().to_string();
    assert!(why.contains("claimed generation 1"), "{why}");
    assert_eq!(claim(arbiter, "vm", 1, P), ClaimAnswer::Lost { by: B });
    // One's own claim without the record proves nothing.
    let answer = claim(arbiter, "vm", 1, B);
    assert!(is_missing(&answer), "{answer:?}");
}

#[test]
fn a_claim_under_a_record_that_vanishes_is_no_win() {
    let dir = tempfile::tempdir().unwrap();
    guards(&FileArbiter::new(dir.path()));
}

/// As if the record had vanished between the look for it and the claim.
pub fn guards(arbiter: &dyn Arbiter) {
    let [guard, claim] = [RecordKind::Open, RecordKind::Claim].map(|kind| name(1, kind));
    let under = || arbiter.create_under("vm", guard, claim, "mine").unwrap();
    assert_eq!(under(), None);
    arbiter.create("vm", guard, "there").unwrap();
    assert_eq!(under(), Some("mine".into()));
    assert_eq!(under(), Some("mine".into()), "asked again");
}

#[test]
fn nobody_opens_what_lies_behind_the_last_generation() {
    let dir = tempfile::tempdir().unwrap();
    let arbiter = FileArbiter::new(dir.path());
    assert_eq!(open(&arbiter, &record(3)), OpenAnswer::Opened);
    let last = OpenAnswer::AlreadyOpen { record: record(3) };
    assert_eq!(open(&arbiter, &record(1)), last);
    assert_eq!(open(&arbiter, &record(4)), OpenAnswer::Opened);
}

#[test]
fn an_operator_restores_the_last_generation_and_forgets_a_vm() {
    let dir = tempfile::tempdir().unwrap();
    operator(&FileArbiter::new(dir.path()));
}

pub fn operator(arbiter: &dyn Arbiter) {
    let pair = standing(false);
    assert_eq!(restore(arbiter, "vm", P, &pair).unwrap(), Ok(()));
    assert_eq!(restore(arbiter, "vm", P, &pair).unwrap(), Ok(()));
    let other = OpenRecord {
        nonce: Nonce(8),
        ..record(1)
    };
    arbiter.remove("vm", name(1, RecordKind::Open)).unwrap();
    assert_eq!(open(arbiter, &other), OpenAnswer::Opened);
    let why = restore(arbiter, "vm", P, &pair)
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(why.contains("belongs to others"), "{why}");
    assert_eq!(open(arbiter, &record(2)), OpenAnswer::Opened);
    let why = restore(arbiter, "vm", P, &pair)
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(why.contains("generation 2"), "{why}");
    assert_eq!(claim(arbiter, "vm", 2, B), ClaimAnswer::Won);
    assert_eq!(close(arbiter, "vm", 2, B), CloseAnswer::Closed);

    let found = survey(arbiter, "vm").unwrap();
    let numbers: Vec<u64> = found.generations.iter().map(|g| g.generation).collect();
    assert_eq!(numbers, [1, 2]);
    let last = &found.generations[1];
    assert_eq!(
        last.open.as_ref().map(|open| open.members),
        Some(record(2).members)
    );
    assert_eq!(last.claim.map(|claim| claim.claimant), Some(B));
    assert!(last.close.is_some() && found.generations[0].close.is_none());

    // An end without its open record is an end.
    arbiter.remove("vm", name(2, RecordKind::Open)).unwrap();
    let found = latest(arbiter, "vm").unwrap().unwrap();
    assert!(found.closed && found.record.is_none(), "{found:?}");
    forget(arbiter, "vm").unwrap();
    assert_eq!(survey(arbiter, "vm").unwrap(), Survey::default());
}

#[test]
fn what_a_member_cannot_do_there_is_found_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    // A directory that is none, and one whose VM's directory is a file.
    let why = FileArbiter::new(&file).prove("vm").unwrap_err().to_string();
    assert!(why.contains("file:"), "{why}");
    fs::write(dir.path().join("vm"), "").unwrap();
    let why = FileArbiter::new(dir.path())
        .prove("vm")
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("/vm/") && why.contains("cannot write"),
        "{why}"
    );
    // Without link(2): no record could ever be made in /proc.
    let why = FileArbiter::new(Path::new("/proc/self"))
        .prove("vm")
        .unwrap_err();
    assert!(why.to_string().contains("/proc/self/vm"), "{why}");
}

/// `systemd-tmpfiles` with this one line; what it said.
fn clean(scratch: &Path, line: &str) -> String {
    let rules = scratch.join("rules.conf");
    fs::write(&rules, format!("{line}\n")).unwrap();
    let cleaned = std::process::Command::new("systemd-tmpfiles")
        .arg("--clean")
        .arg(&rules)
        .output()
        .expect("systemd-tmpfiles");
    String::from_utf8_lossy(&cleaned.stderr).into_owned()
}

#[test]
#[cfg_attr(not(has_tmpfiles), ignore = "there is no systemd-tmpfiles here")]
fn a_cleaner_leaves_alone_what_a_member_keeps() {
    let scratch = tempfile::tempdir().unwrap();
    let tmp = scratch.path().join("tmp");
    let rule = format!("d {} 0755 - - 0", tmp.display());
    let dirs = ["kept", "left"].map(|name| tmp.join("deeper").join(name));
    let arbiters = dirs.each_ref().map(|dir| {
        fs::create_dir_all(dir).unwrap();
        let arbiter = FileArbiter::new(dir);
        assert_eq!(open(&arbiter, &record(1)), OpenAnswer::Opened);
        arbiter
    });
    let [kept, left] = &arbiters;
    look(kept, "vm", P, Some(&standing(false)));
    let said = clean(scratch.path(), &rule);
    assert_eq!(
        kept.list("vm").unwrap(),
        [name(1, RecordKind::Open)],
        "{said}"
    );
    assert!(
        left.list("vm").map_or(true, |names| names.is_empty()),
        "the cleaner works: {said}"
    );
}
