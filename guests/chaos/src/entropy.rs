//! virtio-rng (Virtio 1.2, section 5.4). Waits for random bytes without spinning, as the machine may
//! need a while.

use alloc::boxed::Box;

use guest_rt::abi::MMIO_RNG;
use guest_rt::clock;
use guest_rt::virtio::{OneToOne, transport};
use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::mmio::MmioTransport;

/// Entries of the ring.
const RING: usize = 8;
/// Most bytes requested at once.
pub const MAX_BYTES: usize = 64;
/// Longest idling before it looks again, nanoseconds.
const LOOK_NS: u64 = 1_000_000;

/// The random number generator.
pub struct Entropy {
    transport: MmioTransport<'static>,
    queue: VirtQueue<OneToOne, RING>,
    buffer: Box<[u8; MAX_BYTES]>,
}

impl Entropy {
    /// The machine's device; `None` if it has none.
    pub fn new() -> Option<Self> {
        let mut transport = transport(MMIO_RNG)?;
        transport.begin_init(Feature::VERSION_1);
        let queue = VirtQueue::new(&mut transport, 0, false, false).ok()?;
        transport.finish_init();
        Some(Self {
            transport,
            queue,
            buffer: Box::new([0; MAX_BYTES]),
        })
    }

    /// Requests `bytes` random bytes and waits for them. There may be fewer.
    pub fn read(&mut self, bytes: usize) -> &[u8] {
        let buffer = &mut self.buffer[..bytes];
        // SAFETY: the buffer lives in `self`, untouched, until `pop_used` below.
        let token = unsafe { self.queue.add(&[], &mut [&mut *buffer]) };
        let token = token.expect("the ring is empty between two calls");
        if self.queue.should_notify() {
            self.transport.notify(0);
        }
        loop {
            let seen = clock::activity();
            if self.queue.can_pop() {
                break;
            }
            clock::idle(seen, clock::now_ns() + LOOK_NS);
        }
        // SAFETY: this is the buffer for which `add` gave this token.
        let came = unsafe { self.queue.pop_used(token, &[], &mut [&mut *buffer]) };
        let came = came.expect("the token is the ring's next") as usize;
        self.transport.ack_interrupt();
        &self.buffer[..came.min(bytes)]
    }
}
