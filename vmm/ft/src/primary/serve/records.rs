//! The arbiter's records of this side, looked at now and then, and put back where they vanished.

use super::{Answer, Runtime};
use crate::arbiter::{Question, look, put_back};
use crate::now;
use ft_protocol::arbiter::{Look, Standing};
use lockstep_events::RecordStatus;

impl Runtime {
    /// Looks at its records, if it has any, and keeps them from cleaners.
    pub(super) fn look(&mut self) {
        self.watch.begin();
        let standing = self.primary.standing();
        self.asker.ask(
            Question::PutBack,
            &self.answers,
            move |arbiter, vm, me| {
                Answer::Looked(standing, look(arbiter, vm, me, standing.as_ref()))
            },
            move |why| Answer::Looked(standing, Look::Unreachable(why)),
        );
    }

    pub(super) fn looked(&mut self, standing: Option<Standing>, found: &Look) {
        self.watch.end();
        let Some(standing) = standing.filter(|_| self.primary.standing() == standing) else {
            return;
        };
        self.watch.found(&mut self.events, found);
        self.primary.handle_looked(now(), standing, found);
        if !standing.won && matches!(found, Look::Missing(_)) {
            // What the backup acknowledges next allows to put it back. A guest that only waits makes no
            // entries; a vCPU's thread that is woken adds the digest that has been due since.
            self.waker.wake();
        }
    }

    /// Writes again what vanished. Whether that is so, the next look tells.
    pub(super) fn put_back(&mut self, standing: Standing) {
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

    /// What an operator needs who puts a record back, for `lockstep status`.
    pub(super) fn record(&self) -> Option<RecordStatus> {
        let right = self.primary.right()?;
        let won = self.primary.standing().is_some_and(|standing| standing.won);
        let standing = Standing { right, won };
        Some(RecordStatus::new(&standing, self.watch.holds()))
    }
}
