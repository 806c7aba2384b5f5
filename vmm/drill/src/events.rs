//! Following a member's events: lines that it adds to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lockstep_events::{LineError, Stamped};
use rustix::fs::inotify;
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
    BadLine { line: usize, reason: LineError },
    #[error("line {line} of the events file is no event: it is longer than {LINE_LIMIT} bytes")]
    LongLine { line: usize },
}

/// A member's events file, made by the drill and read as it grows.
#[derive(Debug)]
pub(super) struct EventFile {
    file: File,
    changes: OwnedFd,
    /// What follows the last whole line.
    rest: Vec<u8>,
    /// Lines so far.
    lines: usize,
    events: Vec<Stamped>,
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
            lines: 0,
            events: Vec::new(),
        })
    }

    /// All events read so far, in the order in which they were written.
    pub(super) fn events(&self) -> &[Stamped] {
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

    /// A line that is not an event is told once, and passed over after that.
    fn take_lines(&mut self) -> Result<(), EventsError> {
        while let Some(length) = self.rest.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=length).collect();
            self.lines += 1;
            let event = Stamped::read(&line).map_err(|reason| EventsError::BadLine {
                line: self.lines,
                reason,
            })?;
            self.events.push(event);
        }
        if self.rest.len() > LINE_LIMIT {
            let line = self.lines + 1;
            return Err(EventsError::LongLine { line });
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
    use lockstep_events::Event;

    #[test]
    fn a_growing_file_is_followed_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut followed = EventFile::create(&path).unwrap();
        followed.refresh().unwrap();
        assert_eq!(followed.events(), []);

        let mut member = OpenOptions::new().append(true).open(&path).unwrap();
        member
            .write_all(b"{\"event\":\"left\",\"mono_ns\":1}\n{\"event\":\"wit")
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
            .write_all(b"hdraw\",\"mono_ns\":2}\n{\"event\":")
            .unwrap();
        followed.refresh().unwrap();
        assert_eq!(followed.events()[1].event, Event::Withdraw {});
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
        let text = "{\"event\":\"left\",\"mono_ns\":1}\n{\"event\":\"left\"}\n\
                    {\"event\":\"new\",\"mono_ns\":3}\n{\"event\":\"withdraw\",\"mono_ns\":4}\n";
        std::fs::write(&path, text).unwrap();
        let refusal = followed.refresh().unwrap_err().to_string();
        assert!(refusal.contains("line 2"), "{refusal}");
        assert!(refusal.contains("no `mono_ns`"), "{refusal}");
        let refusal = followed.refresh().unwrap_err().to_string();
        assert!(refusal.contains("line 3"), "{refusal}");
        assert!(refusal.contains("`new` is unknown"), "{refusal}");
        followed.refresh().unwrap();
        let read: Vec<u64> = followed.events().iter().map(|e| e.mono_ns).collect();
        assert_eq!(read, [1, 4]);

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
