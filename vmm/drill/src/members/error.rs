//! What may go wrong with a member.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::events::EventsError;

/// What went wrong with a member.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum MemberError {
    #[error("the {name} cannot run on this host: {words}")]
    HostCannot { name: &'static str, words: String },
    #[error("the {name} {how} before {what}; its last words: {words}")]
    Died {
        name: &'static str,
        how: String,
        what: &'static str,
        words: String,
    },
    #[error("not within {seconds} s: {what}", seconds = limit.as_secs())]
    Late { what: &'static str, limit: Duration },
    #[error("the {name} cannot be started: {source}")]
    Start {
        name: &'static str,
        source: io::Error,
    },
    #[error("the {name}'s events: {source}")]
    Events {
        name: &'static str,
        source: EventsError,
    },
    #[error("the {name} cannot be followed or ended: {source}")]
    Follow {
        name: &'static str,
        source: io::Error,
    },
}
