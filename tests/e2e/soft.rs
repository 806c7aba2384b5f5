//! The CPU in software: guests that count nothing themselves, hosts without KVM, and logs and pairs that the
//! two kinds of CPU share.

use crate::harness::{LOCKSTEP, Process, Random, Scratch, replay_equal, run, text};
use crate::member::{Member, Told, echo, echo_and_end, free_address, pair, stage};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the examples for users are.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/own");

/// How `guests/README.md` compiles them.
const C: &str =
    "cc -O2 -ffreestanding -fno-stack-protector -fno-pie -mno-red-zone -nostdlib -static";
const RUST: &str =
    "rustc -O --edition 2024 -C panic=abort -C relocation-model=static -C no-redzone=yes";
const RUST_LINK: &str = "link-args=-nostartfiles -nostdlib -static -no-pie";

/// Compiles one of the examples, as its first lines say.
pub fn own(scratch: &Scratch, source: &str) -> String {
    own_with(scratch, source, &[])
}

/// The same with more options.
pub fn own_with(scratch: &Scratch, source: &str, options: &[&str]) -> String {
    let (command, more): (&str, &[&str]) = match source {
        source if source.ends_with(".c") => (C, &[]),
        _ => (RUST, &["-C", RUST_LINK]),
    };
    let mut words = command.split(' ');
    let mut compiler = Command::new(words.next().expect("a compiler"));
    let path = Path::new(OWN).join(source);
    let name = path.file_name().expect("a file's path").to_string_lossy();
    let image = scratch.arg(&name.replace('.', "-"));
    compiler
        .args(words)
        .args(more)
        .args(options)
        .args(["-o", &image]);
    Process::start(compiler.arg(path)).end().expect(0);
    image
}

/// The verdict of a replay on this CPU, which must be equal.
#[track_caller]
fn replay_on(cpu: &str, dir: &Path, more: &[&str]) -> Value {
    let dir = text(dir);
    let args = ["replay", &dir, "--json", "--cpu", cpu];
    let verdict = run([&args, more].concat()).expect(0).json();
    assert_eq!(verdict["ok"], true, "{verdict}");
    verdict
}

#[test]
fn a_users_own_guest_is_interrupted_in_its_loops_and_replays() {
    let scratch = Scratch::new();
    for source in ["primes.c", "primes.rs"] {
        let (image, dir) = (own(&scratch, source), scratch.join(format!("{source}.log")));
        let done = run(["run", &image, "--record", &text(&dir)]).expect(0);
        assert!(done.stdout.ends_with("primes: done\n"), "{done:#?}");
        assert!(done.stderr.contains("the software CPU"), "{done:#?}");
        let verdict = replay_equal(&dir);
        assert!(verdict["interrupts"].as_u64() >= Some(500), "{verdict}");
        // Instructions, not edges: there are many.
        assert!(verdict["edges"].as_u64() > Some(1_000_000), "{verdict}");
        let sentence = run(["replay", &text(&dir), "--cpu", "kvm"]).refused();
        assert!(sentence.contains("counts instructions"), "{sentence}");
    }
}

/// The lines of the example by their ticks.
fn ticks(printed: &str) -> Vec<(u64, &str)> {
    let line = |line| {
        let rest: &str = str::strip_prefix(line, "primes: tick ")?;
        Some((rest.split(',').next()?.parse().ok()?, line))
    };
    let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
    whole.lines().filter_map(line).collect()
}

#[test]
fn a_users_own_guest_outlives_its_primary() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let image = own(&scratch, "primes.c");
    let (primary, mut backup) = pair(&scratch, &image, &Told::new(&scratch));
    let mut random = Random::new();
    let wanted = 1 + random.below(10);
    let far = |out: &str| out.lines().count() > wanted;
    primary.process.await_stdout("lines", far);
    let before = primary.kill().stdout;
    backup.await_event("live");
    let after = backup.process.end().expect(0).stdout;
    assert!(after.ends_with("primes: done\n"), "{after}");
    // One history: a line for each 25 ticks, and those that come twice are the same.
    let (first, second) = (ticks(&before), ticks(&after));
    let mut all: Vec<_> = first.iter().chain(&second).copied().collect();
    all.sort_unstable();
    all.dedup();
    let numbers: Vec<u64> = all.iter().map(|(tick, _)| tick / 25).collect();
    assert_eq!(
        numbers,
        (1..=20).collect::<Vec<_>>(),
        "{before}\n---\n{after}"
    );
    let verdict = replay_equal(&scratch.join("backup"));
    assert_eq!(verdict["go_lives"], 1, "{verdict}");
    replay_equal(&scratch.join("primary"));
}

