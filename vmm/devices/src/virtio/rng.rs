//! virtio-rng (Virtio 1.2, section 5.4): the driver's buffers are filled with random bytes, which are
//! an input like any other.

use super::{Device, F_VERSION_1, QUEUES, chain, wants_interrupt};
use crate::{BadState, Output};
use bincode::{Decode, Encode};
use lockstep_memory::ram::GuestMap;
use virtio_queue::{DescriptorChain, Queue, QueueT};

/// The device has one queue; the transport's second stays unused.
const REQUESTQ: usize = 0;
/// Most bytes given for one buffer; the driver asks again for more.
pub const MAX_REQUEST: usize = 256;

/// The device. Plain data: it is its own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rng {
    /// Bytes that the buffer at the head of the queue has room for.
    wanted: usize,
    /// Bytes that came for it.
    ready: Vec<u8>,
}

impl Rng {
    /// Could the device be in this state?
    pub fn validate(&self) -> Result<(), BadState> {
        let sound = self.wanted <= MAX_REQUEST && self.ready.len() <= self.wanted;
        BadState::unless(sound, "virtio-rng", "more bytes than it may be asked for")
    }

    /// How many random bytes to give to [`Rng::receive`].
    pub fn wanted(&self) -> usize {
        match self.ready.is_empty() {
            true => self.wanted,
            false => 0,
        }
    }

    /// Random bytes arrive.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.ready = bytes[..bytes.len().min(self.wanted)].to_vec();
    }

    /// Bytes that are on their way into the driver's buffer.
    pub fn waiting(&self) -> &[u8] {
        &self.ready
    }
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

impl Device for Rng {
    const NAME: &'static str = "virtio-rng";
    const ID: u32 = 4;
    const QUEUE_COUNT: usize = 1;
    const POLLS: bool = false;

    fn features(&self) -> u64 {
        F_VERSION_1
    }

    fn config(&self) -> &[u8] {
        &[]
    }

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
                // Only looked at: it is taken when its bytes have come.
                let next = queue.next_avail().wrapping_sub(1);
                queue.set_next_avail(next);
            }
        }
        used && wants_interrupt(queue, mem)
    }

    fn reset(&mut self) {
        *self = Rng::default();
    }
}
