//! The world outside the machine's edge: what gathers its inputs, and what performs its outputs.

use crate::edge::{Input, View};
use lockstep_devices::Output;
use std::collections::VecDeque;

/// Live backends: clock, TAP and console.
pub trait Inputs: Send {
    /// Puts the inputs for this position into `queue`. If the guest waits (`view.wait`) and `may_wait`
    /// is set, it may block until an input has come or is due, or return earlier. Otherwise it returns
    /// at once.
    fn gather(
        &mut self,
        view: &View,
        may_wait: bool,
        queue: &mut VecDeque<Input>,
    ) -> std::io::Result<()>;

    /// Guest time, nanoseconds. Never goes back.
    fn now_ns(&mut self) -> u64;
}

/// Where outputs go after they were written to the log.
pub trait Outlet: Send {
    /// Takes output `number`, whose mark is entry `seq` of the log.
    ///
    /// # Errors
    /// If the output cannot leave any more.
    fn emit(&mut self, number: u64, seq: u64, output: Output) -> std::io::Result<()>;

    /// Must the machine wait before it runs on? If so, the log's new entries are handed on, then
    /// [`Outlet::wait`] is called.
    fn holds(&self) -> bool {
        false
    }

    /// Waits until the machine may run on.
    fn wait(&self) {}

    /// Called when the machine was asked to rest and everything up to entry `seq` was handed on. Blocks
    /// until the machine shall run on.
    fn park(&self, _seq: u64) {}
}
