//! Operators' requests to a backup: by signals and by its control socket.

use super::Runtime;
use crate::control::{Asked, Refusal, Wish};
use crate::{Halt, Outcome, StopSignal, now};
use ft_protocol::host::drive_backup;
use lockstep_events::{BackupStatus, Event, MemberStatus, RoleStatus};
use std::io;
use std::sync::atomic::Ordering;

impl Runtime {
    /// SIGINT, SIGTERM or SIGHUP: a backup leaves. If it has asked the arbiter it may have won already:
    /// then it stops as soon as it is live, like any live side. A second SIGINT or SIGTERM does not
    /// wait for that.
    pub(super) fn stop(&mut self, signal: StopSignal) -> io::Result<Option<Outcome>> {
        if self.backup.handle_leave(now()) {
            // This also sends Leave to the primary.
            drive_backup(self)?;
            self.events.emit(Event::Left {});
            return Ok(Some(Outcome::Left));
        }
        if self.controls.stop.swap(true, Ordering::AcqRel) {
            if signal == StopSignal::HungUp {
                return Ok(None);
            }
            return Ok(Some(Outcome::Halted(match self.ended {
                Some(_) => Halt::CutOffOpen,
                None => Halt::CutOff,
            })));
        }
        self.waker.wake();
        Ok(None)
    }

    /// An operator requests something here. A backup passes the request on, and answers with the
    /// result.
    pub(super) fn asked(&mut self, asked: Asked) {
        match asked.wish {
            Wish::Status => self.control.tell(&asked, &self.status()),
            Wish::Do(request) => {
                let accepted = match self.backup.handle_request(now(), request) {
                    true => Ok(()),
                    false => Err(Refusal::NoPair),
                };
                self.control.answer(asked, accepted);
            }
        }
    }

    /// Its state, for `lockstep status`.
    fn status(&self) -> MemberStatus {
        MemberStatus {
            vm: self.vm.clone(),
            member: self.me,
            state: self.backup.state().into(),
            generation: self.backup.generation(),
            longest_silence_ms: self.silence.ms(),
            network: self.network.status(),
            records: self.records.wrong().map(str::to_owned),
            record: self.record(),
            role: RoleStatus::Backup(BackupStatus {
                received: self.backup.received(),
                copied_bytes: self.loaded_bytes,
            }),
        }
    }
}
