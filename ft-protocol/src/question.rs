//! A question to the arbiter: asked until somebody answers.

use crate::Time;
use crate::arbiter::CloseAnswer;
use std::time::Duration;

/// After "unreachable", the arbiter is asked again this much later.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A generation that cannot be closed in so many attempts stays open, and its member ends anyway: after
/// seconds, also if the storage hangs.
pub const CLOSE_ATTEMPTS: u32 = 5;

/// The question that is open, if there is one. What it asks for, its owner's phase tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    asked: bool,
    again: Option<Time>,
    attempts: u32,
}

impl Question {
    /// A new question, of which the first attempt is made now.
    pub fn ask(&mut self) {
        *self = Question {
            asked: true,
            again: None,
            attempts: 1,
        };
    }

    /// An answer came. Whether there was a question: an answer to none means nothing.
    pub fn answered(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// Whether an answer is still to come.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Whether nobody has answered it yet.
    pub fn is_open(&self) -> bool {
        self.asked || self.again.is_some()
    }

    /// Asks no more. An answer that is still to come is still to come.
    pub fn give_up(&mut self) {
        self.again = None;
    }

    /// The answer was that nobody knows.
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
    pub fn fenced(&mut self, now: Time, fenced: Result<(), String>) -> bool {
        if fenced.is_err() {
            self.unreachable(now);
        }
        fenced.is_ok()
    }

    /// Whether it is time to ask again; it then counts as asked.
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
