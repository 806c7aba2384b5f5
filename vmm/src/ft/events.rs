//! `--events`: what a member does, one JSON object a line, for drills and supervisors.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Where the events go; nowhere unless asked for.
#[derive(Debug, Default)]
pub struct EventLog {
    file: Option<File>,
}

impl EventLog {
    /// Adds to `path`.
    pub fn open(path: Option<&Path>) -> io::Result<EventLog> {
        let open = |path| File::options().create(true).append(true).open(path);
        Ok(EventLog {
            file: path.map(open).transpose()?,
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

    /// Writes one event with the time on the host's monotonic clock, in one write.
    pub fn emit(&mut self, event: &str, details: Value) {
        tracing::info!("{event} {details}");
        let Some(file) = &mut self.file else { return };
        let mut object = json!({"event": event, "mono_ns": super::now().0});
        if let (Value::Object(object), Value::Object(details)) = (&mut object, details) {
            object.extend(details);
        }
        // An event that cannot be written must not hold up a failover.
        if let Err(e) = file.write_all(format!("{object}\n").as_bytes()) {
            tracing::warn!("cannot write an event ({e}); no more will be written");
            self.file = None;
        }
    }
}
