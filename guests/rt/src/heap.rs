//! The heap: all RAM after the image.
//!
//! Small blocks come from lists of blocks of equal size, because a first-fit search takes longer the
//! more small holes there are. Large blocks come from `linked_list_allocator`. Small blocks never go
//! back to the large heap. The place of every block depends only on the order of requests, so it is the
//! same in a replay.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use lockstep_abi::BootInfo;

/// Largest small block, bytes.
const MAX_SMALL: usize = 2048;
/// How much the lists of small blocks take from the large heap at once, bytes.
const CHUNK: usize = 32 * 1024;
/// Alignment of every small block, bytes.
const SMALL_ALIGN: usize = 16;
/// Size classes of small blocks: 16 to 128 in steps of 16, then four per doubling.
const CLASSES: usize = 24;
/// Least RAM for a heap, bytes.
const MIN_HEAP: u64 = 1 << 20;

struct Free {
    next: *mut Free,
}

struct Blocks {
    large: Heap,
    small: [*mut Free; CLASSES],
}

struct GuestHeap(UnsafeCell<Blocks>);

// SAFETY: there is one vCPU, and interrupt handlers run no Rust (see `single`). No method of this
// module calls other code while it uses the blocks.
unsafe impl Sync for GuestHeap {}

#[global_allocator]
static HEAP: GuestHeap = GuestHeap(UnsafeCell::new(Blocks {
    large: Heap::empty(),
    small: [ptr::null_mut(); CLASSES],
}));

/// Gives the heap its memory; false if there is too little.
pub(crate) fn init(boot: &BootInfo) -> bool {
    if boot.ram_bytes.saturating_sub(boot.free_start) < MIN_HEAP {
        return false;
    }
    let bytes = (boot.ram_bytes - boot.free_start) as usize;
    // SAFETY: called once, before the first allocation. The machine maps RAM from `free_start` on
    // read-write and keeps nothing there.
    unsafe {
        (*HEAP.0.get())
            .large
            .init(boot.free_start as *mut u8, bytes)
    };
    true
}

/// Size of the heap, bytes.
pub fn heap_bytes() -> usize {
    // SAFETY: a plain read; see `GuestHeap`.
    unsafe { (*HEAP.0.get()).large.size() }
}

/// The class of a small block, and the size of blocks in that class, bytes.
fn class_of(size: usize) -> (usize, usize) {
    if size <= 128 {
        let class = size.div_ceil(16).max(1) - 1;
        return (class, (class + 1) * 16);
    }
    // 128 < size <= 2048: the power of two below it, then the quarter of the way to the next.
    let doubling = (size - 1).ilog2();
    let quarter = 1usize << (doubling - 2);
    let step = (size - (1 << doubling)).div_ceil(quarter);
    let class = 8 + (doubling as usize - 7) * 4 + step - 1;
    (class, (1 << doubling) + step * quarter)
}

impl Blocks {
    fn allocate_small(&mut self, class: usize, size: usize) -> *mut u8 {
        if self.small[class].is_null() && !self.refill(class, size) {
            return ptr::null_mut();
        }
        let block = self.small[class];
        // SAFETY: a block in a list is free memory of the class's size whose head holds the link.
        self.small[class] = unsafe { (*block).next };
        block.cast()
    }

    /// Cuts a chunk of the large heap into blocks of `size`; false if the large heap has no chunk left.
    fn refill(&mut self, class: usize, size: usize) -> bool {
        let layout = Layout::from_size_align(CHUNK, SMALL_ALIGN).expect("a constant layout");
        let Ok(chunk) = self.large.allocate_first_fit(layout) else {
            return false;
        };
        for index in (0..CHUNK / size).rev() {
            // SAFETY: the block lies in the chunk, is used by no other code, and is aligned: every
            // class's size is a multiple of SMALL_ALIGN.
            unsafe {
                let block = chunk.as_ptr().add(index * size).cast::<Free>();
                block.write(Free {
                    next: self.small[class],
                });
                self.small[class] = block;
            }
        }
        true
    }
}

// SAFETY: blocks are disjoint, and sized and aligned as requested: small ones by `class_of` (at least
// 16 bytes, never less than requested), large ones by linked_list_allocator. Null means that memory is
// exhausted.
unsafe impl GlobalAlloc for GuestHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: no other code uses the blocks now (see `GuestHeap`).
        let blocks = unsafe { &mut *self.0.get() };
        if layout.size() <= MAX_SMALL && layout.align() <= SMALL_ALIGN {
            let (class, size) = class_of(layout.size());
            return blocks.allocate_small(class, size);
        }
        blocks
            .large
            .allocate_first_fit(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        let blocks = unsafe { &mut *self.0.get() };
        if layout.size() <= MAX_SMALL && layout.align() <= SMALL_ALIGN {
            let (class, _) = class_of(layout.size());
            let block = block.cast::<Free>();
            // SAFETY: the caller gives back a block of this class: it is free, aligned and large
            // enough for a link.
            unsafe {
                block.write(Free {
                    next: blocks.small[class],
                })
            };
            blocks.small[class] = block;
            return;
        }
        // SAFETY: the caller gives back a block that the large heap gave for this layout.
        unsafe {
            blocks
                .large
                .deallocate(NonNull::new_unchecked(block), layout)
        }
    }
}