/// Guests that end soon, and the first exits of those that compute for long.
const CROSSING: [(&str, &[&str]); 5] = [
    ("hello", &[]),
    ("ticker", &[]),
    ("positions", &[]),
    ("compute", &["--until", "25"]),
    ("threads", &["--until", "25"]),
];

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_of_kvm_replays_on_the_software_cpu() {
    let scratch = Scratch::new();
    for (guest, more) in CROSSING {
        let dir = scratch.join(guest);
        run(["run", guest, "--cpu", "kvm", "--record", &text(&dir)]).expect(0);
        let ours = replay_on("soft", &dir, more);
        // All parts of the machine too, where it was stopped.
        assert_eq!(ours, replay_on("kvm", &dir, more), "{guest}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_log_of_the_software_cpu_replays_on_kvm() {
    let scratch = Scratch::new();
    for guest in ["ticker", "positions"] {
        let dir = scratch.join(guest);
        run(["run", guest, "--cpu", "soft", "--record", &text(&dir)]).expect(0);
        assert_eq!(replay_on("kvm", &dir, &[]), replay_on("auto", &dir, &[]));
    }
}

/// A host that has no /dev/kvm: `$0` and its arguments run where there is none.
const WITHOUT_KVM: &str = r#"
set -e
mount --make-rprivate /
mkdir -p "$SCRATCH/dev"
mount --rbind /dev "$SCRATCH/dev"
mount -t tmpfs none /dev
for node in null zero random urandom net ptmx pts shm; do
    [ -e "$SCRATCH/dev/$node" ] || continue
    if [ -d "$SCRATCH/dev/$node" ]; then mkdir "/dev/$node"; else : > "/dev/$node"; fi
    mount --rbind "$SCRATCH/dev/$node" "/dev/$node"
done
exec "$0" "$@"
"#;

fn without_kvm(scratch: &Scratch, args: &[&str]) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITHOUT_KVM, LOCKSTEP]);
    command.args(args).env("SCRATCH", scratch.path());
    Process::start(&mut command)
}

#[test]
#[cfg_attr(not(can_hide_kvm), ignore = "needs root and util-linux")]
fn a_host_without_kvm_runs_drills_and_replays_them() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let report = scratch.arg("report");
    let drill = ["drill", "kill-primary", "--json", "--report", &report];
    let done = without_kvm(&scratch, &drill).end().expect(0);
    assert!(done.stderr.contains("the software CPU"), "{done:#?}");
    assert_eq!(done.json()["failed_runs"], 0, "{done:#?}");
    for member in ["primary", "backup"] {
        let log = format!("{report}/kill-primary-001/{member}");
        let replayed = without_kvm(&scratch, &["replay", &log, "--verify"]);
        replayed.end().expect(0);
    }
    let found = without_kvm(&scratch, &["doctor", "--json"]).end().expect(0);
    let findings = &found.json()["findings"];
    assert_eq!(findings["kvm"]["good"], Value::Null, "{findings}");
    assert_eq!(findings["software_cpu"]["good"], true, "{findings}");
}

/// One side on KVM, the other in software; the guest outlives the first, and a third side on KVM gets a copy of
/// it and outlives the second.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_guest_moves_from_kvm_to_the_software_cpu_and_back() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let next = free_address();
    let (kvm, soft) = (told.and(&["--cpu", "kvm"]), told.and(&["--cpu", "soft"]));
    let mut primary = Member::primary(&scratch, "primary", "echo", &kvm);
    let mut backup = Member::backup(&scratch, "backup", &soft.and(&["--listen", &next]));
    primary.await_event("started");
    backup.await_event("joined");
    echo(&mut primary, "on KVM");
    primary.kill();
    backup.await_event("live");
    echo(&mut backup, "in software");
    let third = Told {
        channel: next,
        ..kvm.clone()
    };
    let mut third = Member::backup(&scratch, "third", &third);
    third.await_event("joined");
    backup.await_event("protected");
    backup.kill();
    third.await_event("live");
    let done = echo_and_end(third, "on KVM again");
    assert!(done.stdout.contains("echo: done, 3 lines"), "{done:#?}");
    for cpu in ["soft", "kvm"] {
        replay_on(cpu, &scratch.join("backup"), &[]);
        replay_on(cpu, &scratch.join("third"), &[]);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_that_is_told_kvm_refuses_a_guest_that_counts_nothing() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let image = own(&scratch, "primes.c");
    let told = Told::new(&scratch);
    let _primary = Member::primary(&scratch, "primary", &image, &told);
    let backup = Member::backup(&scratch, "backup", &told.and(&["--cpu", "kvm"]));
    let sentence = backup.process.end().refused();
    assert!(sentence.contains("counts instructions"), "{sentence}");
}

/// The longest version of the above: `cargo test --release -p lockstep --test e2e -- --ignored crosses_over`.
/// Twenty recordings of each guest, or `LOCKSTEP_RUNS`.
#[test]
#[ignore = "takes hours: by hand"]
fn each_guest_crosses_over_twenty_times() {
    let runs = std::env::var("LOCKSTEP_RUNS").map_or(20, |runs| runs.parse().expect("a number"));
    let scratch = Scratch::new();
    for guest in [
        "hello",
        "ticker",
        "positions",
        "compute",
        "threads",
        "chaos",
        "latency",
    ] {
        for number in 1..=runs {
            let dir: PathBuf = scratch.join(format!("{guest}-{number}"));
            run(["run", guest, "--cpu", "kvm", "--record", &text(&dir)]).expect(0);
            let args = ["replay", &text(&dir), "--json", "--cpu", "soft"];
            let replay = Process::start(Command::new(LOCKSTEP).args(args));
            let verdict = replay.end_within(std::time::Duration::from_secs(3600));
            println!("{guest} {number}: {}", verdict.expect(0).json());
        }
    }
}
