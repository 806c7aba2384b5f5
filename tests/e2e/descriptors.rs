//! Standard output, standard error and `--events` that are full, closed or broken. No thread that has
//! other work waits for them, no process fails because of them, and a result that could not be printed
//! shows in the status.

use crate::harness::{
    LOCKSTEP, Process, Random, Scratch, lockstep, record, replay_equal, run, text,
};
use crate::member::{Member, Told, echo, echo_and_end, pair, stage};
use crate::operator::{operator, status};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, mkfifoat};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A process whose reader does not read ends within this time: at its end it waits for a second.
const UNREAD_LIMIT: Duration = Duration::from_secs(15);
/// What must be reported is there within this time.
const TOLD_LIMIT: Duration = Duration::from_secs(30);

/// `lockstep` with a descriptor (`1>`, `2>`) that goes to `path`. It logs everything that it logs by
/// default.
pub fn redirected(descriptor: &str, path: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("LOCKSTEP_LOG=info exec \"$0\" \"$@\" {descriptor}\"$TO\"");
    command.args(["-c", &script, LOCKSTEP]).env("TO", path);
    command
}

/// A FIFO with both its ends open: nothing is read from it unless the test reads.
struct Fifo(File);

impl Fifo {
    fn new(path: &Path) -> Fifo {
        mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).expect("made");
        let file = File::options().read(true).write(true).open(path);
        let file = file.expect("both ends");
        fcntl_setfl(&file, OFlags::NONBLOCK).expect("set");
        Fifo(file)
    }

    /// A FIFO that is full.
    fn full(path: &Path) -> Fifo {
        let mut fifo = Fifo::new(path);
        for piece in [4096, 1] {
            let filler = "x".repeat(piece - 1) + "\n";
            while fifo.0.write(filler.as_bytes()).is_ok() {}
        }
        fifo
    }

    /// Reads until `wanted` is true for the text, which it returns.
    #[track_caller]
    fn await_text(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let (deadline, mut bytes) = (Instant::now() + TOLD_LIMIT, Vec::new());
        let mut chunk = [0; 1 << 16];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if wanted(&text) {
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "not told: {}",
                text.trim_start_matches(['x', '\n'])
            );
            let timeout = left.try_into().expect("a limit is a timespec");
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).expect("polled");
            match self.0.read(&mut chunk) {
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
    }
}

/// A member whose standard error and events are not read.
struct Muted {
    process: Process,
    messages: Fifo,
    events: Fifo,
}

