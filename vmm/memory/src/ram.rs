//! Guest RAM and its digest.

use super::PageSet;
use crate::written::Written;
use lockstep_abi::RAM_MAX;
use std::sync::Arc;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, MmapRegion};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of one page.
pub const PAGE: usize = 4096;
/// Least RAM a machine can have, MiB.
pub const MIN_MIB: u32 = 16;
/// While a digest is computed, a beat is given after this many pages (1 MiB, a fraction of a
/// millisecond).
pub const BEAT_PAGES: usize = 256;
/// Most RAM a machine can have, MiB: RAM ends below the devices' addresses.
pub const MAX_MIB: u32 = (RAM_MAX >> 20) as u32;

/// Why guest memory cannot be mapped or accessed.
#[derive(Debug, Error)]
pub enum RamError {
    /// A machine cannot have this much memory.
    #[error(
        "cannot give the guest {mib} MiB of memory: a machine has {MIN_MIB} to {MAX_MIB} MiB; choose --mem in that range"
    )]
    Size {
        /// The size that was asked for, MiB.
        mib: u32,
    },
    /// The host cannot map this much memory.
    #[error("cannot map {mib} MiB of guest memory ({why}); choose a smaller --mem")]
    Map {
        /// The size that was asked for, MiB.
        mib: u32,
        /// The host's error.
        why: String,
    },
    /// An address outside the machine's RAM.
    #[error("guest address {addr:#x} (+{len}) is outside the machine's memory")]
    Outside {
        /// Guest-physical address.
        addr: u64,
        /// Length of the access, bytes.
        len: usize,
    },
}

/// The map that `virtio-queue` and KVM share. It remembers which pages the VMM itself wrote, since
/// KVM's dirty log does not.
pub type GuestMap = GuestMemoryMmap<Written>;

/// The machine's RAM: one region from guest-physical address 0.
#[derive(Clone, Debug)]
pub struct Ram {
    map: Arc<GuestMap>,
    len: usize,
}

impl Ram {
    /// Maps `mib` MiB of zeroed memory.
    pub fn new(mib: u32) -> Result<Ram, RamError> {
        if !(MIN_MIB..=MAX_MIB).contains(&mib) {
            return Err(RamError::Size { mib });
        }
        let len = (mib as usize) << 20;
        let map = GuestMap::from_ranges(&[(GuestAddress(0), len)]).map_err(|e| RamError::Map {
            mib,
            why: e.to_string(),
        })?;
        Ok(Ram {
            map: Arc::new(map),
            len,
        })
    }

    /// Size, bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a machine has memory.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size, pages.
    pub fn pages(&self) -> usize {
        self.len / PAGE
    }

    /// The memory map, for the virtqueues.
    pub fn map(&self) -> &GuestMap {
        &self.map
    }

    /// Address of the RAM in this process, for KVM.
    pub fn host_address(&self) -> u64 {
        self.region().as_ptr() as u64
    }

    fn region(&self) -> &MmapRegion<Written> {
        self.map
            .find_region(GuestAddress(0))
            .expect("RAM begins at address 0")
    }

    /// Copies `data` to guest address `addr`.
    pub fn write(&self, addr: u64, data: &[u8]) -> Result<(), RamError> {
        self.map
            .write_slice(data, GuestAddress(addr))
            .map_err(|_| RamError::Outside {
                addr,
                len: data.len(),
            })
    }

    /// Fills `data` from guest address `addr`.
    pub fn read(&self, addr: u64, data: &mut [u8]) -> Result<(), RamError> {
        self.map
            .read_slice(data, GuestAddress(addr))
            .map_err(|_| RamError::Outside {
                addr,
                len: data.len(),
            })
    }

    /// Reads a little-endian 64-bit word.
    pub fn read_u64(&self, addr: u64) -> Result<u64, RamError> {
        let mut word = [0; 8];
        self.read(addr, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Writes a little-endian 64-bit word.
    pub fn write_u64(&self, addr: u64, value: u64) -> Result<(), RamError> {
        self.write(addr, &value.to_le_bytes())
    }

    /// Pages that the VMM wrote since the last call: one bit per page, page 0 is the lowest bit.
    pub fn take_written(&self) -> Vec<u64> {
        self.region().bitmap().take()
    }

    /// From now on [`Ram::take_watched`] tells of this page, or not any more.
    pub fn watch(&self, page: usize, on: bool) {
        self.region().bitmap().watch(page, on);
    }

    /// Watched pages that the VMM wrote since the last call.
    pub fn take_watched(&self) -> Vec<usize> {
        self.region().bitmap().take_watched()
    }

    /// Reads a whole page.
    ///
    /// # Panics
    /// If it lies outside RAM.
    pub fn read_page(&self, page: usize, buffer: &mut [u8; PAGE]) {
        self.read((page * PAGE) as u64, buffer)
            .expect("the page lies in RAM");
    }
}

/// Hash of one page: xxh3-64 of its content, seeded with its number, so that equal pages at different
/// places hash differently.
pub fn page_hash(page: usize, content: &[u8; PAGE]) -> u64 {
    xxh3_64_with_seed(content, page as u64)
}

/// An incremental digest of RAM: the sum of all pages' hashes ([`page_hash`]), modulo 2^64.
///
/// It is computed in full once; after that, only pages that may have changed are read again, so the
/// cost follows what the guest writes. A page that was reported as dirty but did not change does not
/// change the digest, so two hosts whose dirty logs differ in such pages still agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamDigest {
    pages: Vec<u64>,
    sum: u64,
}

impl RamDigest {
    /// A digest of `pages` pages of which none was read yet. It is valid after every page was set.
    pub fn unread(pages: usize) -> RamDigest {
        RamDigest {
            pages: vec![0; pages],
            sum: 0,
        }
    }

