//! Members of a pair, started like an operator starts them, and their events.

use crate::harness::{Done, LOCKSTEP, LOCKSTEP_FAULTS, Process, Scratch, replay_equal};
use lockstep_events::{Event, Stamped};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An event must come within this time.
const EVENT_LIMIT: Duration = Duration::from_secs(30);

/// Pairs measure silence in fractions of a second. So tests with pairs run one at a time: then each has
/// the processors to itself, as far as the tests can influence that.
pub fn stage() -> MutexGuard<'static, ()> {
    static STAGE: Mutex<()> = Mutex::new(());
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address of this host on which no process listens.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// The options that all members of a pair have in common.
#[derive(Clone, Debug)]
pub struct Told {
    /// `--vm`.
    pub vm: String,
    /// `--arbiter`, a directory in the scratch directory.
    pub arbiter: String,
    /// `--channel`.
    pub channel: String,
    /// More arguments.
    pub more: Vec<String>,
    /// The program.
    pub program: &'static str,
}

impl Told {
    /// Options for a VM that no other test runs.
    pub fn new(scratch: &Scratch) -> Told {
        Told {
            vm: "vm".into(),
            arbiter: arbiter(scratch, "arbiter"),
            channel: free_address(),
            more: Vec::new(),
            program: LOCKSTEP,
        }
    }

    /// The same with more arguments.
    pub fn and(&self, more: &[&str]) -> Told {
        let mut told = self.clone();
        told.more.extend(more.iter().map(|&arg| arg.to_owned()));
        told
    }

    /// The same with a fault planted.
    pub fn planting(&self, cut: &str) -> Told {
        Told {
            program: LOCKSTEP_FAULTS,
            ..self.and(&["--cut", cut])
        }
    }
}

/// Makes a directory in the scratch directory for an arbiter's records. Returns its URL.
pub fn arbiter(scratch: &Scratch, name: &str) -> String {
    let dir = scratch.join(name);
    std::fs::create_dir_all(&dir).expect("made");
    format!("file:{}", dir.display())
}

/// A running member. Dropping it kills it.
#[derive(Debug)]
pub struct Member {
    /// Its process.
    pub process: Process,
    events: File,
    changes: OwnedFd,
    read: String,
}

impl Member {
    /// Starts a primary.
    #[track_caller]
    pub fn primary(scratch: &Scratch, name: &str, guest: &str, told: &Told) -> Member {
        let command = Command::new(told.program);
        Member::start(scratch, name, command, &["primary", guest], told)
    }

    /// Starts a backup.
    #[track_caller]
    pub fn backup(scratch: &Scratch, name: &str, told: &Told) -> Member {
        let command = Command::new(told.program);
        Member::start(scratch, name, command, &["backup"], told)
    }

    /// Starts `command`, which ends in `lockstep`, with these arguments and a pipe to its standard
    /// input. It records into `scratch/name`, and its events go to `scratch/name.events`.
    #[track_caller]
    pub fn start(
        scratch: &Scratch,
        name: &str,
        mut command: Command,
        role: &[&str],
        told: &Told,
    ) -> Member {
        let path = scratch.join(format!("{name}.events"));
        File::create(&path).expect("made");
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
        inotify::add_watch(&changes, &path, inotify::WatchFlags::MODIFY).expect("watched");
        // Only warnings are logged, so that a refusal is the only sentence.
        command.env("LOCKSTEP_LOG", "warn");
        command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
        command.args(role);
        command.args(["--vm", &told.vm, "--arbiter", &told.arbiter]);
        command.args(["--channel", &told.channel]);
        command.arg("--record").arg(scratch.join(name));
        command.arg("--events").arg(&path);
        command.args(&told.more);
        Member {
            process: Process::with_input(&mut command),
            events: File::open(&path).expect("just made"),
            changes,
            read: String::new(),
        }
    }

    /// Waits for this event of the member. Returns the event.
    #[track_caller]
    pub fn await_event(&mut self, name: &str) -> Value {
        self.await_nth(name, 1)
    }

