//! Which pages of RAM were written: one collection for everybody who asks.
//!
//! A backend's record, like KVM's dirty log, and the VMM's own bitmap are both empty once they were read. So one tracker reads
//! them and keeps for every reader what it has not been told yet. A reader may sit on another thread
//! while the guest runs.
//!
//! A reader that takes and then copies the pages it was told of misses no write. The guest's: a
//! backend ends the writing to the pages that it reports before it returns them, so a write is either there to
//! be copied, or makes an entry for the next time. The VMM's: `vm-memory` writes first and marks the page
//! then; if the mark is seen, so is the write, by the order of the atomic operations on the mark; if it
//! is not, it stands for the next time, and the copy of a half-written page is made anew. The last time
//! must come when the vCPU's thread does nothing, or on it.

use crate::CpuError;
use lockstep_memory::{PageSet, Ram};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

/// A backend's record of the pages that its guest wrote.
pub trait DirtySource: Debug + Send + Sync {
    /// Pages written since the last call, and perhaps some that were not: a bit each, from the lowest.
    fn take(&self) -> Result<Vec<u64>, CpuError>;
}

/// The tracker. Clones are the same one.
#[derive(Clone, Debug)]
pub struct DirtyPages {
    // Before the RAM, which the source may have mapped.
    source: Arc<dyn DirtySource>,
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
    /// A tracker of what the source and the VMM write to `ram`.
    pub fn new(source: Arc<dyn DirtySource>, ram: Ram) -> DirtyPages {
        DirtyPages {
            source,
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
        let by_guest = self.tracker.source.take()?;
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
