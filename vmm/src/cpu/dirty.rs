//! Which pages of RAM were written: one collection for everybody who asks.
//!
//! KVM's dirty log and the VMM's own bitmap are both empty once they were read. So one tracker reads
//! them and keeps for every reader what it has not been told yet. A reader may sit on another thread
//! while the guest runs.
//!
//! A reader that takes and then copies the pages it was told of misses no write. The guest's: KVM takes
//! the write access from the pages that it reports before it returns them, so a write is either there to
//! be copied, or makes an entry for the next time. The VMM's: `vm-memory` writes first and marks the page
//! then; if the mark is seen, so is the write, by the order of the atomic operations on the mark; if it
//! is not, it stands for the next time, and the copy of a half-written page is made anew. The last time
//! must come when the vCPU's thread does nothing, or on it.

use super::CpuError;
use crate::memory::{PageSet, Ram};
use kvm_ioctls::VmFd;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The tracker. Clones are the same one.
#[derive(Clone, Debug)]
pub struct DirtyPages {
    // Before the RAM that KVM has mapped.
    vm: Arc<VmFd>,
    ram: Ram,
    readers: Arc<Mutex<Readers>>,
}

#[derive(Debug, Default)]
struct Readers {
    next: u64,
    /// What each has not been told yet.
    untold: BTreeMap<u64, PageSet>,
}

/// One who asks which pages were written.
#[derive(Debug)]
pub struct DirtyReader {
    tracker: DirtyPages,
    id: u64,
}

impl DirtyPages {
    pub(super) fn new(vm: Arc<VmFd>, ram: Ram) -> DirtyPages {
        DirtyPages {
            vm,
            ram,
            readers: Arc::default(),
        }
    }

    /// A reader to whom all pages are news.
    pub fn reader(&self) -> DirtyReader {
        self.register(PageSet::full(self.ram.pages()))
    }

    /// A reader to whom all that was written since RAM was mapped is news, and nothing else.
    ///
    /// # Panics
    /// Unless it is the first: another one may have taken some of it already.
    pub fn reader_of_all_writes(&self) -> DirtyReader {
        assert_eq!(self.lock().next, 0, "nobody has read before");
        self.register(PageSet::empty(self.ram.pages()))
    }

    /// A reader who knows what is in RAM now.
    pub fn reader_from_now(&self) -> Result<DirtyReader, CpuError> {
        let reader = self.register(PageSet::empty(self.ram.pages()));
        reader.take()?;
        Ok(reader)
    }

    fn register(&self, untold: PageSet) -> DirtyReader {
        let mut readers = self.lock();
        let id = readers.next;
        readers.next += 1;
        readers.untold.insert(id, untold);
        DirtyReader {
            tracker: self.clone(),
            id,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().expect("nobody panics with this lock")
    }
}

impl DirtyReader {
    /// Pages written since this reader's last call, and some that were not.
    pub fn take(&self) -> Result<PageSet, CpuError> {
        // Held meanwhile: another reader must not be told less than what was collected before it.
        let mut readers = self.tracker.lock();
        let by_guest = self
            .tracker
            .vm
            .get_dirty_log(0, self.tracker.ram.len())
            .map_err(CpuError::ioctl("KVM_GET_DIRTY_LOG"))?;
        let by_vmm = self.tracker.ram.take_written();
        let mut told = PageSet::empty(self.tracker.ram.pages());
        for (id, untold) in &mut readers.untold {
            untold.add(&by_guest);
            untold.add(&by_vmm);
            if *id == self.id {
                std::mem::swap(untold, &mut told);
            }
        }
        Ok(told)
    }
}

impl Drop for DirtyReader {
    fn drop(&mut self) {
        self.tracker.lock().untold.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::Vcpu;
    use crate::memory::ram::{MIN_MIB, PAGE, Ram};
    use crate::memory::{PageSet, RamDigest};
    use std::thread;

    fn vcpu() -> (Ram, Vcpu) {
        let ram = Ram::new(MIN_MIB).unwrap();
        let vcpu = Vcpu::new(ram.clone(), 0).unwrap_or_else(|e| panic!("{e}"));
        (ram, vcpu)
    }

    #[test]
    #[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
    fn every_reader_is_told_of_every_page_once() {
        let (ram, vcpu) = vcpu();
        let first = vcpu.dirty_pages().reader();
        assert_eq!(first.take().unwrap(), PageSet::full(ram.pages()));
        ram.write(5 * PAGE as u64, b"x").unwrap();
        let second = vcpu.dirty_pages().reader_from_now().unwrap();
        assert!(second.take().unwrap().is_empty());
        ram.write(9 * PAGE as u64 - 1, b"xx").unwrap();
        let list = |set: PageSet| set.iter().collect::<Vec<_>>();
        assert_eq!(list(second.take().unwrap()), [8, 9]);
        assert_eq!(list(first.take().unwrap()), [5, 8, 9]);
        assert!(first.take().unwrap().is_empty() && second.take().unwrap().is_empty());
        drop(first);
        ram.write(0, b"x").unwrap();
        assert_eq!(list(second.take().unwrap()), [0]);
    }

    #[test]
    #[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
    fn the_first_reader_may_ask_for_writes_alone_and_misses_none() {
        let (ram, vcpu) = vcpu();
        ram.write(5 * PAGE as u64, b"x").unwrap();
        let reader = vcpu.dirty_pages().reader_of_all_writes();
        let mut digest = RamDigest::zeroed(ram.pages());
        let written = reader.take().unwrap();
        assert!(written.len() < ram.pages(), "{}", written.len());
        digest.update(&ram, &written, &|| ());
        assert_eq!(digest, RamDigest::of(&ram));
    }

    /// Each of two readers copies what it is told of while a thread writes; in the end both copies are
    /// the memory.
    #[test]
    #[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
    fn no_write_is_missed_by_a_reader_that_copies_meanwhile() {
        const WRITES: u64 = 200_000;
        let (ram, vcpu) = vcpu();
        let written = ram.clone();
        let writer = thread::spawn(move || {
            for i in 0..WRITES {
                let page = i.wrapping_mul(0x9e37_79b9) % (written.pages() as u64);
                written
                    .write_u64(page * PAGE as u64 + i % 512 * 8, i)
                    .unwrap();
            }
        });
        let readers = [(); 2].map(|()| vcpu.dirty_pages().reader());
        let mut digests = [(); 2].map(|()| RamDigest::unread(ram.pages()));
        let mut rounds = 0;
        let mut copy = || {
            for (reader, digest) in readers.iter().zip(&mut digests) {
                digest.update(&ram, &reader.take().unwrap(), &|| ());
            }
            rounds += 1;
        };
        while !writer.is_finished() {
            copy();
        }
        writer.join().unwrap();
        copy();
        let whole = RamDigest::of(&ram);
        assert_eq!(digests, [whole.clone(), whole]);
        assert!(rounds > 2, "{rounds}");
    }
}
