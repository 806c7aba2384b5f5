//! A new backup joins: what the runtime does about the copy.

use super::Runtime;
use crate::now;
use crate::primary::copy::{Captured, Copy, CopyError, FromCopy};
use ft_protocol::Time;
use lockstep_events::{Event, MemberStatus, PrimaryStatus, RoleStatus};
use std::time::Duration;

/// From the copy until whoever has it is armed: proving it, opening the generation, its acknowledgements.
const ARM_LIMIT: Duration = Duration::from_secs(5);

impl Runtime {
    pub(super) fn start_copy(&mut self) {
        self.copies += 1;
        self.progress = None;
        self.unsent.clear();
        let copy = Copy::start(
            self.copies,
            self.vcpu.controls.clone(),
            self.waker.clone(),
            self.vcpu.to_runtime(),
        );
        match copy {
            Ok(copy) => self.copy = Some(copy),
            Err(e) => self.primary.handle_copy_failed(now(), e.to_string()),
        }
    }

    /// Something came of the copy.
    pub(super) fn copied(&mut self, from: FromCopy) {
        match from {
            FromCopy::Send(message) => {
                if let Some(copy) = &mut self.copy {
                    self.primary.handle_copy_sent(copy.note_sent(&message));
                }
                if let Some(link) = &mut self.link {
                    link.send(&message);
                }
            }
            FromCopy::Round(progress) => {
                self.progress = Some(progress);
                self.events.emit(Event::Copying(progress));
            }
        }
    }

    /// How it stands, for `lockstep status`.
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
        // Of one that was given up it means nothing.
        let Some(copy) = self.copy.as_mut().filter(|of| of.is(copy)) else {
            return;
        };
        let mut captured = match captured {
            Ok(captured) => captured,
            Err(why) => return self.primary.handle_copy_failed(now(), why.to_string()),
        };
        copy.take(&mut captured);
        let pause_ms = captured.pause.as_secs_f64() * 1e3;
        let progress = captured.progress;
        self.progress = Some(progress);
        self.events.emit(Event::Copied { pause_ms, progress });
        self.arm_by = Some(now().after(ARM_LIMIT));
        self.primary.handle_captured(now(), captured.capture);
    }

    /// Whoever has a copy and is not armed has no right to make the vCPU wait for ever.
    pub(super) fn give_up_slow_joiner(&mut self, now: Time) {
        if self.arm_by.take_if(|by| *by <= now).is_some() {
            let seconds = ARM_LIMIT.as_secs();
            let why = format!("it was not taken over within {seconds} s");
            self.primary.handle_copy_failed(now, why);
        }
    }
}
