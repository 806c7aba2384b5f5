//! What operators ask of a pair; and sides that hang, sleep, or must be shut out before the other goes
//! on.

use crate::harness::{Scratch, replay_equal};
use crate::member::{
    Member, Told, both_stopped, echo, echo_and_end, kill_one, pair, records, stage,
};
use crate::operator::ask;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn stop_ends_both_sides_and_closes_the_generation() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, backup) = pair(&scratch, "echo", &Told::new(&scratch));
    echo(&mut primary, "before the end");
    ask(&scratch, "stop").expect(0);
    both_stopped(&scratch, primary, backup);
    let sentence = ask(&scratch, "stop").refused();
    assert!(sentence.contains("no member of VM vm"), "{sentence}");
    let left = fs::read_dir(scratch.join("runtime")).expect("a directory");
    assert_eq!(left.count(), 0, "no socket is left");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_switchover_makes_the_backup_live_and_the_primary_ends_well() {
    let (_stage, scratch) = (stage(), Scratch::new());
    // A fence is for a dead peer: a primary that handed over is not fenced.
    let told = Told::new(&scratch).and(&["--fence", "false"]);
    let (mut primary, mut backup) = pair(&scratch, "echo", &told);
    echo(&mut primary, "on the primary");
    ask(&scratch, "switchover").expect(0);
    assert_eq!(primary.await_event("handed_over")["generation"], 1);
    let before = primary.process.end().expect(0).stdout;
    assert_eq!(before, "echo: ready\non the primary\n");
    assert_eq!(backup.await_event("live")["reemitted"], 0);
    echo(&mut backup, "on the survivor");
    // There is no pair now.
    let sentence = ask(&scratch, "switchover").refused();
    assert!(sentence.contains("without a backup"), "{sentence}");
    ask(&scratch, "stop").expect(0);
    let after = backup.process.end().expect(0).stdout;
    assert_eq!(after, "on the survivor\n", "nothing is said twice");
    assert_eq!(records(&scratch), ["1.claim", "1.close", "1.open"]);
    assert_eq!(replay_equal(&scratch.join("backup"))["go_lives"], 1);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_that_is_told_to_leaves_and_the_primary_goes_on_by_right() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
    backup.process.signal(Signal::TERM);
    backup.await_event("left");
    backup.process.end().expect(0);
    let reason = primary.await_event("backup_lost")["reason"].clone();
    assert_eq!(reason, "it was told to leave");
    primary.await_event("claim_won");
    primary.await_event("solo");
    echo_and_end(primary, "alone");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_side_that_was_stopped_halts_with_4_when_it_wakes_up() {
    for hung in ["primary", "backup"] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
        echo(&mut primary, "together");
        let (stale, mut survivor) = match hung {
            "primary" => {
                primary.process.signal(Signal::STOP);
                backup.await_event("live");
                (primary, backup)
            }
            _ => {
                backup.process.signal(Signal::STOP);
                primary.await_event("solo");
                (backup, primary)
            }
        };
        echo(&mut survivor, "on the survivor");
        stale.process.signal(Signal::CONT);
        let sentence = stale.process.end().one_sentence(4);
        assert!(sentence.contains("goes on alone"), "{sentence}");
        survivor.process.end_input();
        survivor.process.end().expect(0);
        assert_eq!(records(&scratch), ["1.claim", "1.close", "1.open"]);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_primary_whose_vcpu_hangs_is_no_primary() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let hangs = told.planting("vcpu-hangs:50");
    let mut primary = Member::primary(&scratch, "primary", "ticker", &hangs);
    let mut backup = Member::backup(&scratch, "backup", &told);
    let reason = backup.await_event("suspect")["reason"].to_string();
    assert!(reason.contains("silent"), "{reason}");
    backup.await_event("live");
    primary.await_event("backup_lost");
    let survived = backup.process.end().expect(0);
    assert!(survived.stdout.contains("ticker: done"), "{survived:#?}");
    // The primary's own claim waits for a vCPU that never answers.
    primary.kill();
    assert_eq!(replay_equal(&scratch.join("backup"))["go_lives"], 1);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_whose_vcpu_hangs_is_no_backup() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut primary = Member::primary(&scratch, "primary", "echo", &told);
    let hangs = told.planting("vcpu-hangs:10");
    let backup = Member::backup(&scratch, "backup", &hangs);
    let reason = primary.await_event("backup_lost")["reason"].to_string();
    assert!(reason.contains("silent"), "{reason}");
    primary.await_event("solo");
    echo_and_end(primary, "alone");
    backup.kill();
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn nobody_goes_on_before_the_fence_succeeds() {
    for dies in ["primary", "backup"] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let fence = format!(
            "echo $LOCKSTEP_VM $LOCKSTEP_GENERATION >> {0} && test -e {1}",
            scratch.arg("fenced"),
            scratch.arg("power-is-off")
        );
        let told = Told::new(&scratch).and(&["--fence", &fence]);
        let (mut primary, backup) = pair(&scratch, "echo", &told);
        echo(&mut primary, "together");
        let (mut survivor, alone) = kill_one(dies, primary, backup);
        let why = survivor.await_event("fence_failed")["why"].to_string();
        assert!(why.contains("exit status: 1"), "{why}");
        survivor.await_event("claim_won");
        assert!(!survivor.has_told(alone), "{survivor:?}");
        fs::write(scratch.join("power-is-off"), "").expect("written");
        survivor.await_event(alone);
        echo(&mut survivor, "alone");
        let fenced = fs::read_to_string(scratch.join("fenced")).expect("it ran");
        assert!(fenced.lines().count() >= 2, "{fenced}");
        assert!(fenced.lines().all(|line| line == "vm 1"), "{fenced}");
        survivor.process.end_input();
        survivor.process.end().expect(0);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_arbiter_that_is_away_is_asked_until_it_is_back() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
    echo(&mut primary, "together");
    fs::rename(scratch.join("arbiter"), scratch.join("away")).expect("renamed");
    primary.kill();
    let why = backup.await_event("unreachable")["why"].to_string();
    assert!(why.contains("cannot be reached"), "{why}");
    assert!(!backup.has_told("claim_won") && !backup.has_told("live"));
    fs::rename(scratch.join("away"), scratch.join("arbiter")).expect("renamed");
    backup.await_event("live");
    echo_and_end(backup, "alone");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_primary_killed_at_a_cut_point_leaves_a_backup_that_goes_on() {
    for point in [
        "entry-logged",
        "log-sent",
        "ack-received",
        "output-released",
    ] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let told = Told::new(&scratch);
        let cut = told.planting(&format!("{point}:5"));
        let primary = Member::primary(&scratch, "primary", "ticker", &cut);
        let mut backup = Member::backup(&scratch, "backup", &told);
        let before = primary.process.end();
        assert_eq!(before.status, None, "killed at {point}: {before:#?}");
        backup.await_event("live");
        let after = backup.process.end().expect(0).stdout;
        assert!(after.contains("ticker: done"), "{point}: {after}");
        replay_equal(&scratch.join("backup"));
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_told_another_guest_or_quantum_is_refused() {
    for (more, word) in [(&["hello"][..], "image"), (&["--quantum", "7"], "quantum")] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let told = Told::new(&scratch);
        let primary = Member::primary(&scratch, "primary", "echo", &told);
        let backup = Member::backup(&scratch, "backup", &told.and(more));
        let sentence = backup.process.end().refused();
        assert!(sentence.contains(word), "{sentence}");
        primary.process.signal(Signal::TERM);
        primary.process.end().expect(0);
    }
}

/// The control socket of the member whose id is in this event.
fn socket(scratch: &Scratch, member: &mut Member, event: &str) -> std::path::PathBuf {
    let id = member.await_event(event)["member"].clone();
    let id = id.as_str().expect("an id").to_owned();
    scratch.join("runtime").join(format!("vm@{id}.sock"))
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn clients_that_say_nothing_keep_no_operator_waiting() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
    let sockets = [
        socket(&scratch, &mut primary, "waiting"),
        socket(&scratch, &mut backup, "connecting"),
    ];
    // More connections than there is room for.
    let silent = || -> Vec<UnixStream> {
        let connect = |path| UnixStream::connect(path).expect("it listens");
        (0..40).flat_map(|_| sockets.iter().map(connect)).collect()
    };
    let held = silent();
    let began = Instant::now();
    let status = ask(&scratch, "status").expect(0).stdout;
    assert_eq!(status.lines().count(), 2, "{status}");
    let held_anew = silent();
    ask(&scratch, "stop").expect(0);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop((held, held_anew));
    primary.process.end().expect(0);
    backup.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_stop_that_leaves_the_generation_open_says_so_with_status_1() {
    for at in ["primary", "backup"] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
        echo(&mut primary, "before the end");
        let unasked = match at {
            "primary" => socket(&scratch, &mut backup, "connecting"),
            _ => socket(&scratch, &mut primary, "waiting"),
        };
        fs::remove_file(unasked).expect("it is there");
        fs::rename(scratch.join("arbiter"), scratch.join("away")).expect("renamed");
        let sentence = ask(&scratch, "stop").one_sentence(1);
        assert!(
            sentence.contains("generation 1 is still open"),
            "{at}: {sentence}"
        );
        assert!(sentence.contains("--force"), "{at}: {sentence}");
        for member in [primary, backup] {
            let done = member.process.end().expect(1);
            assert!(
                done.stderr.contains("generation 1 is still open"),
                "{done:#?}"
            );
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_stop_at_the_backup_is_done_once_the_generation_is_closed() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    // The primary reaches the arbiter by another path, which is cut.
    let theirs = Told {
        arbiter: format!("file:{}", scratch.join("way").display()),
        ..told.clone()
    };
    symlink(scratch.join("arbiter"), scratch.join("way")).expect("linked");
    let mut primary = Member::primary(&scratch, "primary", "echo", &theirs);
    let mut backup = Member::backup(&scratch, "backup", &told);
    primary.await_event("started");
    backup.await_event("joined");
    fs::remove_file(socket(&scratch, &mut primary, "waiting")).expect("it is there");
    fs::remove_file(scratch.join("way")).expect("it is there");
    ask(&scratch, "stop").expect(0);
    assert_eq!(records(&scratch), ["1.close", "1.open"]);
    backup.process.end().expect(0);
    // The primary does not know that.
    primary.process.end().expect(1);
}
