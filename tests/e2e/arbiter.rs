//! An arbiter whose storage loses its records, cannot be written, or hangs.

mod etcd;

use crate::harness::{Done, LOCKSTEP, Process, Scratch, run, text};
use crate::member::{
    Member, Told, arbiter, echo, echo_and_end, free_address, kill_one, pair, records, stage,
};
use crate::operator::operator;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What does not wait for a hanging storage is done within this time: the limit of one to three
/// seconds, plus a reserve.
const SOON: Duration = Duration::from_secs(6);

fn record(scratch: &Scratch, name: &str) -> PathBuf {
    scratch.join("arbiter/vm").join(name)
}

/// The names of the records. A member that was killed may have left a temporary file, which is not
/// counted.
fn kept(scratch: &Scratch) -> Vec<String> {
    let mut names = records(scratch);
    names.retain(|name| !name.starts_with('.'));
    names
}

fn vanish(scratch: &Scratch) {
    for name in records(scratch) {
        fs::remove_file(record(scratch, &name)).expect("removed");
    }
}

fn of_arbiter<'a>(scratch: &Scratch, command: &'a str, url: &'a str, more: &[&'a str]) -> Done {
    let args = ["arbiter", command, "--vm", "vm", "--arbiter", url];
    operator(scratch, args.into_iter().chain(more.iter().copied())).end()
}

/// Fails unless `status` reports that the member's record vanished, and the member holds.
#[track_caller]
fn holds(scratch: &Scratch, member: &mut Member) {
    let why = member.await_event("record_missing")["why"].to_string();
    assert!(why.contains("1.open") && why.contains("VM vm"), "{why}");
    let told = operator(scratch, ["status", "--vm", "vm"]).end().expect(0);
    assert!(told.stdout.contains("asking the arbiter"), "{told:#?}");
    assert!(told.stdout.contains("1.open"), "{told:#?}");
    for event in ["claim_won", "live", "solo", "ended"] {
        assert!(!member.has_told(event), "{event}: {member:?}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn who_needs_a_record_that_vanished_holds_until_an_operator_puts_it_back() {
    for dies in ["primary", "backup"] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let told = Told::new(&scratch);
        let (mut primary, backup) = pair(&scratch, "echo", &told);
        echo(&mut primary, "together");
        // Neither side can put the record back by itself.
        backup.process.signal(Signal::STOP);
        primary.process.signal(Signal::STOP);
        vanish(&scratch);
        let (mut survivor, alone) = kill_one(dies, primary, backup);
        survivor.process.signal(Signal::CONT);
        holds(&scratch, &mut survivor);
        let url = told.arbiter.as_str();
        let shown = of_arbiter(&scratch, "show", url, &[]).expect(0).stdout;
        assert!(
            shown.contains("no generation") && shown.contains("here: member"),
            "{shown}"
        );
        // Only the operator can know that no member went on alone.
        let sentence = of_arbiter(&scratch, "restore", url, &[]).refused();
        assert!(sentence.contains("--nobody-went-on"), "{sentence}");
        assert!(!survivor.has_told(alone));
        of_arbiter(&scratch, "restore", url, &["--nobody-went-on"]).expect(0);
        survivor.await_event(alone);
        survivor.await_event("record_back");
        echo(&mut survivor, "alone");
        let shown = of_arbiter(&scratch, "show", url, &["--json"])
            .expect(0)
            .json();
        assert!(shown["generations"][0]["claim"].is_object(), "{shown}");
        survivor.process.end_input();
        survivor.process.end().expect(0);
        assert_eq!(records(&scratch), ["1.claim", "1.close", "1.open"]);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_pair_that_is_well_puts_its_record_back_and_fails_over_as_ever() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
    echo(&mut primary, "together");
    let before = fs::read_to_string(record(&scratch, "1.open")).expect("a record");
    vanish(&scratch);
    primary.await_event("record_missing");
    primary.await_event("record_back");
    let after = fs::read_to_string(record(&scratch, "1.open")).expect("a record");
    let same = |text: &str| text.lines().take(6).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(same(&before), same(&after), "all but the time");
    primary.kill();
    backup.await_event("live");
    echo_and_end(backup, "alone");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn who_runs_alone_puts_its_claim_back_and_a_stale_side_finds_it() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
    echo(&mut primary, "together");
    primary.process.signal(Signal::STOP);
    backup.await_event("live");
    vanish(&scratch);
    backup.await_event("record_missing");
    backup.await_event("record_back");
    assert_eq!(records(&scratch), ["1.claim", "1.open"]);
    primary.process.signal(Signal::CONT);
    let sentence = primary.process.end().one_sentence(4);
    assert!(sentence.contains("goes on alone"), "{sentence}");
    echo_and_end(backup, "alone");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn restore_and_forget_refuse_where_they_would_do_harm() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let url = told.arbiter.clone();
    let nobody = of_arbiter(&scratch, "restore", &url, &["--nobody-went-on"]).refused();
    assert!(nobody.contains("no member of VM vm"), "{nobody}");
    let (mut primary, backup) = pair(&scratch, "echo", &told);
    echo(&mut primary, "together");
    let well = of_arbiter(&scratch, "restore", &url, &["--nobody-went-on"]).refused();
    assert!(well.contains("by themselves"), "{well}");
    let runs = of_arbiter(&scratch, "forget", &url, &["--force"]).refused();
    assert!(runs.contains("stop it first"), "{runs}");
    primary.kill();
    backup.kill();
    let open = of_arbiter(&scratch, "forget", &url, &[]).refused();
    assert!(open.contains("--force"), "{open}");
    of_arbiter(&scratch, "forget", &url, &["--force"]).expect(0);
    assert_eq!(kept(&scratch), [""; 0]);
    // The VM can be started anew.
    let solo = told.and(&["--solo"]);
    let mut anew = Member::primary(&scratch, "anew", "echo", &solo);
    anew.await_event("started");
    anew.process.signal(Signal::TERM);
    anew.process.end().expect(0);
    of_arbiter(&scratch, "forget", &url, &[]).expect(0);
    assert_eq!(kept(&scratch), [""; 0]);
}

/// The command lines of members of each role.
fn roles<'a>(url: &'a str, one: &'a str, two: &'a str) -> [Vec<&'a str>; 3] {
    let told = [
        "--vm",
        "vm",
        "--arbiter",
        url,
        "--channel",
        one,
        "--console",
        "none",
    ];
    let with = |role: &[&'a str]| role.iter().copied().chain(told).collect::<Vec<_>>();
    [
        with(&["primary", "echo"]),
        with(&["backup"]),
        with(&["member", "echo", "--listen", two]),
    ]
}

#[test]
#[cfg_attr(not(can_unshare), ignore = "needs KVM, root and util-linux")]
fn an_arbiter_that_cannot_be_written_is_refused_before_anybody_counts_on_it() {
    let scratch = Scratch::new();
    let url = arbiter(&scratch, "arbiter");
    let (one, two) = (free_address(), free_address());
    let dir = scratch.join("arbiter");
    let read_only = format!(
        "mount -t tmpfs -o ro none {} && exec \"$0\" \"$@\"",
        text(&dir)
    );
    for role in roles(&url, &one, &two) {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &read_only, LOCKSTEP])
            .args(&role);
        let sentence = Process::start(&mut command).end().refused();
        assert!(sentence.contains("Read-only"), "{sentence}");
        assert!(sentence.contains(&text(&dir.join("vm"))), "{sentence}");
    }
    // Another user's directory; the same happens to root if the server maps root to another user.
    for path in [scratch.path(), &dir] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    fs::copy(LOCKSTEP, scratch.join("lockstep")).expect("copied");
    for role in roles(&url, &one, &two) {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(scratch.join("lockstep")).args(&role);
        let sentence = Process::start(&mut command).end().refused();
        assert!(sentence.contains("Permission denied"), "{sentence}");
        assert!(sentence.contains(&text(&dir)), "{sentence}");
    }
    assert!(!dir.join("vm").exists(), "nothing was founded");
    // A user who may make the VM's directory, but not write there. Root is not stopped by that.
    fs::create_dir(dir.join("vm")).expect("made");
    chown(&dir, Some(65534), Some(65534)).expect("root");
    for role in roles(&url, &one, &two) {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(scratch.join("lockstep")).args(&role);
        let sentence = Process::start(&mut command).end().refused();
        assert!(sentence.contains("cannot write"), "{sentence}");
    }
}

