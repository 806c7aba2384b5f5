//! Guest RAM as a software CPU reaches it: one load or store at a time, each checked against RAM's end.

use crate::Ram;
use crate::ram::PAGE;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A number that a CPU loads or stores in one piece.
pub trait Word: Copy + private::Sealed {}

mod private {
    pub trait Sealed {}
}

macro_rules! words {
    ($($word:ty)*) => { $( impl private::Sealed for $word {} impl Word for $word {} )* };
}
words!(u8 u16 u32 u64 u128);

/// At no particular alignment, so that one access stays one access.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T>(T);

/// A byte for each page, set after each write to it. Shared with whoever collects the dirty pages.
pub type DirtyBytes = Arc<[AtomicU8]>;

/// The way to a machine's RAM.
#[derive(Debug)]
pub struct Direct {
    base: *mut u8,
    len: u64,
    dirty: DirtyBytes,
    /// Keeps the mapping.
    ram: Ram,
}

// SAFETY: the pointer is to the mapping that `ram` keeps and that any thread may use.
unsafe impl Send for Direct {}

impl Direct {
    /// The way to `ram`.
    pub fn new(ram: Ram) -> Direct {
        let pages = (0..ram.pages()).map(|_| AtomicU8::new(0));
        Direct {
            base: ram.host_address() as *mut u8,
            len: ram.len() as u64,
            dirty: pages.collect(),
            ram,
        }
    }

    /// Size of RAM, bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never true: a machine has memory.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The RAM.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// The pages written so far, a byte each.
    pub fn dirty(&self) -> &DirtyBytes {
        &self.dirty
    }

    /// Where `T` lies at guest-physical address `at`.
    ///
    /// # Panics
    /// If it does not lie in RAM.
    #[inline(always)]
    fn place<T: Word>(&self, at: u64) -> *mut Unaligned<T> {
        // RAM is never smaller than a word.
        assert!(at <= self.len.wrapping_sub(size_of::<T>() as u64));
        self.base.wrapping_add(at as usize).cast()
    }

    /// Loads from guest-physical address `at`.
    ///
    /// # Panics
    /// If it does not lie in RAM.
    #[inline(always)]
    pub fn load<T: Word>(&self, at: u64) -> T {
        let place = self.place::<T>(at);
        // SAFETY: `place` lies whole in the mapping, which `self.ram` keeps. It needs no alignment, and any
        // bytes are a `T`. Volatile, since another thread may copy the page meanwhile: see `dirty` in
        // lockstep-vcpu for why it then copies the page again.
        unsafe { place.read_volatile().0 }
    }

    /// Stores at guest-physical address `at`, and marks the page.
    ///
    /// # Panics
    /// If it does not lie in RAM.
    #[inline(always)]
    pub fn store<T: Word>(&self, at: u64, value: T) {
        let place = self.place::<T>(at);
        // SAFETY: as in `load`.
        unsafe { place.write_volatile(Unaligned(value)) };
        self.mark(at);
        if size_of::<T>() > 1 && at % PAGE as u64 > (PAGE - size_of::<T>()) as u64 {
            self.mark(at + size_of::<T>() as u64 - 1);
        }
    }

    /// After the write: who sees the mark sees the write.
    #[inline(always)]
    fn mark(&self, at: u64) {
        self.dirty[(at / PAGE as u64) as usize].store(1, Ordering::Release);
    }
}

/// Pages marked since the last call, a bit each.
pub fn take_dirty(dirty: &DirtyBytes) -> Vec<u64> {
    let mut bits = vec![0; dirty.len().div_ceil(64)];
    for (page, mark) in dirty.iter().enumerate() {
        // Most are clean, and reading is cheaper than exchanging.
        if mark.load(Ordering::Relaxed) != 0 && mark.swap(0, Ordering::AcqRel) != 0 {
            bits[page / 64] |= 1 << (page % 64);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::MIN_MIB;

    #[test]
    fn what_is_stored_is_loaded_and_marks_its_pages() {
        let direct = Direct::new(Ram::new(MIN_MIB).unwrap());
        direct.store::<u64>(2 * PAGE as u64 - 3, 0x0102_0304_0506_0708);
        assert_eq!(
            direct.load::<u64>(2 * PAGE as u64 - 3),
            0x0102_0304_0506_0708
        );
        assert_eq!(direct.load::<u8>(2 * PAGE as u64), 0x05);
        direct.store::<u128>(direct.len() - 16, 7);
        let bits = take_dirty(direct.dirty());
        let last = direct.ram().pages() - 1;
        assert_eq!(bits[0], 0b110);
        assert_eq!(bits[last / 64], 1 << (last % 64));
        assert!(take_dirty(direct.dirty()).iter().all(|word| *word == 0));
    }

    #[test]
    #[should_panic(expected = "at <= self.len")]
    fn nothing_outside_ram_is_reached() {
        let direct = Direct::new(Ram::new(MIN_MIB).unwrap());
        direct.load::<u16>(direct.len() - 1);
    }
}
