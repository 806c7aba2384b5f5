//! Entries in words.

use ft_protocol::log::{Control, EndReason, Event};

/// The kind of an event, one word.
pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::Clock { .. } => "clock",
        Event::Frame { .. } => "frame",
        Event::ConsoleInput { .. } => "console-input",
        Event::Entropy { .. } => "entropy",
        Event::Time { .. } => "time",
        Event::Output(_) => "output",
        Event::Interrupt { .. } => "interrupt",
        Event::Progress => "progress",
        Event::Digest(_) => "digest",
        Event::Control(_) => "control",
        Event::End(_) => "end",
    }
}

/// What else is to be said of it, briefly.
pub fn detail(event: &Event) -> String {
    match event {
        Event::Clock { ns } | Event::Time { ns } => format!("{ns} ns"),
        Event::Frame { data } | Event::ConsoleInput { data } | Event::Entropy { data } => {
            format!("{} bytes", data.len())
        }
        Event::Output(mark) => format!(
            "#{} {:?} {} bytes, hash {:016x}",
            mark.number, mark.port, mark.len, mark.hash
        ),
        Event::Interrupt { vector } => format!("vector {vector:#x}"),
        Event::Progress => "nothing before".into(),
        Event::Digest(digest) => digest.to_string(),
        Event::Control(Control::GoLive { generation }) => {
            format!("went live in generation {generation}")
        }
        Event::End(end) => match end.reason {
            EndReason::Exited { status } => format!("status {status}, digest {}", end.digest),
            EndReason::Dead => format!("guest died, digest {}", end.digest),
            EndReason::Stopped => format!("stopped, digest {}", end.digest),
            EndReason::Reset => format!("guest reset its machine, digest {}", end.digest),
        },
    }
}
