//! A new backup joins: what the runtime does about the copy.

use super::Runtime;
use crate::ft::now;
use crate::ft::primary::copy::{Captured, Copy, FromCopy};
use serde_json::{Value, json};
use std::io;

impl Runtime {
    pub(super) fn start_copy(&mut self) -> io::Result<()> {
        self.copies += 1;
        self.progress = None;
        self.unsent.clear();
        self.copy = Some(Copy::start(
            self.copies,
            self.vcpu.controls.clone(),
            self.waker.clone(),
            self.vcpu.to_runtime(),
        )?);
        Ok(())
    }

    /// Something came of the copy.
    pub(super) fn copied(&mut self, from: FromCopy) {
        match from {
            FromCopy::Send(message) => {
                if let Some(copy) = &mut self.copy {
                    copy.note_sent(&message);
                }
                if let Some(link) = &mut self.link {
                    link.send(&message);
                }
            }
            FromCopy::Round(progress) => {
                self.progress = Some(progress);
                self.events.emit("copying", json!(progress));
            }
        }
    }

    /// How it stands, for `lockstep status`.
    pub(super) fn status(&self) -> Value {
        let now = now();
        let stalls = self.primary.stalls();
        json!({
            "vm": self.header.vm,
            "member": self.me.to_string(),
            "state": self.primary.state(),
            "generation": self.primary.generation(),
            "lag_ms": self.primary.lag(now).as_secs_f64() * 1e3,
            "throttle_percent": self.primary.rest(),
            "held_outputs": self.primary.held_outputs(),
            "window_stalls": stalls.window,
            "gate_stalls": stalls.gate,
            "copy": self.copy.as_ref().and(self.progress),
        })
    }

    /// The machine was stopped and copied, or could not be.
    pub(super) fn captured(&mut self, captured: Result<Box<Captured>, String>) {
        let mut captured = match captured {
            Ok(captured) => captured,
            Err(why) => return self.primary.handle_copy_failed(now(), why),
        };
        if !self.copy.as_mut().is_some_and(|c| c.take(&mut captured)) {
            return;
        }
        let pause_ms = captured.pause.as_secs_f64() * 1e3;
        let progress = captured.progress;
        self.progress = Some(progress);
        self.events.emit(
            "copied",
            json!({"pause_ms": pause_ms, "progress": progress}),
        );
        self.primary.handle_captured(now(), captured.capture);
    }
}
