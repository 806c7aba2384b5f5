//! What a member of the pair tells about itself: one JSON object per line, appended to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify;
use serde::Deserialize;
use thiserror::Error;

/// Length of the longest line accepted, in bytes.
const LINE_LIMIT: usize = 64 * 1024;

/// Why a member's events cannot be followed.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum EventsError {
    #[error("the events file cannot be followed: {0}")]
    Io(#[from] io::Error),
    #[error("line {line} of the events file is no event: {reason}")]
    BadLine { line: usize, reason: String },
}

/// One event, and when it happened.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub mono_ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What a member reports.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Kind {
    /// The primary waits for a backup.
    Waiting,
    /// The backup tries to reach its primary.
    Connecting,
    /// The primary's backup has joined and the guest executes.
    Started {
        /// The generation that the two form.
        generation: u64,
    },
    /// The backup has joined its primary: from here on it may go live.
    Joined,
    /// A backup that joins a VM that runs has room for the copy.
    Joining,
    /// A round of copying begins.
    Copying {
        /// From 1.
        round: u32,
    },
    /// The machine was stopped and copied.
    Copied {
        /// How long it was stopped, ms.
        pause_ms: f64,
    },
    /// A backup that joined protects the VM.
    Protected {
        /// The generation that the two form.
        generation: u64,
    },
    /// The other side is thought dead.
    Suspect {
        /// "closed" for a closed channel, "silence" for missing heartbeats.
        reason: String,
    },
    /// The primary takes the backup for dead.
    BackupLost {
        /// Why.
        reason: String,
    },
    /// Everything acknowledged has been replayed.
    CaughtUp {
        /// The position reached.
        position: u64,
    },
    /// The arbiter gave this member the right to go on alone.
    ClaimWon {
        /// The generation claimed.
        generation: u64,
    },
    /// The arbiter gave that right to the other side.
    ClaimLost,
    /// The backup went live.
    Live {
        /// The generation whose survivor it is.
        generation: u64,
        /// How many outputs it emitted again.
        reemitted: u64,
    },
    /// The primary goes on without its backup.
    Solo {
        /// The generation whose survivor it is, where it is told.
        #[serde(default)]
        generation: Option<u64>,
    },
    /// How far the backup is behind, while that matters.
    Lag {
        /// The age of the oldest entry that it has not executed, ms.
        lag_ms: f64,
        /// How much of its time the primary's vCPU rests, percent.
        throttle_percent: u32,
    },
    /// The other side was silent longer than ever before.
    Silence {
        /// For so long, ms.
        longest_ms: f64,
    },
    /// The arbiter is needed and cannot be asked.
    Unreachable,
    /// The backup was told to take over, without a suspicion.
    TakesOver,
    /// The primary handed over.
    HandedOver,
    /// The backup left, as it was told to.
    Left,
    /// The backup's execution differs from the primary's.
    Diverged {
        /// The position at which it was noticed.
        position: u64,
    },
    /// The guest ended.
    Ended {
        /// The status it gave.
        status: i64,
    },
    /// An event that this version does not know.
    #[serde(other)]
    Other,
}

/// A member's events file, made by the drill and read as it grows.
#[derive(Debug)]
pub(super) struct EventFile {
    file: File,
    changes: OwnedFd,
    /// What follows the last whole line.
    rest: Vec<u8>,
    events: Vec<Event>,
}

impl EventFile {
    /// Makes the file, empty, and starts following it.
    pub(super) fn create(path: &Path) -> Result<Self, EventsError> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .append(true)
            .create_new(true)
            .open(path)?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags).map_err(io::Error::from)?;
        inotify::add_watch(&changes, path, inotify::WatchFlags::MODIFY).map_err(io::Error::from)?;
        Ok(Self {
            file,
            changes,
            rest: Vec::new(),
            events: Vec::new(),
        })
    }

    /// All events read so far, in the order in which they were written.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Reads what was appended since the last call.
    pub(super) fn refresh(&mut self) -> Result<(), EventsError> {
        // Changes are forgotten before the file is read, so that none can fall in between.
        let mut forgotten = [0; 4096];
        loop {
            match rustix::io::read(&self.changes, &mut forgotten) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
        self.file.read_to_end(&mut self.rest)?;
        self.take_lines()
    }

    fn take_lines(&mut self) -> Result<(), EventsError> {
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|&b| b == b'\n') {
            let line = &self.rest[start..start + length];
            let event = serde_json::from_slice(line).map_err(|e| EventsError::BadLine {
                line: self.events.len() + 1,
                reason: e.to_string(),
            })?;
            self.events.push(event);
            start += length + 1;
        }
        self.rest.drain(..start);
        if self.rest.len() > LINE_LIMIT {
            return Err(EventsError::BadLine {
                line: self.events.len() + 1,
                reason: format!("it is longer than {LINE_LIMIT} bytes"),
            });
        }
        Ok(())
    }
}

