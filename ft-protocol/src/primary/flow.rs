//! The log and the outputs: sending, acknowledgements, releases and reports, and what makes the vCPU
//! wait.

use super::{Doubt, LOG_WINDOW_BYTES, LogMark, Phase, Primary, PrimaryAction};
use crate::Time;
use crate::mutant::Mutant;
use crate::reason::Loss;
use crate::wire::Message;

impl Primary {
    /// The log's entries up to `seq` can be sent, `bytes` bytes of them since entry 1, and are where a
    /// replay would look for them.
    ///
    /// # Panics
    /// If the log became shorter.
    pub fn handle_appended(&mut self, now: Time, seq: u64, bytes: u64) {
        assert!(
            seq >= self.log.seq && bytes >= self.log.bytes,
            "a log only grows"
        );
        self.log = LogMark { seq, bytes };
        // Copied, but not armed yet.
        let unarmed = self.copied().is_some();
        if self.phase == Phase::Paired || unarmed {
            self.lag.made(now, seq);
            self.send_log(seq);
            if !unarmed {
                self.tell_released();
            }
        }
        self.note_stalls();
        self.try_finish(now);
    }

    /// The guest emitted output `number`, of `bytes` bytes. It may leave when entry `needs` is
    /// acknowledged.
    ///
    /// # Panics
    /// See [`Gate::queue`].
    pub fn handle_output(&mut self, _now: Time, number: u64, needs: u64, bytes: u64) {
        let passed = self.gate.passed();
        self.gate.queue(number, needs, bytes);
        if self.has(Mutant::ReleaseBeforeAck) {
            self.gate.ack(needs);
        }
        self.release(passed);
        self.note_stalls();
    }

    /// The backends took every output up to this one.
    ///
    /// # Panics
    /// If they took one that was not released.
    pub fn handle_released(&mut self, now: Time, up_to: u64) {
        assert!(
            up_to <= self.gate.passed(),
            "output {up_to} left before it was let go"
        );
        self.released = self.released.max(up_to);
        self.try_finish(now);
        self.try_hand_over();
        self.try_arm();
    }

    /// Releases the outputs that the gate lets pass, if there are more than before. In doubt, they wait
    /// for the answer.
    pub(super) fn release(&mut self, before: u64) {
        let up_to = self.gate.passed();
        if up_to > before && self.doubt == Doubt::No {
            self.push(PrimaryAction::Release { up_to });
        }
    }

    /// Reports to the backup which outputs have left since the last report. Returns whether there were
    /// any.
    pub(super) fn tell_released(&mut self) -> bool {
        let news = self.released > self.told;
        if news {
            self.told = self.released;
            self.send(Message::Released { output: self.told });
        }
        news
    }

    pub(super) fn acknowledged(&mut self, now: Time, received: u64, consumed: u64, executed: u64) {
        // A backup that joined does not count the log before its copy.
        let consumed = self.base_bytes.saturating_add(consumed);
        if received > self.log.seq || consumed > self.log.bytes || executed > received {
            return self.lose(Loss::Broke("it acknowledged what it was never sent".into()));
        }
        self.consumed = self.consumed.max(consumed);
        self.lag.executed(executed);
        self.agreed(received);
        let passed = self.gate.passed();
        self.gate.ack(received);
        self.release(passed);
        self.note_stalls();
        self.try_finish(now);
        self.try_hand_over();
        self.try_arm();
    }

    /// Bytes of the log that the backup's vCPU has not taken yet.
    pub fn lag_bytes(&self) -> u64 {
        self.log.bytes - self.consumed
    }

    /// Checks what makes the vCPU wait, and counts it if it is new.
    pub(super) fn note_stalls(&mut self) {
        let (window, gate) = (self.lag_bytes() > LOG_WINDOW_BYTES, self.gate.is_full());
        self.stalls.window += u64::from(window && !self.stalled.0);
        self.stalls.gate += u64::from(gate && !self.stalled.1);
        self.stalled = (window, gate);
    }
}
