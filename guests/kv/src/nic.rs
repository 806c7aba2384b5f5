//! virtio-net as the card of `kv-net`'s network.
//!
//! The machine asks for no notifications (VIRTQ_USED_F_NO_NOTIFY) and looks at the rings at every exit,
//! so frames cost no exits of their own. A frame is handed over and its buffer collected later: the
//! driver's own `send` would spin until it is sent.

use alloc::boxed::Box;
use alloc::vec::Vec;

use guest_rt::abi::MMIO_NET;
use guest_rt::virtio::{OneToOne, transport};
use kv_net::{Card, MAX_FRAME};
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::MmioTransport;

/// Entries of each ring, which is also the most frames under way per direction.
const RING: usize = 64;
/// Bytes of a buffer: a frame after virtio's header (Virtio 1.2, section 5.1.6).
const BUFFER: usize = 1536;

type Buffer = Box<[u8; BUFFER]>;
type Driver = VirtIONetRaw<OneToOne, MmioTransport<'static>, RING>;

/// The network card.
pub struct Nic {
    driver: Driver,
    /// Buffers that the card may fill, by their tokens in the ring.
    receiving: [Option<Buffer>; RING],
    /// Buffers that the card sends and their lengths in bytes, by their tokens in the ring.
    sending: [Option<(Buffer, usize)>; RING],
    free: Vec<Buffer>,
}

impl Nic {
    /// The machine's card; `None` if it has none.
    pub fn new() -> Option<Self> {
        let driver = Driver::new(transport(MMIO_NET)?).ok()?;
        let mut nic = Self {
            driver,
            receiving: [const { None }; RING],
            sending: [const { None }; RING],
            free: (0..RING).map(|_| Box::new([0; BUFFER])).collect(),
        };
        // The server polls, so it needs no interrupts.
        nic.driver.disable_interrupts();
        for _ in 0..RING {
            nic.receive_into(Box::new([0; BUFFER]));
        }
        Some(nic)
    }

    /// Gives `buffer` to the card, to fill it.
    fn receive_into(&mut self, mut buffer: Buffer) {
        // SAFETY: the buffer lives in `receiving`, untouched, until `receive_complete` with the
        // same token.
        let token = unsafe { self.driver.receive_begin(&mut buffer[..]) };
        let token = token.expect("the ring has as many entries as there are buffers");
        self.receiving[usize::from(token)] = Some(buffer);
    }

    /// Collects the buffers of frames that were sent.
    fn collect(&mut self) {
        while let Some(token) = self.driver.poll_transmit() {
            let (buffer, length) = self.sending[usize::from(token)]
                .take()
                .expect("a buffer per token");
            // SAFETY: this is the buffer for which `transmit_begin` gave this token.
            unsafe { self.driver.transmit_complete(token, &buffer[..length]) }
                .expect("the token is the ring's next");
            self.free.push(buffer);
        }
    }
}

impl Card for Nic {
    fn receive(&mut self, buffer: &mut [u8; MAX_FRAME]) -> Option<usize> {
        let token = self.driver.poll_receive()?;
        let mut filled = self.receiving[usize::from(token)]
            .take()
            .expect("a buffer per token");
        // SAFETY: this is the buffer for which `receive_begin` gave this token.
        let (header, length) = unsafe { self.driver.receive_complete(token, &mut filled[..]) }
            .expect("the token is the ring's next");
        // The machine delivers no frames longer than this.
        let length = length.min(MAX_FRAME);
        buffer[..length].copy_from_slice(&filled[header..header + length]);
        self.receive_into(filled);
        Some(length)
    }

    fn room(&mut self) -> usize {
        self.collect();
        self.free.len()
    }

    fn send(&mut self, header: &[u8], payload: &[u8]) {
        let mut buffer = self.free.pop().expect("there is room");
        let start = self
            .driver
            .fill_buffer_header(&mut buffer[..])
            .expect("room for a header");
        let middle = start + header.len();
        let end = middle + payload.len();
        buffer[start..middle].copy_from_slice(header);
        buffer[middle..end].copy_from_slice(payload);
        // SAFETY: the buffer lives in `sending`, untouched, until `transmit_complete` with the
        // same token and length.
        let token = unsafe { self.driver.transmit_begin(&buffer[..end]) };
        let token = token.expect("the ring has as many entries as there are buffers");
        self.sending[usize::from(token)] = Some((buffer, end));
    }
}