/// Readable when the file has changed since the last [`EventFile::refresh`].
impl AsFd for EventFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn parse(line: &str) -> Kind {
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(event.mono_ns, 5);
        event.kind
    }

    #[test]
    fn every_event_of_the_contract_is_read() {
        let cases = [
            (r#"{"event":"waiting","mono_ns":5}"#, Kind::Waiting),
            (
                r#"{"event":"connecting","member":"7","mono_ns":5}"#,
                Kind::Connecting,
            ),
            (
                r#"{"event":"backup_lost","reason":"closed","mono_ns":5}"#,
                Kind::BackupLost {
                    reason: "closed".into(),
                },
            ),
            (
                r#"{"event":"started","generation":1,"mono_ns":5}"#,
                Kind::Started { generation: 1 },
            ),
            (r#"{"mono_ns":5,"event":"joined"}"#, Kind::Joined),
            (
                r#"{"event":"suspect","reason":"silence","mono_ns":5}"#,
                Kind::Suspect {
                    reason: "silence".into(),
                },
            ),
            (
                r#"{"event":"caught_up","position":77,"mono_ns":5}"#,
                Kind::CaughtUp { position: 77 },
            ),
            (
                r#"{"event":"claim_won","generation":1,"mono_ns":5}"#,
                Kind::ClaimWon { generation: 1 },
            ),
            (r#"{"event":"claim_lost","mono_ns":5}"#, Kind::ClaimLost),
            (
                r#"{"event":"live","generation":1,"reemitted":3,"mono_ns":5}"#,
                Kind::Live {
                    generation: 1,
                    reemitted: 3,
                },
            ),
            (
                r#"{"event":"solo","mono_ns":5}"#,
                Kind::Solo { generation: None },
            ),
            (
                r#"{"event":"diverged","position":9,"mono_ns":5}"#,
                Kind::Diverged { position: 9 },
            ),
            (
                r#"{"event":"ended","status":-1,"mono_ns":5}"#,
                Kind::Ended { status: -1 },
            ),
            (r#"{"event":"new","what":[1],"mono_ns":5}"#, Kind::Other),
        ];
        for (line, kind) in cases {
            assert_eq!(parse(line), kind, "{line}");
        }
    }

    #[test]
    fn a_growing_file_is_followed_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut followed = EventFile::create(&path).unwrap();
        followed.refresh().unwrap();
        assert_eq!(followed.events(), []);

        let mut member = OpenOptions::new().append(true).open(&path).unwrap();
        member
            .write_all(b"{\"event\":\"joined\",\"mono_ns\":1}\n{\"event\":\"cla")
            .unwrap();
        assert!(wait(&followed), "a change is seen");
        followed.refresh().unwrap();
        assert_eq!(
            followed.events().len(),
            1,
            "a part of a line is no event yet"
        );
        assert!(!wait(&followed), "what was read is no change any more");

        member
            .write_all(b"im_lost\",\"mono_ns\":2}\n{\"event\":")
            .unwrap();
        followed.refresh().unwrap();
        assert_eq!(followed.events()[1].kind, Kind::ClaimLost);
        assert_eq!(
            followed.events().len(),
            2,
            "the cut line of a killed member is none"
        );
    }

    #[test]
    fn a_line_that_is_no_event_is_refused_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut followed = EventFile::create(&path).unwrap();
        let text = "{\"event\":\"joined\",\"mono_ns\":1}\n{\"event\":\"joined\"}\n";
        std::fs::write(&path, text).unwrap();
        let refusal = followed.refresh().unwrap_err().to_string();
        assert!(refusal.contains("line 2"), "{refusal}");

        let path = dir.path().join("endless");
        let mut followed = EventFile::create(&path).unwrap();
        std::fs::write(&path, vec![b'x'; LINE_LIMIT + 1]).unwrap();
        let refusal = followed.refresh().unwrap_err().to_string();
        assert!(refusal.contains("longer than"), "{refusal}");
    }

    fn wait(followed: &EventFile) -> bool {
        let now = Duration::ZERO.try_into().unwrap();
        let mut set = [rustix::event::PollFd::new(
            followed,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut set, Some(&now)).unwrap() == 1
    }
}