/// Makes opening this file hang, as on a server that went away, until somebody opens its other end or
/// removes it.
fn hang(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_storage_that_hangs_is_unreachable_after_a_second_and_nobodys_end_waits_for_it() {
    for mended in [true, false] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
        echo(&mut primary, "together");
        primary.process.signal(Signal::STOP);
        let open = record(&scratch, "1.open");
        fs::rename(&open, scratch.join("kept")).expect("renamed");
        hang(&open);
        primary.kill();
        backup.await_event("caught_up");
        let began = Instant::now();
        let why = backup.await_event("unreachable")["why"].to_string();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert!(why.contains("did not answer within 1000 ms"), "{why}");
        backup.await_nth("unreachable", 2);
        if mended {
            fs::rename(scratch.join("kept"), &open).expect("renamed");
            backup.await_event("live");
            echo_and_end(backup, "alone");
        } else {
            backup.process.signal(Signal::TERM);
            // The first signal was handled by now: two pending signals of one kind would be one.
            backup.await_nth("unreachable", 4);
            backup.process.signal(Signal::TERM);
            backup.process.end_within(SOON).expect(1);
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_member_does_not_start_on_a_storage_that_hangs() {
    let scratch = Scratch::new();
    let url = arbiter(&scratch, "arbiter");
    fs::create_dir(scratch.join("arbiter/vm")).expect("made");
    hang(&record(&scratch, "1.open"));
    let (one, two) = (free_address(), free_address());
    for role in roles(&url, &one, &two) {
        let began = Instant::now();
        let sentence = run(&role).refused();
        assert!(sentence.contains("did not answer"), "{sentence}");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_guest_ends_on_a_storage_that_hangs() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let (mut primary, mut backup) = pair(&scratch, "echo", &Told::new(&scratch));
    echo(&mut primary, "together");
    hang(&record(&scratch, "1.close"));
    primary.process.signal(Signal::TERM);
    // Both sides try to close the generation, and a second signal does not wait for that.
    primary.await_event("unreachable");
    primary.process.signal(Signal::TERM);
    backup.await_event("unreachable");
    backup.process.signal(Signal::TERM);
    backup.await_nth("unreachable", 3);
    backup.process.signal(Signal::TERM);
    for member in [primary, backup] {
        member.process.end_within(SOON).expect(1);
    }
}
