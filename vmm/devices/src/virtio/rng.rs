//! virtio-rng (Virtio 1.2, section 5.4). The random bytes for the driver's buffers are an input like
//! any other.

use super::{QUEUES, VirtioDevice, chain, wants_interrupt};
use crate::state::{BadState, Reader, Words};
use crate::{InputKind, Output};
use lockstep_memory::ram::GuestMap;
use virtio_queue::{DescriptorChain, Queue, QueueT};

/// The device has one queue; the transport's second stays unused.
const REQUESTQ: usize = 0;
/// Most bytes given for one buffer; the driver must ask again for more.
pub const MAX_REQUEST: usize = 256;

/// The device.
#[derive(Debug, Default)]
pub struct Rng {
    /// Room in the buffer at the head of the queue, bytes; 0 if there is no buffer.
    wanted: usize,
    /// Bytes that arrived for it.
    ready: Vec<u8>,
}

/// Room in the device-writable part of a chain, up to [`MAX_REQUEST`].
fn room<M>(chain: DescriptorChain<M>) -> usize
where
    M: std::ops::Deref + Clone,
    M::Target: vm_memory::GuestMemory,
{
    chain.writable().fold(0usize, |room, descriptor| {
        room.saturating_add(descriptor.len() as usize)
            .min(MAX_REQUEST)
    })
}

impl VirtioDevice for Rng {
    const NAME: &'static str = "virtio-rng";
    const ID: u32 = 4;
    const QUEUE_COUNT: usize = 1;
    const POLLS: bool = false;

    fn process(
        &mut self,
        queues: &mut [Queue; QUEUES],
        mem: &GuestMap,
        _: &mut Vec<Output>,
    ) -> bool {
        let queue = &mut queues[REQUESTQ];
        let mut used = false;
        if !self.ready.is_empty()
            && let Some(chain) = queue.pop_descriptor_chain(mem)
        {
            let head = chain.head_index();
            let written = chain::write(chain, mem, &self.ready);
            used |= queue.add_used(mem, head, written as u32).is_ok();
            self.ready.clear();
            self.wanted = 0;
        }
        for _ in 0..queue.size() {
            if self.wanted > 0 {
                break;
            }
            let Some(chain) = queue.pop_descriptor_chain(mem) else {
                break;
            };
            let head = chain.head_index();
            self.wanted = room(chain);
            if self.wanted == 0 {
                used |= queue.add_used(mem, head, 0).is_ok();
            } else {
                // Leave the buffer in the queue: it is taken when its bytes have arrived.
                let next = queue.next_avail().wrapping_sub(1);
                queue.set_next_avail(next);
            }
        }
        used && wants_interrupt(queue, mem)
    }

    fn reset(&mut self) {
        *self = Rng::default();
    }

    fn save(&self, words: &mut Words) {
        words.put(self.wanted as u64);
        words.put_bytes(&self.ready);
    }

    fn restore(&mut self, words: &mut Reader) -> Result<(), BadState> {
        self.wanted = words.take()?;
        let limit = self.wanted.min(MAX_REQUEST);
        words.unless(self.wanted == limit, "more bytes than it may be asked for")?;
        self.ready = words.bytes(limit)?;
        Ok(())
    }

    /// What the driver waits for, until it has arrived.
    fn room(&self, kind: InputKind) -> Option<usize> {
        let wanted = if self.ready.is_empty() {
            self.wanted
        } else {
            0
        };
        (kind == InputKind::Entropy).then_some(wanted)
    }

    fn receive(&mut self, mut data: Vec<u8>) {
        data.truncate(self.wanted);
        self.ready = data;
    }
}
