//! Questions to an arbiter, on threads of their own: only these may wait for its storage for ever.

use super::{Arbiter, Unreachable, claim, close};
use ft_protocol::arbiter::{ClaimAnswer, CloseAnswer, MemberId};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A storage that answers later than this counts as unreachable; each endpoint of an etcd has this
/// time.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// A caller that has nothing else to do waits for this many times the limit.
const PATIENCE: u32 = 3;
/// Most threads that wait for a hanging storage. With more, a question is not asked at all.
const MAX_WAITING: usize = 8;

/// What is asked. A question that was asked before without an answer in time is the same question: an
/// answer to either attempt counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// To open this generation.
    Open(u64),
    /// To read its open record.
    ReadBack(u64),
    /// To claim it.
    Claim(u64),
    /// To close it.
    Close(u64),
    /// To look at this member's own records.
    Look,
    /// To put them back.
    PutBack,
}

impl Question {
    /// Is it asked again while an earlier attempt may still be answered? An answer may never come, as
    /// after the loss of a mount. But what is put back must not arrive at an arbitrary time.
    fn is_repeated(self) -> bool {
        match self {
            Question::Open(_) | Question::ReadBack(_) | Question::Claim(_) | Question::Close(_) => {
                true
            }
            Question::Look | Question::PutBack => false,
        }
    }
}

/// Why a question is not even put.
#[derive(Debug, Error)]
enum NotAsked {
    #[error("{MAX_WAITING} questions before have no answer yet")]
    TooMany,
    #[error("no thread to ask it: {0}")]
    NoThread(io::Error),
}

/// Attempts at a question that has no answer yet.
struct Attempts<T> {
    sender: UnboundedSender<T>,
    answers: UnboundedReceiver<T>,
    count: Arc<AtomicUsize>,
}

/// Asks an arbiter for one member of one VM. `T` is the type of the answers.
pub struct Asker<T> {
    arbiter: Arc<dyn Arbiter>,
    vm: String,
    me: MemberId,
    /// Threads that have no answer yet.
    waiting: Arc<AtomicUsize>,
    /// Questions that were not answered in time.
    open: Arc<Mutex<HashMap<Question, Attempts<T>>>>,
}

impl<T: Send + 'static> Asker<T> {
    /// Asks `arbiter`.
    pub fn new(arbiter: Arc<dyn Arbiter>, vm: &str, me: MemberId) -> Asker<T> {
        Asker {
            arbiter,
            vm: vm.into(),
            me,
            waiting: Arc::default(),
            open: Arc::default(),
        }
    }

    /// The same with another type of answers. Earlier questions count no more.
    pub fn anew<U: Send + 'static>(self) -> Asker<U> {
        Asker {
            waiting: self.waiting,
            ..Asker::new(self.arbiter, &self.vm, self.me)
        }
    }

    /// Claims this generation, and sends what comes of it.
    pub fn claim(&self, generation: u64, to: &UnboundedSender<T>, answer: fn(ClaimAnswer) -> T) {
        self.ask(
            Question::Claim(generation),
            to,
            move |arbiter, vm, me| answer(claim(arbiter, vm, generation, me)),
            move |why| answer(ClaimAnswer::Unreachable(why)),
        );
    }

    /// Writes this generation's close record, and sends what comes of it.
    pub fn close(&self, generation: u64, to: &UnboundedSender<T>, answer: fn(CloseAnswer) -> T) {
        self.ask(
            Question::Close(generation),
            to,
            move |arbiter, vm, me| answer(close(arbiter, vm, generation, me)),
            move |why| answer(CloseAnswer::Unreachable(why)),
        );
    }

    /// Asks a question and sends the answer, or `unanswered` if there is none in time. Must be called
    /// inside the runtime. The same question may be asked again only after that.
    pub fn ask(
        &self,
        question: Question,
        to: &UnboundedSender<T>,
        ask: impl FnOnce(&dyn Arbiter, &str, MemberId) -> T + Send + 'static,
        unanswered: impl FnOnce(String) -> T + Send + 'static,
    ) {
        let before = lock(&self.open).remove(&question);
        let mut attempts = before.unwrap_or_else(|| {
            let (sender, answers) = unbounded_channel();
            let count = Arc::default();
            Attempts {
                sender,
                answers,
                count,
            }
        });
        let mut why = self.late(1).to_string();
        if question.is_repeated() || attempts.count.load(Ordering::Acquire) == 0 {
            let (sender, count) = (attempts.sender.clone(), attempts.count.clone());
            count.fetch_add(1, Ordering::AcqRel);
            let asked = self.on_a_thread(ask, move |answer| {
                // The process is ending, or the question was answered meanwhile.
                let _late = sender.send(answer);
                count.fetch_sub(1, Ordering::AcqRel);
            });
            if let Err(e) = asked {
                attempts.count.fetch_sub(1, Ordering::AcqRel);
                why = self.arbiter.damaged(&e).to_string();
            }
        }
        let (limit, to, open) = (self.arbiter.answer_limit(), to.clone(), self.open.clone());
        tokio::spawn(async move {
            let answer = match tokio::time::timeout(limit, attempts.answers.recv()).await {
                Ok(Some(answer)) => answer,
                Ok(None) | Err(_) => {
                    lock(&open).insert(question, attempts);
                    unanswered(why)
                }
            };
            // If nothing waits for the answer, the process is ending.
            let _gone = to.send(answer);
        });
    }

    /// Asks a question and waits for the answer, for a caller that has nothing else to do.
    ///
    /// # Errors
    /// If there is no answer in time.
    pub fn ask_now<U: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Arbiter, &str, MemberId) -> Result<U, Unreachable> + Send + 'static,
    ) -> Result<U, Unreachable> {
        let (sender, answer): (Sender<Result<U, Unreachable>>, _) = channel();
        let asked = self.on_a_thread(ask, move |answer| {
            let _late = sender.send(answer);
        });
        asked.map_err(|why| self.arbiter.damaged(&why))?;
        let limit = self.arbiter.answer_limit() * PATIENCE;
        answer
            .recv_timeout(limit)
            .unwrap_or_else(|_| Err(self.late(PATIENCE)))
    }

    fn late(&self, patience: u32) -> Unreachable {
        let ms = (self.arbiter.answer_limit() * patience).as_millis();
        self.arbiter
            .damaged(&format!("it did not answer within {ms} ms"))
    }

    /// Not on one of tokio's threads: the process would wait for it at its end.
    fn on_a_thread<U: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Arbiter, &str, MemberId) -> U + Send + 'static,
        answered: impl FnOnce(U) + Send + 'static,
    ) -> Result<(), NotAsked> {
        let (arbiter, vm, me) = (self.arbiter.clone(), self.vm.clone(), self.me);
        let waiting = self.waiting.clone();
        if waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(NotAsked::TooMany);
        }
        let asked = thread::Builder::new()
            .name("arbiter".into())
            .spawn(move || {
                let answer = ask(&*arbiter, &vm, me);
                waiting.fetch_sub(1, Ordering::AcqRel);
                answered(answer);
            });
        asked.map(drop).map_err(|e| {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            NotAsked::NoThread(e)
        })
    }
}

fn lock<T>(
    open: &Mutex<HashMap<Question, Attempts<T>>>,
) -> std::sync::MutexGuard<'_, HashMap<Question, Attempts<T>>> {
    open.lock().expect("nobody panics with it")
}

#[cfg(test)]
mod tests;
