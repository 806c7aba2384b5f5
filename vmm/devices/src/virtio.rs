//! virtio devices behind virtio-mmio (Virtio 1.2).

pub mod chain;
pub mod console;
pub mod mmio;
pub mod net;
pub mod rng;

pub use console::Console;
pub use mmio::Mmio;
pub use net::Net;
pub use rng::Rng;

use crate::state::{BadState, Reader, Words};
use crate::{InputKind, Output};
use lockstep_memory::ram::GuestMap;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Most queues that a device has: one that it fills and one that it empties.
pub const QUEUES: usize = 2;
/// Largest queue a driver may choose, descriptors.
pub const QUEUE_SIZE: u16 = 256;

/// VIRTIO_F_VERSION_1 (Virtio 1.2, section 6): these are not legacy devices.
pub const F_VERSION_1: u64 = 1 << 32;

/// VIRTQ_AVAIL_F_NO_INTERRUPT (Virtio 1.2, section 2.7.6).
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Does the driver want an interrupt for used buffers of this queue?
fn wants_interrupt(queue: &Queue, mem: &GuestMap) -> bool {
    let flags: u16 = mem
        .read_obj(GuestAddress(queue.avail_ring()))
        .unwrap_or(AVAIL_F_NO_INTERRUPT);
    flags & AVAIL_F_NO_INTERRUPT == 0
}

/// What distinguishes one virtio device from another.
pub trait VirtioDevice: Send {
    /// The component's name.
    const NAME: &'static str;

    /// Device ID (Virtio 1.2, section 5).
    const ID: u32;

    /// How many queues it has, up to [`QUEUES`].
    const QUEUE_COUNT: usize = QUEUES;

    /// Feature bits offered.
    fn features(&self) -> u64 {
        F_VERSION_1
    }

    /// Device-specific configuration space.
    fn config(&self) -> &[u8] {
        &[]
    }

    /// Does the device look at its rings at every position? Then a driver's notifications would be
    /// wasted exits.
    const POLLS: bool;

    /// Moves what can be moved between the rings and the world. Returns true if a buffer was used and
    /// the driver wants an interrupt for it.
    fn process(
        &mut self,
        queues: &mut [Queue; QUEUES],
        mem: &GuestMap,
        outputs: &mut Vec<Output>,
    ) -> bool;

    /// The driver reset the device.
    fn reset(&mut self);

    /// As [`crate::Component::save`], without the transport's state.
    fn save(&self, words: &mut Words);

    /// As [`crate::Component::restore`].
    fn restore(&mut self, words: &mut Reader) -> Result<(), BadState>;

    /// As [`crate::Device::room`]; the driver is up.
    fn room(&self, kind: InputKind) -> Option<usize>;

    /// Input arrives, of the kind that the device takes; what finds no room is lost.
    fn receive(&mut self, data: Vec<u8>);
}
