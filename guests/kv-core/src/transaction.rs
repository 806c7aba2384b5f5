//! MULTI: commands that are queued until EXEC.

use crate::buffer::{Budget, Buffer, OutOfMemory};
use crate::number::Digits;
use crate::resp::Command;

/// Most bytes around an argument.
const ARGUMENT_FRAME: usize = 32;

/// A connection's transaction.
#[derive(Debug, Default)]
pub struct Transaction {
    /// The commands, in the form in which clients send them.
    commands: Buffer,
    count: usize,
    open: bool,
    failed: bool,
}

impl Transaction {
    /// Are commands queued instead of executed?
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// How many commands are queued; `None` if the transaction is not open.
    pub fn queued(&self) -> Option<usize> {
        self.open.then_some(self.count)
    }

    /// Did a command fail to be queued? Then EXEC executes none.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// MULTI.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Notes that a command could not be queued.
    pub fn fail(&mut self) {
        self.failed |= self.open;
    }

    /// Queues a command.
    pub fn queue(&mut self, command: Command, budget: &mut Budget) -> Result<(), OutOfMemory> {
        let length = |argument: &[u8]| argument.len() + ARGUMENT_FRAME;
        let arguments: usize = command.args_from(0).map(length).sum();
        self.commands.reserve(ARGUMENT_FRAME + arguments, budget)?;
        self.push(b"*", command.len());
        for argument in command.args_from(0) {
            self.push(b"$", argument.len());
            self.commands.push(argument);
            self.commands.push(b"\r\n");
        }
        self.count += 1;
        Ok(())
    }

    fn push(&mut self, kind: &[u8], count: usize) {
        self.commands.push(kind);
        self.commands.push(Digits::of(count as i64).as_bytes());
        self.commands.push(b"\r\n");
    }

    /// Ends it, without executing anything.
    pub fn discard(&mut self, budget: &mut Budget) {
        self.commands.trim(true, budget);
        *self = Self::default();
    }

    /// Ends it. Returns the commands, whose memory must be given back, and their number.
    pub fn take(&mut self) -> (Buffer, usize) {
        let Self {
            commands, count, ..
        } = core::mem::take(self);
        (commands, count)
    }
}
