//! Translations that were made, so that an access to the same page needs one comparison.

use crate::paging::Access;

/// Entries for each privilege.
const ENTRIES: usize = 1024;
/// No page begins at this address.
const EMPTY: u64 = 1;
/// The part of an address that names its page.
pub const PAGE_MASK: u64 = !0xfff;

/// A page's translation, for the accesses that were made to it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Entry {
    /// Its linear address, if it may be read.
    pub read: u64,
    /// The same, if it may be written: it is dirty then, and holds no decoded code.
    pub write: u64,
    /// The same, if it may be executed.
    pub execute: u64,
    /// What makes a physical address of a linear one.
    pub add: u64,
}

const NOTHING: Entry = Entry {
    read: EMPTY,
    write: EMPTY,
    execute: EMPTY,
    add: 0,
};

/// Where the entries of a user, or of the supervisor, begin.
fn side(user: bool) -> usize {
    if user { ENTRIES } else { 0 }
}

/// Where the entry of a page is.
#[inline(always)]
fn place(address: u64, user: bool) -> usize {
    side(user) | (address >> 12) as usize & (ENTRIES - 1)
}

/// The translations. They hold for pages in RAM only.
#[derive(Debug)]
pub struct Tlb {
    entries: Box<[Entry; 2 * ENTRIES]>,
    /// Where those of the current privilege begin.
    side: usize,
}

impl Default for Tlb {
    fn default() -> Tlb {
        Tlb {
            entries: Box::new([NOTHING; 2 * ENTRIES]),
            side: 0,
        }
    }
}

impl Tlb {
    /// The entry where a translation of this address would be.
    #[inline(always)]
    pub fn at(&self, address: u64) -> &Entry {
        let index = (address >> 12) as usize & (ENTRIES - 1);
        &self.entries[(self.side | index) & (2 * ENTRIES - 1)]
    }

    /// The physical address of these bytes, if they lie in a page whose translation is known for such an access
    /// by a user or by the supervisor.
    #[inline]
    pub fn known(&self, address: u64, len: usize, access: Access, user: bool) -> Option<u64> {
        let entry = &self.entries[place(address, user)];
        let tag = match access {
            Access::Read => entry.read,
            Access::Write => entry.write,
            Access::Execute => entry.execute,
        };
        let last = address.wrapping_add(len as u64 - 1);
        let hit = tag == address & PAGE_MASK && tag == last & PAGE_MASK;
        hit.then(|| address.wrapping_add(entry.add))
    }

    /// The entry for this page and translation, to be given rights of a user or of the supervisor.
    pub fn entry(&mut self, address: u64, add: u64, user: bool) -> &mut Entry {
        let page = address & PAGE_MASK;
        let entry = &mut self.entries[place(address, user)];
        let here = [entry.read, entry.write, entry.execute].contains(&page);
        if !here || entry.add != add {
            *entry = NOTHING;
            entry.add = add;
        }
        entry
    }

    /// From now on accesses are a user's, or the supervisor's.
    pub fn set_user(&mut self, user: bool) {
        self.side = side(user);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.fill(NOTHING);
    }

    /// Forgets the lower half of the addresses.
    pub fn clear_lower(&mut self) {
        for entry in self.entries.iter_mut() {
            if (entry.read | entry.write | entry.execute) >> 63 == 0 {
                *entry = NOTHING;
            }
        }
    }

    /// Forgets one page.
    pub fn forget(&mut self, address: u64) {
        for user in [false, true] {
            self.entries[place(address, user)] = NOTHING;
        }
    }

    /// Forgets that this page of RAM may be written.
    pub fn protect(&mut self, physical: u64) {
        for entry in self.entries.iter_mut() {
            if entry.write != EMPTY && entry.write.wrapping_add(entry.add) == physical {
                entry.write = EMPTY;
            }
        }
    }
}
