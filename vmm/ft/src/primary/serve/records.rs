//! The arbiter's records of this side, looked at now and then, and put back where they vanished.

use super::{Answer, Runtime};
use crate::arbiter::{Question, put_back};
use crate::{now, records};
use ft_protocol::arbiter::{Look, Standing};
use serde_json::Value;

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
            // What the backup acknowledges next allows to put it back. A guest that only waits makes no
            // entries; a vCPU's thread that is woken adds the digest that has been due since.
            self.waker.wake();
        }
    }

    /// Writes again what vanished. Whether that is so, the next look tells.
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

    pub(super) fn record(&self) -> Value {
        records::record(self.primary.right(), self.primary.standing(), &self.watch)
    }
}
