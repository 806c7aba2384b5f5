//! Outputs that wait: on the primary for the gate, on the backup until it goes live.

use ft_protocol::log::OutputPort;
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

    /// Drops all outputs up to `number`, now and when they come.
    pub fn forget(&self, number: u64) {
        self.lock().forgotten = number;
        self.take(number);
    }
}

/// The backup's outlet, which keeps everything.
impl Outlet for HeldOutputs {
    fn emit(&mut self, number: u64, _: u64, output: &Output) -> io::Result<()> {
        self.push(number, output.clone());
        Ok(())
    }
}

/// Outputs on their way from the vCPU's thread to the gate: those that one piece of the log leads to.
#[derive(Debug, Default)]
pub struct Batch {
    outputs: Vec<InBatch>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct InBatch {
    number: u64,
    seq: u64,
    port: OutputPort,
    len: usize,
    /// Where its bytes end.
    end: usize,
}

/// An output that waits at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// Its number.
    pub number: u64,
    /// Its entry in the log.
    pub seq: u64,
    /// Where it goes.
    pub port: OutputPort,
    /// Its bytes.
    pub data: &'a [u8],
}

impl Batch {
    /// Adds an output.
    pub fn push(&mut self, number: u64, seq: u64, output: &Output) {
        self.bytes.extend_from_slice(&output.data);
        self.outputs.push(InBatch {
            number,
            seq,
            port: output.port,
            len: output.data.len(),
            end: self.bytes.len(),
        });
    }

    /// Has it no outputs?
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Forgets all, and keeps the room.
    pub fn clear(&mut self) {
        self.outputs.clear();
        self.bytes.clear();
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Waiting<'_>> {
        (0..self.outputs.len()).filter_map(|index| self.get(index))
    }

    fn get(&self, index: usize) -> Option<Waiting<'_>> {
        self.outputs.get(index).map(|output| Waiting {
            number: output.number,
            seq: output.seq,
            port: output.port,
            data: &self.bytes[output.end - output.len..output.end],
        })
    }

    /// How many they are, and bytes of them.
    pub fn size(&self) -> (usize, usize) {
        (self.outputs.len(), self.bytes.len())
    }
}

/// Outputs that wait until the gate lets them go, oldest first. The runtime's own.
#[derive(Debug, Default)]
pub struct AtGate {
    batches: VecDeque<Arc<Batch>>,
    /// How many of the first batch have left.
    left: usize,
}

impl AtGate {
    /// More come.
    pub fn push(&mut self, batch: Arc<Batch>) {
        self.batches.push_back(batch);
    }

    /// The next one, if it is not beyond `number`.
    pub fn next(&self, number: u64) -> Option<Waiting<'_>> {
        let next = self.batches.front()?.get(self.left)?;
        (next.number <= number).then_some(next)
    }

    /// The next output has left.
    pub fn note_left(&mut self) {
        self.left += 1;
        let all = |batch: &mut Arc<Batch>| batch.size().0 == self.left;
        if self.batches.pop_front_if(all).is_some() {
            self.left = 0;
        }
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
        let left: Vec<u64> = held.take(u64::MAX).into_iter().map(|(n, _)| n).collect();
        assert_eq!(left, [4]);
    }

    #[test]
    fn outputs_leave_the_gate_in_order_across_batches() {
        let mut gate = AtGate::default();
        let mut numbers = 1..;
        for size in [2, 1, 3] {
            let mut batch = Batch::default();
            for number in numbers.by_ref().take(size) {
                batch.push(number, 10 * number, &output(number as u8));
            }
            gate.push(Arc::new(batch));
        }
        let mut left = Vec::new();
        for up_to in [0, 1, 4, 4, 9] {
            while let Some(next) = gate.next(up_to) {
                assert_eq!(next.data, [next.number as u8]);
                left.push((up_to, next.seq));
                gate.note_left();
            }
        }
        let wanted = [(1, 10), (4, 20), (4, 30), (4, 40), (9, 50), (9, 60)];
        assert_eq!(left, wanted);
        assert!(gate.batches.is_empty(), "their buffers are free");
    }
}
