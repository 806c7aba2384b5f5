//! virtio-net as smoltcp's device.
//!
//! The machine never wants a kick for frames (VIRTQ_USED_F_NO_NOTIFY) and looks at the rings at
//! every exit, so frames cost no exit of their own. A frame to send is handed over and its buffer
//! collected later: the driver's own `send` would spin until then.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;

use guest_rt::abi::MMIO_NET;
use guest_rt::virtio::{OneToOne, transport};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::MmioTransport;

/// Entries of each ring, and so frames under way per direction.
const RING: usize = 64;
/// Bytes of a frame: an Ethernet header and 1500.
const MAX_FRAME: usize = 1514;
/// Bytes of a buffer: a frame behind virtio's header (virtio 1.2, 5.1.6).
const BUFFER: usize = 1536;

type Buffer = Box<[u8; BUFFER]>;
type Driver = VirtIONetRaw<OneToOne, MmioTransport<'static>, RING>;

/// The network card.
pub struct Nic(RefCell<Rings>);

struct Rings {
    driver: Driver,
    /// By token of the ring: what the card may fill.
    receiving: [Option<Buffer>; RING],
    /// By token of the ring: what the card sends, and how many bytes of it.
    sending: [Option<(Buffer, usize)>; RING],
    free: Vec<Buffer>,
    /// Whether work was left undone for want of a free buffer.
    starved: bool,
}

impl Nic {
    /// The machine's card; `None` if it has none.
    pub fn new() -> Option<Self> {
        let driver = Driver::new(transport(MMIO_NET)?).ok()?;
        let mut rings = Rings {
            driver,
            receiving: [const { None }; RING],
            sending: [const { None }; RING],
            free: (0..RING).map(|_| Box::new([0; BUFFER])).collect(),
            starved: false,
        };
        // The server polls: it wants no interrupt.
        rings.driver.disable_interrupts();
        for _ in 0..RING {
            rings.receive_into(Box::new([0; BUFFER]));
        }
        Some(Self(RefCell::new(rings)))
    }

    /// Whether, since the last call, something was left undone because all buffers were on their
    /// way. They are free again after the next exit: idling without an end would miss that.
    pub fn take_starved(&mut self) -> bool {
        core::mem::take(&mut self.0.get_mut().starved)
    }
}

impl Rings {
    /// Lets the card fill `buffer`.
    fn receive_into(&mut self, mut buffer: Buffer) {
        // SAFETY: the buffer lives in `receiving`, untouched, until `receive_complete` with the
        // same token.
        let token = unsafe { self.driver.receive_begin(&mut buffer[..]) };
        let token = token.expect("the ring has as many entries as there are buffers");
        self.receiving[usize::from(token)] = Some(buffer);
    }

    /// The next received frame: its buffer, where it begins, and its length.
    fn received(&mut self) -> Option<(Buffer, usize, usize)> {
        let token = self.driver.poll_receive()?;
        let mut buffer = self.receiving[usize::from(token)]
            .take()
            .expect("a buffer per token");
        // SAFETY: it is the buffer that `receive_begin` gave this token for.
        let (header, length) = unsafe { self.driver.receive_complete(token, &mut buffer[..]) }
            .expect("the token is the ring's next");
        Some((buffer, header, length))
    }

    /// Collects the buffers of frames that are sent.
    fn collect(&mut self) {
        while let Some(token) = self.driver.poll_transmit() {
            let (buffer, length) = self.sending[usize::from(token)]
                .take()
                .expect("a buffer per token");
            // SAFETY: these are the bytes that `transmit_begin` gave this token for.
            unsafe { self.driver.transmit_complete(token, &buffer[..length]) }
                .expect("the token is the ring's next");
            self.free.push(buffer);
        }
    }

    /// Whether a frame can be sent.
    fn can_send(&mut self) -> bool {
        self.collect();
        self.starved |= self.free.is_empty();
        !self.free.is_empty()
    }

    /// Sends the frame of `length` bytes that `fill` writes.
    fn send<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self
            .free
            .pop()
            .expect("a token is given only with a free buffer");
        let header = self
            .driver
            .fill_buffer_header(&mut buffer[..])
            .expect("room for a header");
        let end = header + length;
        let result = fill(&mut buffer[header..end]);
        // SAFETY: the buffer lives in `sending`, untouched, until `transmit_complete` with the
        // same token and length.
        let token = unsafe { self.driver.transmit_begin(&buffer[..end]) };
        let token = token.expect("the ring has as many entries as there are buffers");
        self.sending[usize::from(token)] = Some((buffer, end));
        result
    }
}

/// A received frame.
pub struct RxToken<'a> {
    rings: &'a RefCell<Rings>,
    buffer: Buffer,
    header: usize,
    length: usize,
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.buffer[self.header..self.header + self.length]);
        self.rings.borrow_mut().receive_into(self.buffer);
        result
    }
}

/// The right to send a frame.
pub struct TxToken<'a>(&'a RefCell<Rings>);

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.0.borrow_mut().send(length, fill)
    }
}

impl Device for Nic {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let rings = self.0.get_mut();
        // A received frame may be answered at once, so it takes a buffer to receive one.
        if !rings.can_send() {
            return None;
        }
        let (buffer, header, length) = rings.received()?;
        let rings = &self.0;
        Some((
            RxToken {
                rings,
                buffer,
                header,
                length,
            },
            TxToken(rings),
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        self.0.get_mut().can_send().then_some(TxToken(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities.max_burst_size = Some(RING);
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}
