//! Looks from time to time at the arbiter's record of this side's generation. A backup only reports:
//! its primary puts back records that vanished.

use super::{Answer, Runtime};
use crate::records;
use ft_protocol::arbiter::{Look, Standing};
use lockstep_events::RecordStatus;

impl Runtime {
    pub(super) fn look(&mut self) {
        let (asker, standing) = (&self.asker, self.backup.standing());
        let watch = &mut self.records;
        records::look(watch, asker, &self.answers, standing, Answer::Looked);
    }

    pub(super) fn looked(&mut self, before: Option<Standing>, found: &Look) {
        let (watch, standing) = (&mut self.records, self.backup.standing());
        records::looked(watch, &mut self.events, before, standing, found);
    }

    pub(super) fn record(&self) -> Option<RecordStatus> {
        records::record(self.backup.right(), self.backup.standing(), &self.records)
    }
}
