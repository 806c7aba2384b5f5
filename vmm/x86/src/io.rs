//! What one instruction exchanges with devices.
//!
//! An instruction that reaches a device is run alone. What it writes leaves as exits when it has
//! completed. At a read without an answer yet it stops with [`Stop::Asks`], and is run again from its
//! beginning with one answer more. So an instruction may make several accesses, and its handler needs no
//! code for that.

use crate::op::Done;
use crate::state::{Cpu, Stop};
use lockstep_vcpu::Exit;
use std::collections::VecDeque;

/// What one instruction exchanges with devices.
#[derive(Debug, Default)]
pub struct Io {
    /// It runs alone: devices and pages with code may be reached.
    pub alone: bool,
    /// The answers that it has got, in the order of its reads.
    answers: Vec<[u8; 8]>,
    /// How many of them this run has used.
    used: usize,
    /// The read that waits for an answer.
    asks: Option<Exit>,
    /// Exits that it made, or makes when it has completed.
    exits: VecDeque<Exit>,
    /// Physical pages of code that it wrote to.
    pub wrote_code: Vec<u64>,
}

impl Io {
    /// Before each run of the instruction.
    pub fn begin(&mut self) {
        self.alone = true;
        self.used = 0;
        self.exits.clear();
    }

    /// After the instruction is over, one way or the other.
    pub fn end(&mut self) {
        self.alone = false;
        self.answers.clear();
        self.asks = None;
    }

    /// The next exit that it made.
    pub fn next_exit(&mut self) -> Option<Exit> {
        self.exits.pop_front()
    }

    /// The read that it waits for.
    pub fn asks(&self) -> Option<Exit> {
        self.asks
    }

    /// Gives what was read.
    ///
    /// # Panics
    /// If it does not wait for this many bytes.
    pub fn answer(&mut self, data: &[u8]) {
        let len = match self.asks.take() {
            Some(Exit::PioIn { len, .. } | Exit::MmioRead { len, .. }) => len,
            other @ (None
            | Some(
                Exit::PioOut { .. }
                | Exit::MmioWrite { .. }
                | Exit::Hlt
                | Exit::Shutdown
                | Exit::Steps
                | Exit::Interruptible,
            )) => panic!("no instruction waits for an answer: {other:?}"),
        };
        assert_eq!(data.len(), len);
        let mut answer = [0; 8];
        answer[..len].copy_from_slice(data);
        self.answers.push(answer);
    }
}

impl Cpu {
    /// Goes on only if the instruction runs alone.
    pub fn alone(&mut self) -> Done {
        match self.io.alone {
            true => Ok(()),
            false => self.raise(Stop::Alone),
        }
    }

    /// Reads from a device.
    pub fn ask(&mut self, exit: Exit) -> Done<[u8; 8]> {
        self.alone()?;
        if let Some(answer) = self.io.answers.get(self.io.used) {
            self.io.used += 1;
            return Ok(*answer);
        }
        self.io.asks = Some(exit);
        self.raise(Stop::Asks)
    }

    /// Makes an exit when the instruction has completed. The caller has seen that it runs alone.
    pub fn tell(&mut self, exit: Exit) {
        debug_assert!(self.io.alone);
        self.io.exits.push_back(exit);
    }
}
