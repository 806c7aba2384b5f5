//! Members of a pair, started like an operator starts them, and their events.

use crate::harness::{Done, LOCKSTEP, Process, Scratch};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
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
}

impl Told {
    /// Options for a VM that no other test runs.
    pub fn new(scratch: &Scratch) -> Told {
        Told {
            vm: "vm".into(),
            arbiter: arbiter(scratch, "arbiter"),
            channel: free_address(),
            more: Vec::new(),
        }
    }

    /// The same with more arguments.
    pub fn and(&self, more: &[&str]) -> Told {
        let mut told = self.clone();
        told.more.extend(more.iter().map(|&arg| arg.to_owned()));
        told
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
        Member::start(
            scratch,
            name,
            Command::new(LOCKSTEP),
            &["primary", guest],
            told,
        )
    }

    /// Starts a backup.
    #[track_caller]
    pub fn backup(scratch: &Scratch, name: &str, told: &Told) -> Member {
        Member::start(scratch, name, Command::new(LOCKSTEP), &["backup"], told)
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
        let deadline = Instant::now() + EVENT_LIMIT;
        loop {
            let more = self.events.read_to_string(&mut self.read).expect("text");
            let lines = self.read.lines().filter(|_| self.read.ends_with('\n'));
            let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(event) = events.filter(|event| event["event"] == name).nth(times - 1) {
                return event;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {name:?} in {EVENT_LIMIT:?}: {self:?}");
            if more == 0 {
                self.await_change(left);
            }
        }
    }

    /// Whether the member has told of this event, as far as it was read.
    pub fn has_told(&self, name: &str) -> bool {
        let events = self.read.lines();
        let mut events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.any(|event| event["event"] == name)
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

/// A primary and a backup that has joined it, the guest running.
#[track_caller]
pub fn pair(scratch: &Scratch, guest: &str, told: &Told) -> (Member, Member) {
    let mut primary = Member::primary(scratch, "primary", guest, told);
    let mut backup = Member::backup(scratch, "backup", told);
    primary.await_event("started");
    backup.await_event("joined");
    (primary, backup)
}
