//! Which pages of RAM were written, for several readers.
//!
//! Writes are recorded in two places: the backend records those of the guest (KVM's dirty log), and
//! `vm-memory` records those of the VMM in a bitmap. Reading a record clears it. So one tracker reads
//! both and keeps, for each reader, the pages that were not reported to it yet. A reader may be on
//! another thread while the guest runs.
//!
//! A reader that takes a report and then copies the reported pages misses no write:
//!
//! - A write of the guest: the backend write-protects the pages before it reports them. So a write
//!   either came before the report, and the copy contains it, or it makes a new record for the next
//!   report.
//! - A write of the VMM: `vm-memory` writes first and marks the page afterwards. If the report contains
//!   the mark, the copy contains the write, because the operations on the mark are atomic and ordered.
//!   If it does not, the next report contains the mark, and the page is copied again, even if its first
//!   copy was half old.
//!
//! So the last report must be taken while the vCPU's thread does nothing, or on that thread.

use crate::CpuError;
use lockstep_memory::{PageSet, Ram};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

/// A backend's record of the pages that its guest wrote.
pub trait DirtySource: Debug + Send + Sync {
    /// Pages written since the last call, and perhaps others: one bit per page, page 0 is the lowest
    /// bit.
    fn take(&self) -> Result<Vec<u64>, CpuError>;
}

/// The tracker. Clones share their state.
#[derive(Clone, Debug)]
pub struct DirtyPages {
    // Declared, and so dropped, before the RAM, which the source may have mapped.
    source: Arc<dyn DirtySource>,
    ram: Ram,
    readers: Arc<Mutex<Readers>>,
}

#[derive(Debug, Default)]
struct Readers {
    next: u64,
    /// For each reader, the pages that were not reported to it yet.
    unreported: BTreeMap<u64, PageSet>,
}

/// A reader, which asks from time to time which pages were written.
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

    /// A reader whose first report has all pages.
    pub fn reader(&self) -> DirtyReader {
        self.register(PageSet::full(self.ram.pages()))
    }

    /// A reader whose first report has all pages that were written since RAM was mapped, and no others.
    ///
    /// # Panics
    /// If there was a reader before: it may have taken some of the records already.
    pub fn reader_of_all_writes(&self) -> DirtyReader {
        assert_eq!(self.lock().next, 0, "no reader came before");
        self.register(PageSet::empty(self.ram.pages()))
    }

    /// A reader whose first report has the pages that are written from now on.
    pub fn reader_from_now(&self) -> Result<DirtyReader, CpuError> {
        let reader = self.register(PageSet::empty(self.ram.pages()));
        reader.take()?;
        Ok(reader)
    }

    fn register(&self, unreported: PageSet) -> DirtyReader {
        let mut readers = self.lock();
        let id = readers.next;
        readers.next += 1;
        readers.unreported.insert(id, unreported);
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
    /// Pages written since this reader's last call, and perhaps others.
    pub fn take(&self) -> Result<PageSet, CpuError> {
        // Held until the end: reading clears the records, so they must be added for all readers before
        // another one asks.
        let mut readers = self.tracker.lock();
        let by_guest = self.tracker.source.take()?;
        let by_vmm = self.tracker.ram.take_written();
        let mut report = PageSet::empty(self.tracker.ram.pages());
        for (id, unreported) in &mut readers.unreported {
            unreported.add(&by_guest);
            unreported.add(&by_vmm);
            if *id == self.id {
                std::mem::swap(unreported, &mut report);
            }
        }
        Ok(report)
    }
}

impl Drop for DirtyReader {
    fn drop(&mut self) {
        self.tracker.lock().unreported.remove(&self.id);
    }
}
