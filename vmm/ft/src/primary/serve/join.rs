//! A new backup joins: the runtime's part in the copy.

use super::Runtime;
use crate::now;
use crate::primary::copy::{Captured, Copy, CopyError, FromCopy};
use lockstep_events::{Event, MemberStatus, PrimaryStatus, RoleStatus};

impl Runtime {
    pub(super) fn start_copy(&mut self) {
        self.copies += 1;
        self.progress = None;
        self.copy = Some(Copy::start(
            self.copies,
            self.vcpu.controls.clone(),
            self.waker.clone(),
            self.vcpu.to_runtime(),
            &self.copier,
        ));
    }

    /// Handles a result of copying.
    pub(super) fn copied(&mut self, from: FromCopy) {
        match from {
            FromCopy::Piece(pages) => {
                if let Some(copy) = &mut self.copy {
                    self.primary.handle_piece(now(), copy.keep(pages));
                }
            }
            FromCopy::Round(progress) => {
                self.progress = Some(progress);
                self.events.emit(Event::Copying(progress));
            }
        }
    }

    /// Its state, for `lockstep status`.
    pub(super) fn status(&self) -> MemberStatus {
        let now = now();
        let stalls = self.primary.stalls();
        MemberStatus {
            vm: self.header.vm.clone(),
            member: self.me,
            state: self.primary.state().into(),
            generation: self.primary.generation(),
            longest_silence_ms: self.silence.ms(),
            network: self.network.status(),
            records: self.watch.wrong().map(str::to_owned),
            record: self.record(),
            role: RoleStatus::Primary(PrimaryStatus {
                lag_ms: self.primary.lag(now).as_secs_f64() * 1e3,
                throttle_percent: self.primary.rest(),
                held_outputs: self.primary.held_outputs() as u64,
                window_stalls: stalls.window,
                gate_stalls: stalls.gate,
                copy: self.copy.as_ref().and(self.progress),
            }),
        }
    }

    /// The machine was stopped and copied, or could not be.
    pub(super) fn captured(&mut self, copy: u64, captured: Result<Box<Captured>, CopyError>) {
        // The result of a copy that was given up is ignored.
        let Some(copy) = self.copy.as_mut().filter(|of| of.is(copy)) else {
            return;
        };
        let mut captured = match captured {
            Ok(captured) => captured,
            Err(why) => return self.primary.handle_copy_failed(now(), why.to_string()),
        };
        for pages in copy.take(&mut captured) {
            self.primary.handle_piece(now(), copy.keep(pages));
        }
        let pause_ms = captured.pause.as_secs_f64() * 1e3;
        let progress = captured.progress;
        self.progress = Some(progress);
        self.events.emit(Event::Copied { pause_ms, progress });
        self.primary.handle_captured(now(), captured.capture);
    }
}
