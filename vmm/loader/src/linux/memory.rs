//! Where a Linux guest finds what in its memory, and the page tables and the GDT with which it starts
//! (`Documentation/arch/x86/boot.rst` of Linux, "64-bit boot protocol").

use lockstep_memory::ram::{PAGE, Ram, RamError};

/// The GDT.
pub const GDT: u64 = 0x1000;
/// `boot_params`.
pub const BOOT_PARAMS: u64 = 0x7000;
/// The PML4, and the tables below it.
const PML4: u64 = 0x9000;
/// The command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// First byte of what the kernel must not take for RAM: where a PC has its firmware, and here the ACPI tables are.
pub const LOW_END: u64 = 0x9_fc00;
/// The ACPI tables, where a kernel looks for them.
pub const ACPI: u64 = 0xe_0000;
/// Where RAM goes on.
pub const HIGH: u64 = 1 << 20;

/// Selectors: the protocol wants these.
pub const CODE: u16 = 0x10;
/// Data.
pub const DATA: u16 = 0x18;
/// An available TSS, which is never used.
pub const TASK: u16 = 0x20;
/// Null, null, 64-bit code, data, TSS in two entries.
const GDT_ENTRIES: [u64; 6] = [
    0,
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x0000_8b00_2000_0067,
    0,
];
/// Its length in bytes, minus one.
pub const GDT_LIMIT: u16 = 8 * GDT_ENTRIES.len() as u16 - 1;

/// What is mapped one to one at the start.
const MAPPED: u64 = 4 << 30;
const LARGE_PAGE: u64 = 2 << 20;
const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;

/// Writes the GDT, and tables that map the first 4 GiB one to one. Returns the PML4's address.
pub fn build(ram: &Ram) -> Result<u64, RamError> {
    for (index, entry) in GDT_ENTRIES.into_iter().enumerate() {
        ram.write_u64(GDT + 8 * index as u64, entry)?;
    }
    let pointers = PML4 + PAGE as u64;
    let directories = pointers + PAGE as u64;
    ram.write_u64(PML4, pointers | PRESENT_WRITABLE)?;
    for gib in 0..MAPPED >> 30 {
        let directory = directories + gib * PAGE as u64;
        ram.write_u64(pointers + 8 * gib, directory | PRESENT_WRITABLE)?;
    }
    for (index, address) in (0..MAPPED).step_by(LARGE_PAGE as usize).enumerate() {
        let entry = address | PRESENT_WRITABLE | LARGE;
        ram.write_u64(directories + 8 * index as u64, entry)?;
    }
    Ok(PML4)
}
