//! A member's process, and its events.

use lockstep_events::{Event, Stamped};
use lockstep_ft::control::{private_dir, runtime_dir};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// What the members share. The arbiter's directory is removed when this is dropped: no member can join
/// later.
pub struct Place {
    dir: TempDir,
    /// The files of the members' events. They stay open, so that they can be read even if a cleaner of
    /// old files has removed their names.
    events: HashMap<String, File>,
    /// The directory, locked against such cleaners.
    _locked: Option<File>,
    /// `--arbiter`.
    pub arbiter: String,
    /// The address on which each side listens.
    pub listen: [String; 2],
}

impl Place {
    pub fn make() -> io::Result<Place> {
        let mut made = tempfile::Builder::new();
        made.prefix("lockstep-pair-");
        // Old files are not removed from the private directory. If there is none, a lock keeps the
        // files.
        let dir = match private_dir() {
            Ok(_) => made.tempdir_in(runtime_dir())?,
            Err(_) => made.tempdir()?,
        };
        let locked = File::open(dir.path())?;
        let lock = flock(&locked, FlockOperation::NonBlockingLockShared);
        let arbiter = dir.path().join("arbiter");
        fs::create_dir(&arbiter)?;
        // The ports are released for the members. If another program takes one meanwhile, the member
        // reports it.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (one, other) = (free()?, free()?);
        Ok(Place {
            arbiter: format!("file:{}", arbiter.display()),
            listen: [
                one.local_addr()?.to_string(),
                other.local_addr()?.to_string(),
            ],
            dir,
            events: HashMap::new(),
            _locked: lock.is_ok().then_some(locked),
        })
    }

    /// The file to which the member of this name adds its events.
    pub fn events(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.events"))
    }

    /// Creates the file for the events of the member of this name.
    pub fn await_events(&mut self, name: &str) {
        let mut options = File::options();
        let file = options.read(true).append(true).create(true);
        // An error is ignored: it hits the member too, and the member reports it.
        if let Ok(file) = file.open(self.events(name)) {
            self.events.insert(name.to_owned(), file);
        }
    }

    /// The events so far of the member of this name.
    pub fn told(&self, name: &str) -> Told {
        let read = |file: &File| {
            let mut bytes = vec![0; file.metadata()?.len() as usize];
            file.read_exact_at(&mut bytes, 0)?;
            io::Result::Ok(bytes)
        };
        let bytes = self.events.get(name).map(read);
        let bytes = bytes.and_then(Result::ok).unwrap_or_default();
        Told::read(&bytes)
    }
}

/// A member's events, oldest first.
#[derive(Debug)]
pub struct Told(Vec<Event>);

impl Told {
    fn read(bytes: &[u8]) -> Told {
        // The last line may be cut, and on a full disk any.
        let whole = bytes
            .split_inclusive(|&byte| byte == b'\n')
            .filter(|line| line.ends_with(b"\n"));
        let read = |line| match Stamped::read(line) {
            Ok(stamped) => Some(stamped.event),
            Err(e) => {
                tracing::warn!("a line of a member's events is not an event: {e}");
                None
            }
        };
        Told(whole.filter_map(read).collect())
    }

    /// Whether the guest executed on this side from the VM's start.
    pub fn started(&self) -> bool {
        let started = |event: &Event| matches!(event, Event::Started { .. });
        self.0.iter().any(started)
    }

    /// Whether the guest ended on this side.
    pub fn ended(&self) -> bool {
        let ended = |event: &Event| matches!(event, Event::Ended { .. });
        self.0.iter().any(ended)
    }

    /// Has it run the guest by itself, and not only followed?
    pub fn ran(&self) -> bool {
        self.0.iter().any(|event| match part(event) {
            Some(Part::Started(_) | Part::Alone(_)) => true,
            Some(Part::Joined(_) | Part::Protected(_)) | None => false,
        })
    }

    /// The generation in which it has a part; 0 if it has none.
    pub fn generation(&self) -> u64 {
        match self.0.iter().rev().find_map(part) {
            Some(
                Part::Started(generation)
                | Part::Joined(generation)
                | Part::Protected(generation)
                | Part::Alone(generation),
            ) => generation,
            None => 0,
        }
    }

    /// The generation in which it runs alone, so that no peer could take it; 0 if it does not.
    pub fn alone(&self) -> u64 {
        match self.0.iter().rev().find_map(part) {
            Some(Part::Alone(generation)) => generation,
            Some(Part::Started(_) | Part::Joined(_) | Part::Protected(_)) | None => 0,
        }
    }
}

