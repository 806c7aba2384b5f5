//! virtio-net without a protocol: broadcasts frames of an unused type, and reads the frames that
//! arrive.

use alloc::boxed::Box;

use guest_rt::abi::MMIO_NET;
use guest_rt::boot_info;
use guest_rt::virtio::{OneToOne, transport};
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::random::Random;

/// Entries of each ring, which is also the most frames under way per direction.
const RING: usize = 16;
/// Bytes of a buffer: a frame of 1514 bytes after virtio's header (Virtio 1.2, section 5.1.6).
const BUFFER: usize = 1536;
/// Least and most bytes of a frame that is sent, Ethernet header included.
const FRAME: core::ops::Range<u64> = 60..1000;
/// EtherType for local experiments (IEEE 802).
const ETHERTYPE: u16 = 0x88b5;

type Buffer = Box<[u8; BUFFER]>;

/// The network card.
pub struct Nic {
    driver: VirtIONetRaw<OneToOne, MmioTransport<'static>, RING>,
    /// Buffers that the card may fill, by their tokens in the ring.
    receiving: [Option<Buffer>; RING],
    /// Buffers that the card sends and their lengths in bytes, by their tokens in the ring.
    sending: [Option<(Buffer, usize)>; RING],
}

impl Nic {
    /// The machine's card; `None` if it has none.
    pub fn new() -> Option<Self> {
        let driver = VirtIONetRaw::new(transport(MMIO_NET)?).ok()?;
        let mut nic = Self {
            driver,
            receiving: [const { None }; RING],
            sending: [const { None }; RING],
        };
        for _ in 0..RING {
            nic.receive_into(Box::new([0; BUFFER]));
        }
        Some(nic)
    }

    /// Sends a frame of random length and content, unless all entries of the ring are in use.
    pub fn send(&mut self, random: &mut Random) {
        self.collect();
        if !self.driver.can_send() || self.sending.iter().all(Option::is_some) {
            return;
        }
        let mut buffer: Buffer = Box::new([0; BUFFER]);
        let header = self.driver.fill_buffer_header(&mut buffer[..]);
        let header = header.expect("room for a header");
        let end = header + random.between(FRAME.start, FRAME.end) as usize;
        let frame = &mut buffer[header..end];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&boot_info().mac);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        random.fill(&mut frame[14..]);
        // SAFETY: the buffer lives in `sending`, untouched, until `transmit_complete` with the
        // same token and length.
        let token = unsafe { self.driver.transmit_begin(&buffer[..end]) };
        let token = token.expect("the ring has a free entry");
        self.sending[usize::from(token)] = Some((buffer, end));
    }

    /// Hands every received frame to `look`, and lowers the card's interrupt line.
    pub fn receive(&mut self, mut look: impl FnMut(&[u8])) {
        self.driver.ack_interrupt();
        self.collect();
        while let Some(token) = self.driver.poll_receive() {
            let buffer = self.receiving[usize::from(token)].take();
            let mut buffer = buffer.expect("a buffer per token");
            // SAFETY: this is the buffer for which `receive_begin` gave this token.
            let came = unsafe { self.driver.receive_complete(token, &mut buffer[..]) };
            let (header, length) = came.expect("the token is the ring's next");
            look(&buffer[header..header + length]);
            self.receive_into(buffer);
        }
    }

    /// Drops the buffers of frames that were sent.
    fn collect(&mut self) {
        while let Some(token) = self.driver.poll_transmit() {
            let sent = self.sending[usize::from(token)].take();
            let (buffer, length) = sent.expect("a buffer per token");
            // SAFETY: this is the buffer for which `transmit_begin` gave this token.
            unsafe { self.driver.transmit_complete(token, &buffer[..length]) }
                .expect("the token is the ring's next");
        }
    }

    /// Gives `buffer` to the card, to fill it.
    fn receive_into(&mut self, mut buffer: Buffer) {
        // SAFETY: the buffer lives in `receiving`, untouched, until `receive_complete` with the
        // same token.
        let token = unsafe { self.driver.receive_begin(&mut buffer[..]) };
        let token = token.expect("the ring has as many entries as there are buffers");
        self.receiving[usize::from(token)] = Some(buffer);
    }
}
