//! What `virtio-drivers` needs to know about the machine: RAM is mapped one to one.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;

use lockstep_abi::MMIO_STRIDE;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Memory for drivers: devices use the same addresses as the guest.
pub struct OneToOne;

fn pages_layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).expect("a ring of a few pages")
}

// SAFETY: the heap's memory is RAM, which the devices access at the same addresses. `dma_alloc` returns
// whole zeroed pages of it, which no other code uses until `dma_dealloc`. Sharing a buffer needs no
// copy.
unsafe impl Hal for OneToOne {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty: drivers ask for at least one page.
        let memory = unsafe { alloc_zeroed(pages_layout(pages)) };
        let memory = NonNull::new(memory).expect("memory for a virtqueue");
        (memory.as_ptr() as PhysAddr, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller returns what `dma_alloc` gave for as many pages.
        unsafe { dealloc(memory.as_ptr(), pages_layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).expect("no device is at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The device in the window at `window` (one of the `MMIO_*` addresses of [`lockstep_abi`]); `None` if
/// there is none.
pub fn transport(window: u64) -> Option<MmioTransport<'static>> {
    let header = NonNull::new(window as *mut VirtIOHeader)?;
    // SAFETY: the machine maps all windows for its whole life. A window without a device reads as
    // zeros, which the transport refuses. Two transports for one window would confuse the device, but
    // no memory: each driver gives it its own rings.
    unsafe { MmioTransport::new(header, MMIO_STRIDE as usize) }.ok()
}
