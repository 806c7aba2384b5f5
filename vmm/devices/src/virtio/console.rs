//! virtio-console (Virtio 1.2, section 5.3): one port, without multiport or size.

use super::{QUEUES, VirtioDevice, chain, wants_interrupt};
use crate::state::{BadState, Reader, Words};
use crate::{InputKind, Output};
use ft_protocol::log::OutputPort;
use lockstep_memory::ram::GuestMap;
use std::collections::VecDeque;
use virtio_queue::{Queue, QueueT};

const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

/// Most bytes that one transmit buffer may hold; a longer one is dropped as a whole.
pub const MAX_WRITE: usize = 64 << 10;
/// Most input bytes that wait for a buffer of the driver.
pub const INPUT_BYTES: usize = 4096;

/// The device.
#[derive(Debug, Default)]
pub struct Console {
    /// Input that is not in a buffer of the driver yet.
    input: VecDeque<u8>,
}

impl VirtioDevice for Console {
    const NAME: &'static str = "virtio-console";
    const ID: u32 = 3;
    const POLLS: bool = false;

    fn process(
        &mut self,
        queues: &mut [Queue; QUEUES],
        mem: &GuestMap,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let mut interrupt = false;
        let queue = &mut queues[TRANSMITQ];
        let mut used = false;
        // At most a ring's length at a time: the driver may move its ring while the device reads it.
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop_descriptor_chain(mem) else {
                break;
            };
            let head = chain.head_index();
            if let Some(data) = chain::read(chain, mem, MAX_WRITE).filter(|d| !d.is_empty()) {
                outputs.push(Output {
                    port: OutputPort::Console,
                    data,
                });
            }
            used |= queue.add_used(mem, head, 0).is_ok();
        }
        interrupt |= used && wants_interrupt(queue, mem);
        let queue = &mut queues[RECEIVEQ];
        let mut used = false;
        for _ in 0..queue.size() {
            if self.input.is_empty() {
                break;
            }
            let Some(chain) = queue.pop_descriptor_chain(mem) else {
                break;
            };
            let head = chain.head_index();
            let written = chain::write(chain, mem, self.input.make_contiguous());
            self.input.drain(..written);
            used |= queue.add_used(mem, head, written as u32).is_ok();
        }
        interrupt | (used && wants_interrupt(queue, mem))
    }

    fn reset(&mut self) {
        self.input.clear();
    }

    fn save(&self, words: &mut Words) {
        let (front, back) = self.input.as_slices();
        words.put_bytes(&[front, back].concat());
    }

    fn restore(&mut self, words: &mut Reader) -> Result<(), BadState> {
        self.input = words.bytes(INPUT_BYTES)?.into();
        Ok(())
    }

    fn room(&self, kind: InputKind) -> Option<usize> {
        (kind == InputKind::Console).then(|| INPUT_BYTES - self.input.len())
    }

    fn receive(&mut self, data: Vec<u8>) {
        let room = INPUT_BYTES - self.input.len();
        self.input.extend(data.into_iter().take(room));
    }
}