fn muted(scratch: &Scratch, name: &str, role: &[&str], told: &Told) -> Muted {
    let (errors, path) = (
        scratch.join(format!("{name}.errors")),
        scratch.join(format!("{name}.events")),
    );
    let (messages, events) = (Fifo::full(&errors), Fifo::full(&path));
    let mut command = redirected("2>", &errors);
    command.args(role).args(["--vm", &told.vm]);
    command.args(["--arbiter", &told.arbiter, "--channel", &told.channel]);
    command.arg("--events").arg(path).args(&told.more);
    command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
    let process = Process::with_input(&mut command);
    Muted {
        process,
        messages,
        events,
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_pair_that_nobody_listens_to_runs_and_fails_over_and_tells_all_of_it_later() {
    for (dies, story) in [
        (
            "primary",
            ["connecting", "joined", "suspect", "claim_won", "live"],
        ),
        (
            "backup",
            ["waiting", "started", "backup_lost", "claim_won", "solo"],
        ),
    ] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let told = Told::new(&scratch);
        let mut primary = muted(&scratch, "primary", &["primary", "echo"], &told);
        let backup = muted(&scratch, "backup", &["backup"], &told);
        // Only a member of a pair waits with its answers.
        primary.process.echo("together");
        let (dead, mut survivor) = match dies {
            "primary" => (primary, backup),
            _ => (backup, primary),
        };
        dead.process.signal(Signal::KILL);
        dead.process.end();
        survivor.process.echo("alone");
        let last = format!("\"event\":\"{}\"", story[4]);
        let events = survivor.events.await_text(|text| text.contains(&last));
        let places = story.map(|event| events.find(&format!("\"event\":\"{event}\"")));
        assert!(places.iter().all(Option::is_some), "{dies}: {places:?}");
        assert!(places.is_sorted(), "{dies}: {places:?}");
        assert!(!events.contains("events_lost"), "nothing was lost");
        let said = |text: &str| text.contains(story[4]);
        survivor.messages.await_text(said);
        survivor.process.end_input();
        survivor.process.end().expect(0);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_member_that_nobody_listens_to_ends_all_the_same() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let solo = &["primary", "echo", "--solo"];
    let mut member = muted(&scratch, "primary", solo, &told);
    member.process.echo("here");
    member.process.end_input();
    member.process.end_within(UNREAD_LIMIT).expect(0);
    // The events are cut, but not mixed up.
    let bytes = member.events.await_text(|text| text.len() >= 4096);
    assert!(bytes.bytes().all(|byte| byte == b'x' || byte == b'\n'));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_fifo_that_nobody_reads_yet_keeps_the_events() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let path = scratch.join("events");
    mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).expect("made");
    let mut command = lockstep(["primary", "echo", "--solo", "--vm", &told.vm]);
    command.args(["--arbiter", &told.arbiter, "--channel", &told.channel]);
    command.arg("--events").arg(&path);
    command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
    let mut member = Process::with_input(&mut command);
    member.echo("here");
    let mut reader = File::open(&path).expect("it is open at its other end");
    member.end_input();
    let done = member.end().expect(0);
    assert!(done.stderr.contains("nobody reads"), "{done:#?}");
    let mut events = String::new();
    reader.read_to_string(&mut events).expect("text");
    for event in ["waiting", "started", "ended"] {
        assert!(
            events.contains(&format!("\"event\":\"{event}\"")),
            "{events}"
        );
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_standard_error_that_fails_ends_no_member() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let full = Path::new("/dev/full");
    let start = |name: &str, role: &[&str]| {
        Member::start(&scratch, name, redirected("2>", full), role, &told)
    };
    let mut primary = start("primary", &["primary", "echo"]);
    let mut backup = start("backup", &["backup"]);
    echo(&mut primary, "together");
    primary.kill();
    backup.await_event("live");
    echo_and_end(backup, "alone");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_console_that_fails_ends_no_member() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let full = redirected("1>", Path::new("/dev/full"));
    let mut primary = Member::start(&scratch, "primary", full, &["primary", "ticker"], &told);
    let backup = Member::backup(&scratch, "backup", &told);
    assert_eq!(primary.await_event("ended")["status"], 0);
    let done = primary.process.end().expect(0);
    assert!(
        done.stderr.contains("the console takes no text"),
        "{done:#?}"
    );
    backup.process.end().expect(0);
}

/// Commands whose purpose is their output.
fn that_print(recording: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["replay", recording],
        vec!["replay", recording, "--verify"],
        vec!["replay", recording, "--json"],
        vec!["doctor"],
        vec!["doctor", "--json"],
        vec!["drill", "list"],
        vec!["drill", "list", "--json"],
        vec!["status", "--json"],
        vec!["run", "hello"],
    ]
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_result_that_cannot_be_printed_is_a_failure_and_no_panic() {
    let scratch = Scratch::new();
    record("hello", &scratch.join("recording"));
    let recording = &scratch.arg("recording");
    let mut all = that_print(recording);
    // The reader of a list may stop reading; a full disk is an error all the same.
    let lists = [
        vec!["log", "show", recording],
        vec!["log", "stat", recording],
        vec!["--help"],
    ];
    let pipe = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    let runtime = scratch.join("runtime");
    let into = |args: &[&str], out: Stdio| {
        let mut command = lockstep(args);
        command.env("LOCKSTEP_RUNTIME_DIR", &runtime);
        let done = command.stdin(Stdio::null()).stdout(out).output();
        let done = done.expect("run");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), said)
    };
    for args in &all {
        let (status, said) = into(args, pipe());
        assert_eq!(status, Some(1), "{args:?}: {said}");
        assert!(said.contains("Broken pipe"), "{args:?}: {said}");
    }
    for args in &lists {
        assert_eq!(into(args, pipe()), (Some(0), String::new()), "{args:?}");
    }
    all.extend(lists);
    for args in &all {
        let full = File::options().write(true).open("/dev/full");
        let (status, said) = into(args, full.expect("there").into());
        assert_eq!(status, Some(1), "{args:?}: {said}");
        assert!(said.contains("No space left"), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_message_that_cannot_be_printed_leaves_the_status_as_it_is() {
    let scratch = Scratch::new();
    record("hello", &scratch.join("recording"));
    let recording = &scratch.arg("recording");
    for (args, status) in [
        (&["bogus"][..], 2),
        (&[], 2),
        (&["run", "no-such-guest"], 2),
        (&["stop", "--vm", "nobody"], 2),
        (&["run", "hello"], 0),
        (&["replay", recording], 0),
        (&["run", "crash"], 1),
    ] {
        let mut command = redirected("2>", Path::new("/dev/full"));
        command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
        Process::start(command.args(args)).end().expect(status);
    }
}

/// Set in a process that must panic.
const PANICS: &str = "LOCKSTEP_TEST_PANICS";

#[test]
fn a_panic_ends_the_process_and_is_told_if_anybody_reads() {
    if std::env::var_os(PANICS).is_some() {
        lockstep_out::abort_on_panic();
        // A panic on any thread ends the process.
        let thread = std::thread::Builder::new().name("vcpu".into());
        let panics = thread.spawn(|| panic!("as it was told to"));
        let _never = panics.expect("started").join();
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.join("errors");
    let unread = Fifo::full(&path);
    let name = "descriptors::a_panic_ends_the_process_and_is_told_if_anybody_reads";
    let this = std::env::current_exe().expect("this program");
    let start = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&this).arg(name);
        command.args(["--exact", "--nocapture"]);
        Process::start(command.env(PANICS, "1").env("TO", &path))
    };
    let muted = start("exec \"$0\" \"$@\" 2>\"$TO\"").end_within(UNREAD_LIMIT);
    assert_eq!(muted.signal, Some(Signal::ABORT.as_raw()), "{muted:#?}");
    drop(unread);
    let heard = start("exec \"$0\" \"$@\"").end();
    assert_eq!(heard.signal, Some(Signal::ABORT.as_raw()), "{heard:#?}");
    assert!(
        heard.stderr.contains("thread 'vcpu' panicked at"),
        "{heard:#?}"
    );
    assert!(heard.stderr.contains("as it was told to"), "{heard:#?}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_guest_that_waits_for_its_consoles_reader_stops_when_it_is_told_to() {
    let scratch = Scratch::new();
    let path = scratch.join("console");
    let _unread = Fifo::full(&path);
    let mut command = redirected("1>", &path);
    command.args(["run", "hello", "--record", &scratch.arg("recording")]);
    let running = Process::start(&mut command);
    // It sleeps in a write or a poll: the guest has printed.
    let place = format!("/proc/{}/wchan", running.pid().as_raw_nonzero());
    let deadline = Instant::now() + TOLD_LIMIT;
    loop {
        let place = fs::read_to_string(&place).expect("it runs");
        if place.contains("pipe_write") || place.contains("poll") {
            break;
        }
        assert!(Instant::now() < deadline, "it does not print: {place}");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal(Signal::TERM);
    let done = running.end().expect(0);
    assert!(
        done.stderr.contains("nobody reads the console"),
        "{done:#?}"
    );
    assert!(!done.stderr.contains("position"), "{done:#?}");
    let verdict = replay_equal(&scratch.join("recording"));
    assert!(verdict["end"].to_string().contains("stopped"), "{verdict}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_vm_of_the_longest_name_can_be_asked() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let mut told = Told::new(&scratch);
    told.vm = "a-vm-with-a-long-name.".repeat(3)[..64].to_owned();
    let (primary, backup) = pair(&scratch, "echo", &told);
    assert_eq!(status(&scratch, &told.vm).len(), 2);
    let stopped = operator(&scratch, ["stop", "--vm", &told.vm]).end();
    stopped.expect(0);
    let done = primary.process.end().expect(0);
    assert!(!done.stderr.contains("control socket"), "{done:#?}");
    backup.process.end().expect(0);
    let left = fs::read_dir(scratch.join("runtime")).expect("a directory");
    assert_eq!(left.count(), 0, "no socket is left");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_damaged_guest_image_and_a_damaged_record_are_named() {
    let scratch = Scratch::new();
    record("hello", &scratch.join("recording"));
    let image = scratch.join("recording/guest.elf");
    let mut random = Random::new();
    let sound = fs::read(&image).expect("an image");
    for _ in 0..20 {
        let mut damaged = sound.clone();
        damaged[random.below(sound.len())] ^= 1 << random.below(8);
        fs::write(&image, &damaged).expect("written");
        let sentence = run(["replay", &scratch.arg("recording")]).refused();
        assert!(sentence.contains(&text(&image)), "{sentence}");
    }
    let dir = scratch.join("arbiter/vm");
    fs::create_dir_all(&dir).expect("made");
    let open = "lockstep-open: 1\nvm: vm\ngeneration: 18446744073709551615\n\
                primary: 00000000000000000000000000000001\nbackup: none\n\
                nonce: 00000000000000000000000000000abc\nat-ns: 5\n";
    let arbiter = &format!("file:{}", scratch.arg("arbiter"));
    for (name, record, wanted) in [
        ("1.open", "no record\n", "vm/1.open"),
        ("1.open", "\u{fffd}\n", "vm/1.open"),
        (
            "18446744073709551615.open",
            open,
            "18446744073709551615.open",
        ),
    ] {
        fs::write(dir.join(name), record).expect("written");
        let args = ["primary", "hello", "--vm", "vm", "--arbiter", arbiter];
        let args = args
            .into_iter()
            .chain(["--channel", "127.0.0.1:9", "--force"]);
        let sentence = run(args).refused();
        assert!(sentence.contains(wanted), "{sentence}");
    }
}
