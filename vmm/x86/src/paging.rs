//! From linear to physical addresses: four levels of tables (SDM vol. 3, 4.5).

use crate::exception::Exception;
use crate::op::Done;
use crate::state::{Control, Cpu};
use crate::tables::Step;
use crate::tlb::PAGE_MASK;
use lockstep_memory::Direct;

/// Physical addresses have so many bits, as CPUID tells.
pub const PHYSICAL_BITS: u32 = 40;

/// The entry maps something.
pub const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// The entry maps a large page, where one may.
pub const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// The address that an entry holds.
pub const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & PAGE_MASK;
/// The linear address that the first entry of a table of the last level maps.
const LAST_TABLE: u64 = !0x1f_ffff;
/// Bits that must be zero in every entry.
const RESERVED: u64 = (1 << 52) - (1 << PHYSICAL_BITS);

/// CR0.WP.
const WP: u64 = 1 << 16;
/// EFER.NXE.
const NXE: u64 = 1 << 11;

/// Bits of a page fault's error code.
mod code {
    pub const PROTECTION: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const USER: u32 = 4;
    pub const RESERVED: u32 = 8;
    pub const FETCH: u32 = 16;
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads data.
    Read,
    /// Writes data.
    Write,
    /// Fetches an instruction.
    Execute,
}

/// Has an address the form that 48 bits allow?
#[inline(always)]
pub fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// A walk through the tables.
struct Walk<'a> {
    ram: &'a Direct,
    control: &'a Control,
    access: Access,
    user: bool,
}

impl Walk<'_> {
    /// The physical address and the way to it, or the error code of a page fault.
    fn walk(&self, address: u64) -> Result<(u64, [Step; 4], usize), u32> {
        let mut rights = WRITABLE | USER;
        let mut table = self.control.cr3 & ADDRESS;
        let mut path = [Step {
            place: 0,
            base: None,
        }; 4];
        for (level, shift) in [39, 30, 21, 12].into_iter().enumerate() {
            let place = table + 8 * (address >> shift & 511);
            let entry = self.entry(place);
            if entry & PRESENT == 0 {
                return Err(self.code(0));
            }
            path[level] = Step {
                place,
                base: (shift == 12).then_some(address & LAST_TABLE),
            };
            let large = entry & LARGE != 0 && shift != 12;
            if self.reserved(entry, shift, large) {
                return Err(self.code(code::PROTECTION | code::RESERVED));
            }
            rights &= entry | !(WRITABLE | USER);
            rights |= entry & NO_EXECUTE;
            table = entry & ADDRESS;
            if large || shift == 12 {
                if !self.allowed(rights) {
                    return Err(self.code(code::PROTECTION));
                }
                self.mark(&path[..=level]);
                let within = (1 << shift) - 1;
                return Ok((table & !within | address & within, path, level + 1));
            }
        }
        unreachable!("the last level ends the walk")
    }

    /// Tables outside RAM hold nothing.
    fn entry(&self, place: u64) -> u64 {
        match place < self.ram.len() {
            true => self.ram.load(place),
            false => 0,
        }
    }

    fn reserved(&self, entry: u64, shift: u32, large: bool) -> bool {
        let low = match large {
            // Bit 12 is PAT.
            true => (1 << shift) - (1 << 13),
            false => 0,
        };
        entry & (RESERVED | low) != 0
            || shift == 39 && entry & LARGE != 0
            || self.control.efer & NXE == 0 && entry & NO_EXECUTE != 0
    }

    fn allowed(&self, rights: u64) -> bool {
        let write = self.access == Access::Write;
        let protects = self.user || self.control.cr0 & WP != 0;
        !(self.user && rights & USER == 0
            || write && protects && rights & WRITABLE == 0
            || self.access == Access::Execute && rights & NO_EXECUTE != 0)
    }

    /// Sets the accessed bits, and the dirty bit of the last.
    fn mark(&self, path: &[Step]) {
        for (level, Step { place, .. }) in path.iter().enumerate() {
            let last = level + 1 == path.len();
            let dirty = last && self.access == Access::Write;
            let bits = ACCESSED | if dirty { DIRTY } else { 0 };
            let entry = self.entry(*place);
            if entry & bits != bits {
                self.ram.store(*place, entry | bits);
            }
        }
    }

    fn code(&self, why: u32) -> u32 {
        let kind = match self.access {
            Access::Read => 0,
            Access::Write => code::WRITE,
            Access::Execute if self.control.efer & NXE != 0 => code::FETCH,
            Access::Execute => 0,
        };
        why | kind | if self.user { code::USER } else { 0 }
    }
}

impl Cpu {
    /// The physical address for an access by a user or by the supervisor, whatever the current privilege.
    pub fn translate_as(&mut self, address: u64, access: Access, user: bool) -> Done<u64> {
        let walk = Walk {
            ram: &self.memory.ram,
            control: &self.control,
            access,
            user,
        };
        match walk.walk(address) {
            Ok((physical, path, levels)) => {
                let code = access == Access::Execute;
                self.memory.note_walk(&path[..levels], code);
                Ok(physical)
            }
            Err(code) => self.except(Exception::page_fault(address, code)),
        }
    }
}
