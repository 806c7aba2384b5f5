//! Which pages hold the page tables that translations were made from.
//!
//! A translation that is kept is never older than the tables: a write to an entry that it came from drops it.
//! So translations are no state of the CPU. A machine that is restored without any goes on as the first one
//! does, and flushing them is not needed where the guest asks for it.

use crate::memory::{Memory, PAGE};
use crate::tlb::PAGE_MASK;
use lockstep_memory::Direct;

const PRESENT: u64 = 1;
/// Bytes of an entry.
const ENTRY: u64 = 8;
/// After so many writes without a walk, a page is taken for one that holds no table any more.
const MOST_WRITES: u8 = 64;
/// The page holds no table.
const NONE: u32 = u32::MAX;

/// A page with a table.
#[derive(Debug)]
struct Table {
    page: u64,
    /// The linear address that its first entry maps, if it is of the last level, and the same in all walks so
    /// far.
    base: Option<u64>,
    /// Entries through which code was found, a bit each.
    executed: [u64; 8],
    /// Writes since the last walk.
    writes: u8,
}

/// The pages with tables.
#[derive(Debug)]
pub struct Tables {
    /// For each page of RAM, its number in `list`.
    of: Vec<u32>,
    list: Vec<Table>,
}

/// What a write does to the translations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    None,
    /// This page is mapped anew, and held no code.
    Page(u64),
    /// Everything may be mapped anew.
    All,
}

impl Tables {
    /// For so many pages of RAM.
    pub fn new(pages: usize) -> Tables {
        Tables {
            of: vec![NONE; pages],
            list: Vec::new(),
        }
    }

    /// Does this page hold a table?
    #[inline(always)]
    pub fn has(&self, page: usize) -> bool {
        self.of[page] != NONE
    }

    /// A walk came through this table. Is the page a new one?
    fn note(&mut self, physical: u64, base: Option<u64>) -> (bool, &mut Table) {
        let number = &mut self.of[(physical / PAGE) as usize];
        let new = *number == NONE;
        if new {
            *number = self.list.len() as u32;
            self.list.push(Table {
                page: physical,
                base,
                executed: [0; 8],
                writes: 0,
            });
        }
        let table = &mut self.list[*number as usize];
        if table.base != base {
            table.base = None;
        }
        table.writes = 0;
        (new, table)
    }

    /// The page holds no table any more. The caller drops all translations.
    fn remove(&mut self, page: usize) {
        let number = std::mem::replace(&mut self.of[page], NONE) as usize;
        self.list.swap_remove(number);
        if let Some(moved) = self.list.get(number) {
            self.of[(moved.page / PAGE) as usize] = number as u32;
        }
    }

    /// What writing there does; the old bytes are still in `ram`.
    fn effect(&self, ram: &Direct, at: u64, len: usize) -> Effect {
        let table = &self.list[self.of[(at / PAGE) as usize] as usize];
        if table.writes >= MOST_WRITES {
            return Effect::All;
        }
        let first = at & !(ENTRY - 1);
        let mut effect = Effect::None;
        for place in (first..at + len as u64).step_by(ENTRY as usize) {
            if ram.load::<u64>(place) & PRESENT == 0 {
                continue;
            }
            let index = place % PAGE / ENTRY;
            let code = table.executed[index as usize / 64] >> (index % 64) & 1 != 0;
            effect = match (effect, table.base) {
                (Effect::None, Some(base)) if !code => Effect::Page(base + index * PAGE),
                (Effect::None | Effect::Page(_) | Effect::All, _) => return Effect::All,
            };
        }
        effect
    }
}

/// A table that a walk came through.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Where the entry lies.
    pub place: u64,
    /// The address that the table's first entry maps, if it is of the last level.
    pub base: Option<u64>,
}

impl Memory {
    /// A walk came this way, perhaps to code: from now on writes to these tables are looked at.
    pub fn note_walk(&mut self, steps: &[Step], code: bool) {
        for step in steps {
            let physical = step.place & PAGE_MASK;
            let (new, table) = self.tables.note(physical, step.base);
            if code {
                let index = (step.place % PAGE / ENTRY) as usize;
                table.executed[index / 64] |= 1 << (index % 64);
            }
            if new {
                self.tlb.protect(physical);
                self.ram.ram().watch((physical / PAGE) as usize, true);
            }
        }
    }

    /// Does writing there change where code is found, so that the instruction must run alone?
    pub fn remaps_code(&self, at: u64, len: usize) -> bool {
        self.tables.has((at / PAGE) as usize)
            && self.tables.effect(&self.ram, at, len) == Effect::All
    }

    /// Bytes in a page with a table are about to be written: drops what was translated by them.
    pub fn before_table_write(&mut self, at: u64, len: usize) {
        let page = (at / PAGE) as usize;
        match self.tables.effect(&self.ram, at, len) {
            Effect::None => {}
            Effect::Page(address) => self.tlb.forget(address),
            Effect::All => self.flush(),
        }
        let table = &mut self.tables.list[self.tables.of[page] as usize];
        if table.writes < MOST_WRITES {
            table.writes += 1;
        } else {
            self.drop_table(page);
        }
    }

    /// All that was translated may be wrong now.
    pub fn flush(&mut self) {
        self.tlb.clear();
        self.remapped = true;
    }

    /// A page was written from outside.
    pub fn drop_overwritten_table(&mut self, page: usize) {
        if self.tables.has(page) {
            self.flush();
            self.drop_table(page);
        }
    }

    fn drop_table(&mut self, page: usize) {
        self.tables.remove(page);
        self.watch(page);
    }

    /// Can what was translated for the upper half of the addresses stay when CR3 changes? The new table of the
    /// first level is watched from now on.
    pub fn keeps_upper_half(&mut self, old: u64, new: u64) -> bool {
        let (old, new) = (old & PAGE_MASK, new & PAGE_MASK);
        let in_ram = |table: u64| table + PAGE <= self.ram.len();
        if !in_ram(old) || !in_ram(new) {
            return false;
        }
        let equal = (PAGE / 2..PAGE)
            .step_by(ENTRY as usize)
            .all(|at| self.ram.load::<u64>(old + at) == self.ram.load::<u64>(new + at));
        if equal {
            let step = Step {
                place: new,
                base: None,
            };
            self.note_walk(&[step], false);
        }
        equal
    }
}

#[cfg(test)]
mod tests;
