//! A new backup joins: what the runtime does about the copy.

use super::Runtime;
use crate::now;
use crate::primary::copy::{Captured, Copy, FromCopy};
use serde_json::{Value, json};

impl Runtime {
    pub(super) fn start_copy(&mut self) {
        self.copies += 1;
        self.progress = None;
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
            FromCopy::Piece(pages) => {
                if let Some(copy) = &mut self.copy {
                    self.primary.handle_piece(now(), copy.keep(pages));
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
            "longest_silence_ms": self.silence.ms(),
            "copy": self.copy.as_ref().and(self.progress),
            "network": self.network.status(),
            "records": self.watch.wrong(),
            "record": self.record(),
        })
    }

    /// The machine was stopped and copied, or could not be.
    pub(super) fn captured(&mut self, copy: u64, captured: Result<Box<Captured>, String>) {
        // Of one that was given up it means nothing.
        let Some(copy) = self.copy.as_mut().filter(|of| of.is(copy)) else {
            return;
        };
        let mut captured = match captured {
            Ok(captured) => captured,
            Err(why) => return self.primary.handle_copy_failed(now(), why),
        };
        for pages in copy.take(&mut captured) {
            self.primary.handle_piece(now(), copy.keep(pages));
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
