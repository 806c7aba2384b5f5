//! A question to the arbiter, which is asked until it is answered.

use crate::Time;
use crate::arbiter::CloseAnswer;
use std::time::Duration;

/// After "unreachable", the arbiter is asked again this much later.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// If a generation cannot be closed in this many attempts, it stays open, and its member ends anyway:
/// after some seconds, even if the storage hangs.
pub const CLOSE_ATTEMPTS: u32 = 5;

/// The open question, if there is one. The phase of its owner says what it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    asked: bool,
    again: Option<Time>,
    attempts: u32,
}

impl Question {
    /// Opens a new question. Its first attempt is made now.
    pub fn ask(&mut self) {
        *self = Question {
            asked: true,
            again: None,
            attempts: 1,
        };
    }

    /// An answer came. Returns whether there was a question: without one the answer is ignored.
    pub fn answered(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// Is an answer still to come?
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Was it not answered yet?
    pub fn is_open(&self) -> bool {
        self.asked || self.again.is_some()
    }

    /// Asks no more. An answer to an earlier attempt may still come.
    pub fn give_up(&mut self) {
        self.again = None;
    }

    /// The answer was "unreachable".
    pub fn unreachable(&mut self, now: Time) {
        self.again = Some(now.after(ASK_AGAIN));
    }

    /// The answer to closing a generation; whether it is closed, once no more is asked.
    pub fn closed(&mut self, now: Time, answer: CloseAnswer) -> Option<bool> {
        match answer {
            CloseAnswer::Closed => Some(true),
            CloseAnswer::Unreachable(_) if self.attempts < CLOSE_ATTEMPTS => {
                self.unreachable(now);
                None
            }
            CloseAnswer::Unreachable(_) => Some(false),
        }
    }

    /// What became of the fence; whether it succeeded. One that failed is tried again.
    pub fn fenced(&mut self, now: Time, fenced: bool) -> bool {
        if !fenced {
            self.unreachable(now);
        }
        fenced
    }

    /// Is it time to ask again? If so, it counts as asked.
    pub fn due(&mut self, now: Time) -> bool {
        let due = self.again.is_some_and(|again| again <= now);
        if due {
            *self = Question {
                asked: true,
                again: None,
                attempts: self.attempts + 1,
            };
        }
        due
    }

    /// When to ask again.
    pub fn next(&self) -> Option<Time> {
        self.again
    }

    /// Attempts so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}
