//! `--events`: what a member does, one JSON object a line, for drills and supervisors.

use super::fence::FenceError;
use lockstep_events::{Event, Stamped};
use lockstep_out as out;
use lockstep_out::{Queue, Target};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Writes events, if `--events` was given.
#[derive(Debug, Default)]
pub struct EventLog {
    queue: Option<Queue<EventFile>>,
}

#[derive(Debug)]
struct EventFile {
    file: File,
    path: PathBuf,
}

impl Target for EventFile {
    const THREAD: &'static str = "events";

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn gap(&self, count: u64, why: &str) -> Vec<u8> {
        let why = why.to_owned();
        line(Event::EventsLost { count, why })
    }

    fn failing(&self, why: &str) {
        let path = self.path.display();
        tracing::warn!("events for {path} are lost until they can be written again ({why})");
    }

    fn recovered(&self, count: u64, why: &str) {
        let path = self.path.display();
        tracing::warn!("{count} events for {path} were lost ({why}); now they are written again");
    }
}

impl EventLog {
    /// Appends to `path`.
    pub fn open(path: Option<&Path>) -> io::Result<EventLog> {
        let open = |path: &Path| {
            let file = out::append_to(path)?;
            let path = path.to_owned();
            Ok::<_, io::Error>(out::queue(EventFile { file, path }))
        };
        Ok(EventLog {
            queue: path.map(open).transpose()?,
        })
    }

    /// Reports that the arbiter is needed and cannot be asked.
    pub fn unreachable(&mut self, why: &str) {
        tracing::warn!("it is needed, and asked again: {why}");
        self.emit(Event::Unreachable { why: why.into() });
    }

    /// Reports that the fence failed: no side is live before it succeeds.
    pub fn unfenced(&mut self, why: &FenceError) {
        tracing::warn!("outputs are held, and it is run again: {why}");
        self.emit(Event::FenceFailed {
            why: why.to_string(),
        });
    }

    /// Writes one event, with the time of the host's monotonic clock, by one write. An event that
    /// cannot be written, or not now, delays nothing.
    pub fn emit(&mut self, event: Event) {
        tracing::info!("{event}");
        if let Some(queue) = &self.queue {
            queue.push(line(event));
        }
    }
}

fn line(event: Event) -> Vec<u8> {
    let mono_ns = super::now().0;
    Stamped { mono_ns, event }.line().into_bytes()
}