/// What a member has to do with a generation.
enum Part {
    /// It is the primary of the pair that started the VM.
    Started(u64),
    /// It is the backup.
    Joined(u64),
    /// It is the primary, and got a new backup.
    Protected(u64),
    /// It won the generation.
    Alone(u64),
}

/// The part that a member has from this event on.
fn part(event: &Event) -> Option<Part> {
    match *event {
        Event::Started { generation } => Some(Part::Started(generation)),
        Event::Joined { generation } => Some(Part::Joined(generation)),
        Event::Protected { generation } => Some(Part::Protected(generation)),
        Event::Solo { generation } | Event::Live { generation, .. } => {
            Some(Part::Alone(generation))
        }
        Event::Waiting { .. }
        | Event::Lag { .. }
        | Event::HandedOver { .. }
        | Event::BackupLost { .. }
        | Event::ClaimLost { .. }
        | Event::Connecting { .. }
        | Event::Joining { .. }
        | Event::Copying(_)
        | Event::Copied { .. }
        | Event::CopyEnded {}
        | Event::Suspect { .. }
        | Event::Withdraw {}
        | Event::CaughtUp { .. }
        | Event::TakesOver {}
        | Event::ClaimWon { .. }
        | Event::Silence { .. }
        | Event::Unreachable { .. }
        | Event::RecordMissing { .. }
        | Event::RecordBack {}
        | Event::FenceFailed { .. }
        | Event::Left {}
        | Event::Network { .. }
        | Event::Diverged { .. }
        | Event::EventsLost { .. }
        | Event::Ended { .. } => None,
    }
}

/// A running member.
pub struct Member {
    /// Its name; the first two are named after their role.
    pub name: String,
    /// Number of members that were started before it.
    pub number: u32,
    child: Child,
    started: Instant,
}

impl Member {
    pub fn start(name: String, number: u32, mut command: Command) -> io::Result<Member> {
        Ok(Member {
            child: command.spawn()?,
            started: Instant::now(),
            name,
            number,
        })
    }

    /// Waits until it ends. Cancel-safe, and can be repeated.
    pub async fn end(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// How long it has been running.
    pub fn lived(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends a signal that ends it, if it still runs.
    pub fn end_by(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32));
        if let Some(pid) = pid
            && let Err(e) = kill_process(pid, signal)
        {
            tracing::warn!("a member cannot be told to end ({e})");
        }
    }

    /// Sends SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

/// How a member ended, as a part of a sentence.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "left".into(),
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a file with these events, whose last line is cut.
    fn told(events: &[Event]) -> Told {
        let line = |event: &Event| {
            let (mono_ns, event) = (5, event.clone());
            Stamped { mono_ns, event }.line()
        };
        let lines: String = events.iter().map(line).collect();
        Told::read((lines + "{\"event\":\"so").as_bytes())
    }

    #[test]
    fn a_members_part_is_what_it_told_last() {
        let joining = Event::Joining { generation: 2 };
        let joined = Event::Joined { generation: 2 };
        let live = Event::Live {
            generation: 2,
            reemitted: 0,
            shadowed: 0,
        };
        let started = Event::Started { generation: 1 };
        let protected = |generation| Event::Protected { generation };
        let solo = |generation| Event::Solo { generation };
        for (events, generation, alone, ran) in [
            (vec![], 0, 0, false),
            (vec![joining], 0, 0, false),
            (vec![joined.clone()], 2, 0, false),
            (vec![joined.clone(), live.clone()], 2, 2, true),
            (vec![joined, live, protected(3)], 3, 0, true),
            (vec![started.clone()], 1, 0, true),
            (vec![started.clone(), solo(1)], 1, 1, true),
            (vec![started, solo(1), protected(2), solo(2)], 2, 2, true),
        ] {
            let told = told(&events);
            let found = (told.generation(), told.alone(), told.ran());
            assert_eq!(found, (generation, alone, ran), "{events:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_an_event_costs_nobody_the_others() {
        let lines = b"\n{\"event\":\"new\",\"mono_ns\":1}\n{\"event\":\"ended\",\"mono_ns\":2,\"status\":0}\n";
        let told = Told::read(lines);
        assert!(told.ended() && !told.started(), "{told:?}");
    }

    #[test]
    fn the_end_of_a_member_is_told_in_words() {
        for (raw, wanted) in [
            (0, "left"),
            (3 << 8, "ended with status 3"),
            (9, "was killed by signal 9"),
        ] {
            assert_eq!(how(ExitStatus::from_raw(raw)), wanted);
        }
    }
}
