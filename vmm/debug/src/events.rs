//! The log's entries around a moment.

use crate::DebugError;
use crate::session::Session;
use lockstep_replay::{FollowError, words};
use std::collections::VecDeque;
use std::fmt::Write;

/// Entries shown before the moment, and after it.
const SHOWN: usize = 8;
/// Checkpoints to go back for entries before the moment.
const BACK: usize = 4;

/// The entries, a line each.
pub fn around(session: &mut Session) -> Result<String, DebugError> {
    let now = session.when();
    let here = session.machine.position().exit;
    let Some(mut from) = session.checkpoint_before(now) else {
        return Ok("the recording ends where it begins".into());
    };
    for _ in 0..BACK {
        match session.store.before(from.when) {
            Some(earlier) => from = earlier,
            None => break,
        }
    }
    let mut before: VecDeque<String> = VecDeque::new();
    let mut after = Vec::new();
    session
        .edge
        .look(from.edge.place(), &mut |entry| {
            let (kind, detail) = (words::kind(&entry.event), words::detail(&entry.event));
            let line = format!("@{:<22} {kind:<14} {detail}", entry.at.to_string());
            if entry.at.exit <= here {
                if before.len() == SHOWN {
                    before.pop_front();
                }
                before.push_back(line);
            } else {
                after.push(line);
            }
            after.len() < SHOWN
        })
        .map_err(FollowError::Log)?;
    let mut text = String::new();
    for line in before {
        let _infallible = writeln!(text, "  {line}");
    }
    let _infallible = writeln!(text, "> now, after exit {here}");
    for line in after {
        let _infallible = writeln!(text, "  {line}");
    }
    Ok(text)
}
