//! Outputs that wait: on the primary for the gate, on the backup until it goes live.

use lockstep_devices::Output;
use lockstep_machine::world::Outlet;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// Numbered outputs in order, between the vCPU's thread and the runtime.
#[derive(Clone, Debug, Default)]
pub struct HeldOutputs {
    inner: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    outputs: VecDeque<(u64, Output)>,
    /// Outputs up to this number are dropped, also if they come later.
    forgotten: u64,
    /// The last number that came.
    last: u64,
}

impl HeldOutputs {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.inner.lock().expect("nobody panics with this lock")
    }

    /// Adds an output.
    pub fn push(&self, number: u64, output: Output) {
        let mut held = self.lock();
        held.last = number;
        if number > held.forgotten {
            held.outputs.push_back((number, output));
        }
    }

    /// All outputs up to `number` came before, and left elsewhere.
    pub fn begin_after(&self, number: u64) {
        let mut held = self.lock();
        (held.last, held.forgotten) = (number, number);
    }

    /// Number of the last output that came.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// Takes out all outputs up to `number`.
    pub fn take(&self, number: u64) -> Vec<(u64, Output)> {
        let mut held = self.lock();
        let count = held.outputs.partition_point(|(n, _)| *n <= number);
        held.outputs.drain(..count).collect()
    }

    /// Takes out the next one, if its number is not above `number`.
    pub fn pop(&self, number: u64) -> Option<(u64, Output)> {
        self.lock().outputs.pop_front_if(|(n, _)| *n <= number)
    }

    /// Drops all outputs up to `number`, now and when they come.
    pub fn forget(&self, number: u64) {
        self.lock().forgotten = number;
        self.take(number);
    }
}

/// The backup's outlet, which keeps everything.
impl Outlet for HeldOutputs {
    fn emit(&mut self, number: u64, _: u64, output: Output) -> io::Result<()> {
        self.push(number, output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ft_protocol::log::OutputPort;

    fn output(byte: u8) -> Output {
        Output {
            port: OutputPort::Console,
            data: vec![byte],
        }
    }

    #[test]
    fn what_was_released_is_not_kept_whenever_it_comes() {
        let held = HeldOutputs::default();
        held.push(1, output(1));
        held.push(2, output(2));
        held.forget(3);
        held.push(3, output(3));
        held.push(4, output(4));
        assert_eq!(held.last(), 4);
        assert_eq!(held.pop(3), None, "it is not its turn");
        let left: Vec<u64> = held.take(u64::MAX).into_iter().map(|(n, _)| n).collect();
        assert_eq!(left, [4]);
    }
}
