//! The page tables and the GDT that the VMM prepares for the guest (Intel SDM vol. 3, 4.5 and 3.5).
//!
//! The pages of the image have the rights of its ELF segments, so that no page is both writable and
//! executable. All accessed and dirty bits are set from the start, so that the CPU never writes to the
//! tables.

use super::program::Segment;
use lockstep_abi::{BOOT_INFO, CLOCK_PAGE, IMAGE_BASE, MMIO_BASE, MMIO_LEN};
use lockstep_memory::ram::{PAGE, Ram, RamError};

/// Guest-physical address of the GDT.
pub const GDT: u64 = 0x1000;
/// Limit of the GDT: its length in bytes, minus one.
pub const GDT_LIMIT: u16 = 5 * 8 - 1;
/// Selector of the TSS in that GDT (VT-x refuses to start without a task register).
pub const TSS_SELECTOR: u16 = 0x18;
/// Guest-physical address of the PML4, the first of the tables.
pub const PML4: u64 = 0x1_0000;
/// The tables must end here, as the image follows.
const TABLES_END: u64 = IMAGE_BASE;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const LARGE_PAGE: u64 = 2 << 20;
const DATA: u64 = PRESENT | WRITABLE | USER | ACCESSED_DIRTY | NO_EXECUTE;
const INNER: u64 = PRESENT | WRITABLE | USER | 1 << 5;

struct Builder<'a> {
    ram: &'a Ram,
    next: u64,
}

impl Builder<'_> {
    fn table(&mut self) -> u64 {
        let table = self.next;
        self.next += PAGE as u64;
        assert!(self.next <= TABLES_END, "page tables outgrew their place");
        table
    }

    /// Address of the entry that maps `addr` in the table below `entry`. The table is made if it is
    /// missing.
    fn below(&mut self, entry: u64, addr: u64, shift: u32) -> Result<u64, RamError> {
        let mut table = self.ram.read_u64(entry)? & !0xfff & !NO_EXECUTE;
        if table == 0 {
            table = self.table();
            self.ram.write_u64(entry, table | INNER)?;
        }
        Ok(table + 8 * (addr >> shift & 511))
    }

    fn directory_entry(&mut self, addr: u64) -> Result<u64, RamError> {
        let pdpt = self.below(PML4 + 8 * (addr >> 39 & 511), addr, 30)?;
        self.below(pdpt, addr, 21)
    }

    fn map_large(&mut self, addr: u64, rights: u64) -> Result<(), RamError> {
        let entry = self.directory_entry(addr)?;
        self.ram.write_u64(entry, addr | rights | LARGE)
    }

    fn map_page(&mut self, addr: u64, rights: u64) -> Result<(), RamError> {
        let directory = self.directory_entry(addr)?;
        let entry = self.below(directory, addr, 12)?;
        self.ram.write_u64(entry, addr | rights)
    }
}

/// Rights of a page below 2 MiB; `None` if it is not mapped.
fn low_rights(addr: u64) -> Option<u64> {
    match addr {
        0 => None,
        BOOT_INFO => Some(DATA & !WRITABLE),
        CLOCK_PAGE => Some(DATA),
        _ => Some(DATA & !USER),
    }
}

fn segment_rights(segments: &[Segment], addr: u64) -> u64 {
    match segments.iter().find(|s| s.pages().contains(&addr)) {
        Some(s) => {
            PRESENT
                | USER
                | ACCESSED_DIRTY
                | if s.writable { WRITABLE } else { 0 }
                | if s.executable { 0 } else { NO_EXECUTE }
        }
        None => DATA,
    }
}

/// Writes the page tables and the GDT into `ram`. `image_end` is the first byte after the image.
pub fn build(ram: &Ram, segments: &[Segment], image_end: u64) -> Result<(), RamError> {
    let mut tables = Builder {
        ram,
        next: PML4 + PAGE as u64,
    };
    for addr in (0..IMAGE_BASE).step_by(PAGE) {
        if let Some(rights) = low_rights(addr) {
            tables.map_page(addr, rights)?;
        }
    }
    let fine_end = image_end.next_multiple_of(LARGE_PAGE).min(ram.len() as u64);
    for addr in (IMAGE_BASE..fine_end).step_by(PAGE) {
        tables.map_page(addr, segment_rights(segments, addr))?;
    }
    for addr in (fine_end..ram.len() as u64).step_by(LARGE_PAGE as usize) {
        tables.map_large(addr, DATA)?;
    }
    for addr in (MMIO_BASE..MMIO_BASE + MMIO_LEN).step_by(LARGE_PAGE as usize) {
        tables.map_large(addr, DATA | UNCACHED)?;
    }
    // Null, 64-bit code, data, and an available TSS that is never used (two entries).
    let gdt = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x0000_8b00_2000_0067,
        0,
    ];
    for (index, entry) in gdt.into_iter().enumerate() {
        ram.write_u64(GDT + 8 * index as u64, entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page table entry for `addr`, found as the CPU finds it.
    fn walk(ram: &Ram, addr: u64) -> Option<u64> {
        let mut table = PML4;
        for shift in [39, 30, 21, 12] {
            let entry = ram.read_u64(table + 8 * (addr >> shift & 511)).unwrap();
            if entry & PRESENT == 0 {
                return None;
            }
            if shift == 12 || entry & LARGE != 0 && shift == 21 {
                return Some(entry);
            }
            table = entry & !0xfff & !NO_EXECUTE;
        }
        None
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        let ram = Ram::new(64).unwrap();
        let text = Segment {
            start: IMAGE_BASE,
            end: IMAGE_BASE + 5000,
            writable: false,
            executable: true,
        };
        build(&ram, &[text], IMAGE_BASE + 9000).unwrap();
        for addr in (0..ram.len() as u64).step_by(PAGE) {
            let Some(entry) = walk(&ram, addr) else {
                assert_eq!(addr, 0);
                continue;
            };
            assert_eq!(entry & ACCESSED_DIRTY, ACCESSED_DIRTY);
            let executable = entry & NO_EXECUTE == 0;
            assert_eq!(executable, (IMAGE_BASE..IMAGE_BASE + 8192).contains(&addr));
            assert!(!executable || entry & WRITABLE == 0);
        }
        assert_eq!(walk(&ram, BOOT_INFO).unwrap() & WRITABLE, 0);
        assert_eq!(walk(&ram, PML4).unwrap() & USER, 0);
        assert_ne!(walk(&ram, MMIO_BASE).unwrap() & UNCACHED, 0);
        assert!(walk(&ram, ram.len() as u64).is_none());
    }

    #[test]
    fn the_largest_machine_has_room_for_its_tables() {
        let ram = Ram::new(lockstep_memory::ram::MAX_MIB).unwrap();
        build(&ram, &[], IMAGE_BASE + (64 << 20)).unwrap();
        assert!(walk(&ram, ram.len() as u64 - 1).is_some());
    }
}
