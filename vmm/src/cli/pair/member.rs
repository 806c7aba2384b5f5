//! A member's process, and its events.

use lockstep_ft::control::{private_dir, runtime_dir};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
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
        Told::read(&String::from_utf8_lossy(&bytes))
    }
}

/// A member's events, oldest first.
#[derive(Debug)]
pub struct Told(Vec<Value>);

impl Told {
    fn read(text: &str) -> Told {
        let events = text.lines().map(serde_json::from_str);
        // The last line may be cut.
        Told(events.filter_map(Result::ok).collect())
    }

    /// Whether there was this event.
    pub fn has(&self, event: &str) -> bool {
        self.0.iter().any(|told| told["event"] == event)
    }

    /// The last one of these, with its generation.
    fn last_of(&self, events: &[&str]) -> Option<(&str, u64)> {
        self.0.iter().rev().find_map(|told| {
            let event = told["event"].as_str()?;
            let found = events.contains(&event);
            found.then(|| (event, told["generation"].as_u64().unwrap_or(0)))
        })
    }

    /// Has it run the guest by itself, and not only followed?
    pub fn ran(&self) -> bool {
        self.has("started") || self.has("solo") || self.has("live")
    }

    /// The generation in which it has a part; 0 if it has none.
    pub fn generation(&self) -> u64 {
        let parts = ["started", "joined", "protected", "solo", "live"];
        self.last_of(&parts).map_or(0, |(_, generation)| generation)
    }

    /// The generation in which it runs alone, so that no peer could take it; 0 if it does not.
    pub fn alone(&self) -> u64 {
        match self.last_of(&["started", "protected", "solo", "live"]) {
            Some(("solo" | "live", generation)) => generation,
            _ => 0,
        }
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

    fn told(events: &[(&str, u64)]) -> Told {
        let line = |(event, generation): &(&str, u64)| {
            format!(r#"{{"event":"{event}","generation":{generation}}}"#)
        };
        let lines: Vec<_> = events.iter().map(line).collect();
        Told::read(&(lines.join("\n") + "\n{\"event\":\"so"))
    }

    #[test]
    fn a_members_part_is_what_it_told_last() {
        for (events, generation, alone, ran) in [
            (&[][..], 0, 0, false),
            (&[("joining", 2)], 0, 0, false),
            (&[("joined", 2)], 2, 0, false),
            (&[("joined", 2), ("live", 2)], 2, 2, true),
            (&[("joined", 2), ("live", 2), ("protected", 3)], 3, 0, true),
            (&[("started", 1)], 1, 0, true),
            (&[("started", 1), ("solo", 1)], 1, 1, true),
            (
                &[("started", 1), ("solo", 1), ("protected", 2), ("solo", 2)],
                2,
                2,
                true,
            ),
        ] {
            let told = told(events);
            let found = (told.generation(), told.alone(), told.ran());
            assert_eq!(found, (generation, alone, ran), "{events:?}");
        }
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