    /// The digest of `pages` pages that are all zeros. It equals [`RamDigest::of`] a RAM that nothing
    /// has written to, without touching that memory.
    pub fn zeroed(pages: usize) -> RamDigest {
        let mut digest = RamDigest::unread(pages);
        for page in 0..pages {
            digest.set_page(page, page_hash(page, &[0; PAGE]));
        }
        digest
    }

    /// The digest of `ram` as it is.
    pub fn of(ram: &Ram) -> RamDigest {
        let mut digest = RamDigest::unread(ram.pages());
        digest.update(ram, &PageSet::full(ram.pages()), &|| ());
        digest
    }

    /// Reads the `changed` pages of `ram` again and returns the new digest. It calls `beat` every
    /// [`BEAT_PAGES`] pages: to read a large RAM takes seconds on a busy host, and the thread that does
    /// it must not count as hanging.
    pub fn update(&mut self, ram: &Ram, changed: &PageSet, beat: &dyn Fn()) -> u64 {
        let mut buffer = [0; PAGE];
        for (count, page) in changed.iter().enumerate() {
            if count.is_multiple_of(BEAT_PAGES) {
                beat();
            }
            ram.read_page(page, &mut buffer);
            self.set_page(page, page_hash(page, &buffer));
        }
        self.sum
    }

    /// Sets the hash ([`page_hash`]) of page `page`.
    ///
    /// # Panics
    /// If it lies outside RAM.
    pub fn set_page(&mut self, page: usize, hash: u64) {
        let old = std::mem::replace(&mut self.pages[page], hash);
        self.sum = self.sum.wrapping_sub(old).wrapping_add(hash);
    }

    /// The digest.
    pub fn value(&self) -> u64 {
        self.sum
    }

    /// The number of pages it covers.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_sizes_are_refused_in_a_sentence() {
        for mib in [0, MIN_MIB - 1, MAX_MIB + 1, u32::MAX] {
            let error = Ram::new(mib).unwrap_err().to_string();
            assert!(error.contains("--mem"), "{error}");
        }
    }

    #[test]
    fn an_incremental_digest_equals_a_fresh_one() {
        let ram = Ram::new(MIN_MIB).unwrap();
        let written = |ram: &Ram| {
            let mut pages = PageSet::empty(ram.pages());
            pages.add(&ram.take_written());
            pages
        };
        let mut incremental = RamDigest::of(&ram);
        let empty = incremental.value();
        ram.write(3 * PAGE as u64 - 4, b"across a page").unwrap();
        let changed = incremental.update(&ram, &written(&ram), &|| ());
        assert_ne!(changed, empty);
        assert_eq!(incremental, RamDigest::of(&ram));
        // A page that is reported dirty but did not change is harmless.
        let full = PageSet::full(64);
        assert_eq!(changed, incremental.update(&ram, &full, &|| ()));
        ram.write(3 * PAGE as u64 - 4, &[0; 13]).unwrap();
        assert_eq!(incremental.update(&ram, &written(&ram), &|| ()), empty);
    }

    #[test]
    fn the_digest_of_untouched_memory_is_known_without_reading_it() {
        let ram = Ram::new(MIN_MIB).unwrap();
        assert_eq!(RamDigest::zeroed(ram.pages()), RamDigest::of(&ram));
    }

    #[test]
    fn a_digest_shows_that_it_gets_on_however_much_it_reads() {
        let ram = Ram::new(MIN_MIB).unwrap();
        let beats = std::cell::Cell::new(0);
        let mut digest = RamDigest::unread(ram.pages());
        digest.update(&ram, &PageSet::full(ram.pages()), &|| {
            beats.set(beats.get() + 1);
        });
        assert_eq!(beats.get(), ram.pages() / BEAT_PAGES);
    }

    #[test]
    fn watched_pages_that_are_written_are_told_once() {
        let ram = Ram::new(MIN_MIB).unwrap();
        ram.watch(2, true);
        ram.watch(5, true);
        ram.write(4 * PAGE as u64 - 1, &[1]).unwrap();
        assert!(ram.take_watched().is_empty());
        ram.write(2 * PAGE as u64 - 1, &[1, 2]).unwrap();
        assert_eq!(ram.take_watched(), [2]);
        assert!(ram.take_watched().is_empty());
        ram.watch(5, false);
        ram.write(0, &[1; 6 * PAGE]).unwrap();
        assert_eq!(ram.take_watched(), [2]);
    }

    #[test]
    fn equal_pages_at_different_places_do_not_cancel() {
        let ram = Ram::new(MIN_MIB).unwrap();
        ram.write(0, &[7; PAGE]).unwrap();
        let first = RamDigest::of(&ram);
        ram.write(0, &[0; PAGE]).unwrap();
        ram.write(PAGE as u64, &[7; PAGE]).unwrap();
        assert_ne!(first, RamDigest::of(&ram));
    }
}
