//! The world outside the machine's edge: what gathers its inputs, and what performs its outputs.

use crate::edge::View;
use lockstep_devices::Output;
use std::io;
use std::time::Duration;

/// What a look at the world found for a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Guest time, nanoseconds. Never goes back.
    pub now_ns: u64,
    /// The guest must get the time here, even if nothing else has come for it.
    pub clock: bool,
    /// The most frames that may be taken in here.
    pub frames: usize,
    /// The most bytes of console input that may be taken in here.
    pub console: usize,
}

/// Live backends: clock, TAP and console.
pub trait Inputs: Send {
    /// Looks what there is for this position. Returns at once, unless the guest waits (`view.wait`) and this
    /// may take until a guest time, `wait_until`: then when something has come or is due, or for no reason.
    fn look(&mut self, view: &View, wait_until: Option<u64>) -> io::Result<Looked>;

    /// Puts the next frame into `buffer`, which has room for any, and a byte; gives its length. None: there
    /// is none.
    fn frame(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Puts console input into `buffer`, as much as there is and finds room. None: there is none.
    fn console(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Fills `buffer` with random bytes.
    fn entropy(&mut self, buffer: &mut [u8]);

    /// Guest time, nanoseconds. Never goes back.
    fn now_ns(&mut self) -> u64;
}

/// Where outputs go after they were written to the log.
pub trait Outlet: Send {
    /// Takes output `number`, whose mark is entry `seq` of the log.
    ///
    /// # Errors
    /// If the output cannot leave any more.
    fn emit(&mut self, number: u64, seq: u64, output: &Output) -> io::Result<()>;

    /// Do outputs wait here for the log that leads to them? Then it is handed on where they were emitted.
    fn needs_log(&self) -> bool {
        false
    }

    /// The log is about to be handed on, with everything that led to the outputs so far.
    fn hand_on(&mut self) {}

    /// Something of the log is not handed on yet while the guest runs on; it was all handed on before.
    fn log_waits(&self) {}

    /// Must the machine wait before it runs on? If so, the log's new entries are handed on, then
    /// [`Outlet::wait`] is called.
    fn holds(&self) -> bool {
        false
    }

    /// The machine waited for its inputs for this time.
    fn idled(&self, _time: Duration) {}

    /// Waits until the machine may run on. Returns whether it had to wait.
    fn wait(&self) -> bool {
        false
    }

    /// Called when the machine was asked to rest and everything up to entry `seq` was handed on. Blocks
    /// until the machine shall run on.
    fn park(&self, _seq: u64) {}
}
