//! The output gate: the Output Rule (paper, section 2.2; invariant I2).

use std::collections::VecDeque;

/// Outputs that may wait at once. With more, the vCPU waits ([`Gate::is_full`]). One exit of the guest
/// may still add its outputs, at most a ring of them.
pub const GATE_OUTPUTS: usize = 4096;
/// The same limit in bytes: as much as the log may be ahead of the backup.
pub const GATE_BYTES: u64 = 16 << 20;

/// Holds outputs until the backup has acknowledged every log entry that led to them.
///
/// The gate knows numbers and sizes only; the runtime has the bytes. Outputs are numbered from 1 and
/// pass in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gate {
    held: VecDeque<Held>,
    /// Bytes of the outputs that wait.
    held_bytes: u64,
    /// Number of the last output that was queued.
    queued: u64,
    /// Number of the last output that may leave.
    passed: u64,
    /// The log entry that the last output needs; this number never goes down.
    needed: u64,
    acked: u64,
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Held {
    number: u64,
    needs: u64,
    bytes: u64,
}

impl Gate {
    /// A closed gate without outputs.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Queues an output of `bytes` bytes, which may leave when log entry `needs` is acknowledged.
    ///
    /// # Panics
    /// If its number is not the next, or it needs an earlier entry than the output before it.
    pub fn queue(&mut self, number: u64, needs: u64, bytes: u64) {
        assert_eq!(number, self.queued + 1, "outputs come in order");
        assert!(
            needs >= self.needed,
            "a later output needs no less of the log"
        );
        (self.queued, self.needed) = (number, needs);
        self.held.push_back(Held {
            number,
            needs,
            bytes,
        });
        self.held_bytes += bytes;
        self.advance();
    }

    /// The backup has every entry up to `seq`. An older acknowledgement is ignored.
    pub fn ack(&mut self, seq: u64) {
        self.acked = self.acked.max(seq);
        self.advance();
    }

    /// An open gate that `outputs` outputs have passed already.
    pub fn opened_after(outputs: u64) -> Gate {
        Gate {
            queued: outputs,
            passed: outputs,
            open: true,
            ..Gate::default()
        }
    }

    /// From now on outputs wait for acknowledgements again.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// The log entry that the last output needs.
    pub fn needed(&self) -> u64 {
        self.needed
    }

    /// From now on outputs need no acknowledgement: this side goes on alone, by right.
    pub fn open(&mut self) {
        self.open = true;
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(&Held {
            number,
            needs,
            bytes,
        }) = self.held.front()
        {
            if !self.open && needs > self.acked {
                break;
            }
            assert_eq!(number, self.passed + 1, "outputs leave in order");
            self.passed = number;
            self.held_bytes -= bytes;
            self.held.pop_front();
        }
    }

    /// Number of the last output that may leave; 0 before the first.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Number of the last output that was queued; 0 before the first.
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// The last entry that the backup acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Number of outputs that wait.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes of the outputs that wait.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Must the vCPU wait until outputs have left?
    pub fn is_full(&self) -> bool {
        self.held.len() >= GATE_OUTPUTS || self.held_bytes >= GATE_BYTES
    }
}

#[cfg(test)]
mod tests;
