//! Questions to an arbiter, on threads that may wait for its storage for ever: nobody else does.

use super::{Arbiter, Unreachable};
use ft_protocol::arbiter::MemberId;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// A storage that answers later than this does not answer, for each of the places where it is asked.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Threads that wait for a storage that hangs; with more, a question is not even put.
const MAX_WAITING: usize = 8;

/// Asks an arbiter for one member of one VM.
#[derive(Clone)]
pub struct Asker {
    arbiter: Arc<dyn Arbiter>,
    vm: String,
    me: MemberId,
    /// Threads that have no answer yet.
    waiting: Arc<AtomicUsize>,
}

impl Asker {
    /// Asks `arbiter`.
    pub fn new(arbiter: Arc<dyn Arbiter>, vm: &str, me: MemberId) -> Asker {
        Asker {
            arbiter,
            vm: vm.into(),
            me,
            waiting: Arc::default(),
        }
    }

    /// Puts a question and sends its answer, or what stands for none in time. Within the runtime.
    pub fn ask<T: Send + 'static>(
        &self,
        answers: &UnboundedSender<T>,
        question: impl FnOnce(&dyn Arbiter, &str, MemberId) -> T + Send + 'static,
        unanswered: impl FnOnce(String) -> T + Send + 'static,
    ) {
        let (sender, answer) = oneshot::channel();
        let asked = self.on_a_thread(question, move |answer| {
            // Nobody waits any more for one that comes late.
            let _late = sender.send(answer);
        });
        let asked = asked.map_err(|why| self.arbiter.damaged(&why).to_string());
        let (limit, why) = (self.arbiter.answer_limit(), self.late().to_string());
        let answers = answers.clone();
        tokio::spawn(async move {
            let answer = match (asked, tokio::time::timeout(limit, answer).await) {
                (Ok(()), Ok(Ok(answer))) => answer,
                (Ok(()), Ok(Err(_)) | Err(_)) => unanswered(why),
                (Err(e), _) => unanswered(e),
            };
            // The process is ending if nobody waits for it.
            let _gone = answers.send(answer);
        });
    }

    /// The same at once, where nothing else goes on.
    ///
    /// # Errors
    /// If there is no answer in time.
    pub fn ask_now<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Arbiter, &str, MemberId) -> Result<T, Unreachable> + Send + 'static,
    ) -> Result<T, Unreachable> {
        let (sender, answer): (Sender<Result<T, Unreachable>>, _) = channel();
        let asked = self.on_a_thread(question, move |answer| {
            let _late = sender.send(answer);
        });
        asked.map_err(|why| self.arbiter.damaged(&why))?;
        match answer.recv_timeout(self.arbiter.answer_limit()) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(self.late()),
        }
    }

    fn late(&self) -> Unreachable {
        let ms = self.arbiter.answer_limit().as_millis();
        self.arbiter
            .damaged(&format!("it did not answer within {ms} ms"))
    }

    /// Not one of tokio's threads: it would be waited for at the end.
    fn on_a_thread<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Arbiter, &str, MemberId) -> T + Send + 'static,
        answered: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), String> {
        let asker = self.clone();
        if asker.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            asker.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(format!("{MAX_WAITING} questions before have no answer yet"));
        }
        let asked = thread::Builder::new()
            .name("arbiter".into())
            .spawn(move || {
                let answer = question(&*asker.arbiter, &asker.vm, asker.me);
                asker.waiting.fetch_sub(1, Ordering::AcqRel);
                answered(answer);
            });
        asked.map(drop).map_err(|e| {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            format!("no thread to ask it: {e}")
        })
    }
}

#[cfg(test)]
mod tests;
