//! Looks from time to time at the arbiter's records of this side, and puts back those that vanished.

use super::{Answer, Runtime};
use crate::arbiter::{Question, put_back};
use crate::{now, records};
use ft_protocol::arbiter::{Look, Standing};
use lockstep_events::RecordStatus;

impl Runtime {
    pub(super) fn look(&mut self) {
        let (asker, standing) = (&self.asker, self.primary.standing());
        let watch = &mut self.watch;
        records::look(watch, asker, &self.answers, standing, Answer::Looked);
    }

    pub(super) fn looked(&mut self, before: Option<Standing>, found: &Look) {
        let (watch, standing) = (&mut self.watch, self.primary.standing());
        let events = &mut self.events;
        let Some(standing) = records::looked(watch, events, before, standing, found) else {
            return;
        };
        self.primary.handle_looked(now(), standing, found);
        if !standing.won && matches!(found, Look::Missing(_)) {
            // The backup's next acknowledgement allows to put it back. A guest that only waits makes no
            // entries; but when its vCPU's thread is woken, it adds the digest that has been due since
            // then.
            self.waker.wake();
        }
    }

    /// Writes vanished records again. The next look shows whether that succeeded.
    pub(super) fn write_again(&mut self, standing: Standing) {
        self.watch.begin();
        self.asker.ask(
            Question::PutBack,
            &self.answers,
            move |arbiter, vm, me| {
                if let Err(e) = put_back(arbiter, vm, me, &standing) {
                    tracing::warn!("a record that vanished could not be put back: {e}");
                }
                Answer::PutBack
            },
            |why| {
                tracing::warn!("a record that vanished could not be put back: {why}");
                Answer::PutBack
            },
        );
    }

    pub(super) fn record(&self) -> Option<RecordStatus> {
        records::record(self.primary.right(), self.primary.standing(), &self.watch)
    }
}
