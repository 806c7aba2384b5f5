//! Pairs without a network: what members do when the other is stopped or killed.

use crate::harness::{Process, Scratch, lockstep, replay_equal, run};
use crate::member::{Member, Told, both_stopped, echo, pair, records, stage};
use rustix::process::Signal;
use std::fs;

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_pair_ends_with_its_guest_and_both_logs_are_the_same() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (primary, backup) = pair(&scratch, "ticker", &Told::new(&scratch));
    let (primary, backup) = (
        primary.process.end().expect(0),
        backup.process.end().expect(0),
    );
    assert!(primary.stdout.contains("ticker: done"), "{primary:#?}");
    assert_eq!(backup.stdout, "", "only one side prints");
    assert_eq!(records(&scratch), ["1.close", "1.open"]);
    let verdict = replay_equal(&scratch.join("primary"));
    assert_eq!(replay_equal(&scratch.join("backup")), verdict);
    assert_eq!(verdict["cut"], false, "{verdict}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_signal_to_the_primary_ends_both_sides_and_closes_the_generation() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let (mut primary, backup) = pair(&scratch, "echo", &told);
    echo(&mut primary, "before the end");
    primary.process.signal(Signal::TERM);
    both_stopped(&scratch, primary, backup);

    // A closed VM can be started again, in the next generation.
    let mut next = Member::primary(&scratch, "next", "hello", &told.and(&["--solo"]));
    assert_eq!(next.await_event("started")["generation"], 2);
    next.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_primary_whose_backup_is_killed_goes_on_alone() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, backup) = pair(&scratch, "echo", &Told::new(&scratch));
    echo(&mut primary, "together");
    backup.kill();
    echo(&mut primary, "alone");
    assert_eq!(primary.await_event("solo")["generation"], 1);
    echo(&mut primary, "still alone");
    primary.process.end_input();
    let done = primary.process.end().expect(0);
    let said = "echo: ready\ntogether\nalone\nstill alone\necho: done, 3 lines\n";
    assert_eq!(done.stdout, said);
    assert_eq!(records(&scratch), ["1.claim", "1.close", "1.open"]);
    replay_equal(&scratch.join("primary"));
    assert_eq!(replay_equal(&scratch.join("backup"))["cut"], true);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_whose_primary_is_killed_goes_live() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let (mut primary, mut backup) = pair(&scratch, "echo", &told);
    echo(&mut primary, "on the primary");
    let before = primary.kill().stdout;
    assert_eq!(backup.await_event("live")["generation"], 1);
    echo(&mut backup, "on the survivor");
    backup.process.end_input();
    let after = backup.process.end().expect(0).stdout;
    // What the primary may not have printed is printed again: at least once, and in order.
    assert_eq!(before, "echo: ready\non the primary\n");
    let new = "on the survivor\necho: done, 2 lines\n";
    let again = after.strip_suffix(new).expect("all that is new");
    assert!(before.ends_with(again), "{again}");
    let verdict = replay_equal(&scratch.join("backup"));
    assert_eq!(verdict["go_lives"], 1, "{verdict}");
    replay_equal(&scratch.join("primary"));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_generation_that_is_open_is_not_opened_again_unless_forced() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch).and(&["--solo"]);
    let mut killed = Member::primary(&scratch, "killed", "echo", &told);
    killed.await_event("started");
    killed.kill();

    let refused = Member::primary(&scratch, "refused", "echo", &told);
    let sentence = refused.process.end().refused();
    assert!(sentence.contains("--force"), "{sentence}");
    assert!(!scratch.join("refused").exists(), "nothing is left of it");

    let mut forced = Member::primary(&scratch, "forced", "hello", &told.and(&["--force"]));
    assert_eq!(forced.await_event("started")["generation"], 2);
    let done = forced.process.end().expect(0);
    assert!(done.stdout.contains("hello: done"), "{done:#?}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn members_that_wait_leave_when_told() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut primary = Member::primary(&scratch, "primary", "echo", &told);
    primary.await_event("waiting");
    primary.process.signal(Signal::TERM);
    let done = primary.process.end().expect(0);
    assert_eq!(done.stdout, "", "the guest never ran");

    let mut backup = Member::backup(&scratch, "backup", &told);
    backup.await_event("connecting");
    backup.process.signal(Signal::INT);
    backup.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_drill_gives_its_verdict_and_its_logs_replay() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let report = scratch.arg("report");
    let args = [
        "drill",
        "kill-primary",
        "--runs",
        "2",
        "--report",
        &report,
        "--json",
    ];
    let verdict = run(args).expect(0).json();
    assert_eq!(verdict["scenario"], "kill-primary", "{verdict}");
    assert_eq!(verdict["runs"], 2, "{verdict}");
    for zero in [
        "lost",
        "repeated",
        "reconnects",
        "split_brains",
        "divergences",
        "failed_runs",
    ] {
        assert_eq!(verdict[zero], 0, "{zero}: {verdict}");
    }
    assert!(verdict["acked"].as_u64() > Some(100), "{verdict}");
    for time in [
        "vmm_ms",
        "client_ms",
        "detect_ms",
        "catch_up_ms",
        "arbitrate_ms",
        "go_live_ms",
    ] {
        let quantiles = &verdict[time];
        let of = |name: &str| {
            quantiles[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{time}: {verdict}"))
        };
        assert!(0.0 <= of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"));
    }
    let logs = crate::harness::recordings(&scratch.join("report"));
    assert_eq!(logs.len(), 4, "{logs:?}");
    for log in logs {
        let verdict = replay_equal(&log);
        let survived = log.ends_with("backup");
        assert_eq!(verdict["cut"], !survived, "{log:?}: {verdict}");
        assert_eq!(
            verdict["go_lives"],
            u64::from(survived),
            "{log:?}: {verdict}"
        );
    }
}

#[test]
fn drills_are_listed_and_unknown_ones_refused() {
    let list = run(["drill", "list"]).expect(0).stdout;
    assert!(list.contains("kill-primary"), "{list}");
    let list = run(["drill", "list", "--json"]).expect(0).json();
    assert_eq!(list["scenarios"][0]["name"], "kill-primary", "{list}");
    let sentence = run(["drill", "no-such-drill"]).refused();
    assert!(sentence.contains("kill-primary"), "{sentence}");
    run(["drill", "kill-primary", "--runs", "0"]).refused();
}

#[test]
fn a_drills_guest_must_be_there_and_serve() {
    let scratch = Scratch::new();
    let drill = |more: &[&str]| run([&["drill", "kill-primary"], more].concat()).refused();
    let sentence = drill(&["--guest", "hello"]);
    assert!(sentence.contains("needs its --initrd"), "{sentence}");
    let sentence = drill(&["--initrd", "initrd.img"]);
    assert!(sentence.contains("--initrd is for"), "{sentence}");
    let none = scratch.arg("none");
    let sentence = drill(&["--guest", &none, "--initrd", &none]);
    assert!(sentence.contains("cannot be read"), "{sentence}");
    let file = scratch.arg("file");
    fs::write(&file, "no kernel").expect("written");
    let args = [
        "drill",
        "kill-computing",
        "--guest",
        &file,
        "--initrd",
        &file,
    ];
    let sentence = run(args).refused();
    assert!(sentence.contains("guest of its own"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_drills_report_is_never_overwritten() {
    let (_stage, scratch) = (stage(), Scratch::new());
    fs::write(scratch.join("old"), "a report").expect("written");
    let report = scratch.path().to_str().expect("UTF-8");
    let sentence = run(["drill", "kill-primary", "--report", report]).refused();
    assert!(sentence.contains("--report"), "{sentence}");
}

/// Processes with this directory in their command lines, except this test.
fn processes_naming(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(dir) {
            found.push(line);
        }
    }
    found
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_interrupted_drill_leaves_nothing_behind() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let report = scratch.arg("report");
        let args = [
            "drill",
            "kill-primary",
            "--runs",
            "1000",
            "--report",
            &report,
        ];
        let drill = Process::start(&mut lockstep(args));
        // In the second run, at any moment.
        drill.await_stderr("a run is over", |err| err.contains("1/1000"));
        let running = processes_naming(&report);
        assert!(!running.is_empty(), "the drill itself");
        // The drill has a network of its own, which ends with the last process in it.
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).expect("a network");
        let its = network(&drill.pid().as_raw_nonzero().to_string());
        assert_ne!(its, network("self"));
        drill.signal(signal);
        let done = drill.end().expect(status);
        assert!(done.stderr.contains("interrupted"), "{done:#?}");
        assert_eq!(processes_naming(&report), Vec::<String>::new());
        let in_it: Vec<_> = fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter(|process| fs::read_link(process.path().join("ns/net")).is_ok_and(|n| n == its))
            .collect();
        assert!(in_it.is_empty(), "{in_it:?}");
    }
}
