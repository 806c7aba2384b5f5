//! `--events`: what a member does, one JSON object a line, for drills and supervisors.

use lockstep_out as out;
use lockstep_out::{Queue, Target};
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Where the events go; nowhere unless asked for.
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
        line("events_lost", json!({"count": count, "why": why}))
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
    /// Adds to `path`.
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

    /// The arbiter is needed and cannot be asked.
    pub fn unreachable(&mut self, why: &str) {
        tracing::warn!("it is needed, and asked again: {why}");
        self.emit("unreachable", json!({"why": why}));
    }

    /// The fence failed: nobody is live before it succeeds.
    pub fn unfenced(&mut self, why: &str) {
        tracing::warn!("outputs are held, and it is run again: {why}");
        self.emit("fence_failed", json!({"why": why}));
    }

    /// Writes one event with the time on the host's monotonic clock, in one write. An event that cannot be
    /// written, or not now, holds up nobody.
    pub fn emit(&mut self, event: &str, details: Value) {
        tracing::info!("{event} {details}");
        if let Some(queue) = &self.queue {
            queue.push(line(event, details));
        }
    }
}

fn line(event: &str, details: Value) -> Vec<u8> {
    let mut object = json!({"event": event, "mono_ns": super::now().0});
    if let (Value::Object(object), Value::Object(details)) = (&mut object, details) {
        object.extend(details);
    }
    format!("{object}\n").into_bytes()
}
