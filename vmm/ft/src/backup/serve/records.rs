//! The arbiter's record of this side's generation, looked at now and then. A backup only tells: its primary
//! puts back what vanished.

use super::{Answer, Runtime};
use crate::arbiter::{Question, look};
use ft_protocol::arbiter::{Look, Standing};
use lockstep_events::RecordStatus;

impl Runtime {
    /// Looks at its record, if it has one, and keeps it from cleaners.
    pub(super) fn look(&mut self) {
        self.records.begin();
        let standing = self.backup.standing();
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
        self.records.end();
        if standing.is_some() && self.backup.standing() == standing {
            self.records.found(&mut self.events, found);
        }
    }

    /// What an operator needs who puts a record back, for `lockstep status`.
    pub(super) fn record(&self) -> Option<RecordStatus> {
        let standing = Standing {
            right: self.backup.right()?,
            won: false,
        };
        Some(RecordStatus::new(&standing, self.records.holds()))
    }
}