    /// Waits for the `times`-th such event.
    #[track_caller]
    pub fn await_nth(&mut self, name: &str, times: usize) -> Value {
        is_an_event(name);
        let deadline = Instant::now() + EVENT_LIMIT;
        loop {
            let more = self.events.read_to_string(&mut self.read).expect("text");
            let told = self.told().into_iter();
            if let Some(event) = told.filter(|event| event["event"] == name).nth(times - 1) {
                return event;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {name:?} in {EVENT_LIMIT:?}: {self:?}");
            if more == 0 {
                self.await_change(left);
            }
        }
    }

    /// Is this event among those that were read so far?
    #[track_caller]
    pub fn has_told(&self, name: &str) -> bool {
        is_an_event(name);
        self.told().iter().any(|event| event["event"] == name)
    }

    /// Its events, as far as they were read and their lines are whole. One that is not an event, or has
    /// other fields, fails the test.
    #[track_caller]
    fn told(&self) -> Vec<Value> {
        let whole = self.read.rfind('\n').map_or("", |end| &self.read[..end]);
        let lines = whole.lines().filter(|line| !line.is_empty());
        lines.map(event_of).collect()
    }

    fn await_change(&self, limit: Duration) {
        let timeout = limit.try_into().expect("a limit is a timespec");
        let mut set = [PollFd::new(&self.changes, PollFlags::IN)];
        if let Ok(1..) = poll(&mut set, Some(&timeout)) {
            let mut forgotten = [0; 4096];
            let _read = rustix::io::read(&self.changes, &mut forgotten);
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    #[track_caller]
    pub fn kill(self) -> Done {
        self.process.signal(Signal::KILL);
        self.process.end()
    }
}

/// What a line tells, which has to be an event.
#[track_caller]
fn event_of(line: &str) -> Value {
    if let Err(e) = Stamped::read(line.as_bytes()) {
        panic!("{line:?} is not an event: {e}");
    }
    serde_json::from_str(line).expect("an event is JSON")
}

/// Fails at once where an event is waited for that there is not.
#[track_caller]
pub fn is_an_event(name: &str) {
    assert!(Event::is_name(name), "there is no event {name:?}");
}

#[test]
#[should_panic(expected = "there is no event \"joint\"")]
fn a_wrong_name_is_not_waited_for() {
    is_an_event("joint");
}

#[test]
#[should_panic(expected = "unknown field `colour`")]
fn an_event_with_another_field_fails_a_test() {
    event_of(r#"{"colour":1,"event":"left","mono_ns":5}"#);
}

/// A primary and a backup that has joined it, the guest running.
#[track_caller]
pub fn pair(scratch: &Scratch, guest: &str, told: &Told) -> (Member, Member) {
    let mut primary = Member::primary(scratch, "primary", guest, told);
    let mut backup = Member::backup(scratch, "backup", told);
    primary.await_event("started");
    backup.await_event("joined");
    (primary, backup)
}

/// Types a line to a member with the guest `echo`, and waits until it comes back.
#[track_caller]
pub fn echo(member: &mut Member, line: &str) {
    member.process.echo(line);
}

/// The same with the last line: the guest ends, and the member with it.
#[track_caller]
pub fn echo_and_end(mut member: Member, line: &str) -> Done {
    echo(&mut member, line);
    member.process.end_input();
    member.process.end().expect(0)
}

/// Fails unless both sides end well because the guest was stopped: the generation closed, and what they
/// recorded the same.
#[track_caller]
pub fn both_stopped(scratch: &Scratch, primary: Member, backup: Member) {
    primary.process.end().expect(0);
    backup.process.end().expect(0);
    assert_eq!(records(scratch), ["1.close", "1.open"]);
    let verdict = replay_equal(&scratch.join("primary"));
    assert!(verdict["end"].to_string().contains("stopped"), "{verdict}");
    assert_eq!(replay_equal(&scratch.join("backup")), verdict);
}

/// Kills one side of a pair; gives the other, and the event with which that goes on alone.
#[track_caller]
pub fn kill_one(dies: &str, primary: Member, backup: Member) -> (Member, &'static str) {
    match dies {
        "primary" => {
            primary.kill();
            (backup, "live")
        }
        _ => {
            backup.kill();
            (primary, "solo")
        }
    }
}

/// The names of an arbiter's records.
pub fn records(scratch: &Scratch) -> Vec<String> {
    let dir = fs::read_dir(scratch.join("arbiter/vm")).expect("records");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = dir
        .map(|entry| name(entry).into_string().expect("text"))
        .collect();
    names.sort();
    names
}
