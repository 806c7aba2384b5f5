//! How a Linux guest starts: memory as the boot protocol wants it, and the CPU at the kernel's 64-bit entry.

use super::kernel::{Kernel, SETUP};
use super::{Parts, acpi, memory};
use crate::boot::{LoadError, start_state};
use crate::image::ImageError;
use ft_protocol::log::MachineConfig;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use lockstep_memory::Ram;
use lockstep_memory::ram::PAGE;
use lockstep_vcpu::CpuState;
use std::mem::offset_of;

/// What stands for a loader that has no number.
const OTHER_LOADER: u8 = 0xff;
/// LOADED_HIGH: the kernel lies at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: [u8; 4] = *b"HdrS";
const ALIGNMENT: u32 = 16 << 20;
/// The initrd must end below: what kernels say whose header does not.
const INITRD_MAX: u64 = 0x7fff_ffff;

/// Types of memory in the E820 map.
mod kind {
    pub const RAM: u32 = 1;
    pub const RESERVED: u32 = 2;
}

/// `boot_params` as bytes: its fields are little-endian at fixed offsets.
struct BootParams([u8; size_of::<boot_params>()]);

macro_rules! put {
    ($params:expr, $($field:ident).+, $value:expr) => {
        $params.put(offset_of!(boot_params, $($field).+), &$value.to_le_bytes())
    };
}

impl BootParams {
    fn put(&mut self, offset: usize, field: &[u8]) {
        self.0[offset..offset + field.len()].copy_from_slice(field);
    }

    /// With the setup header of a bzImage, or with what it would say of a vmlinux.
    fn new(kernel: &Kernel) -> BootParams {
        let mut params = BootParams([0; size_of::<boot_params>()]);
        match kernel.setup {
            Some(setup) => params.put(SETUP, setup),
            None => {
                put!(params, hdr.boot_flag, BOOT_FLAG);
                params.put(offset_of!(boot_params, hdr.header), &HEADER_MAGIC);
                put!(params, hdr.kernel_alignment, ALIGNMENT);
            }
        }
        let loaded_high = params.0[offset_of!(boot_params, hdr.loadflags)] | LOADED_HIGH;
        put!(params, hdr.loadflags, loaded_high);
        put!(params, hdr.type_of_loader, OTHER_LOADER);
        put!(params, hdr.cmd_line_ptr, (memory::COMMAND_LINE as u32));
        put!(params, acpi_rsdp_addr, memory::ACPI);
        params
    }

    /// The map of memory.
    fn set_map(&mut self, ram: u64) {
        let map = [
            (0, memory::LOW_END, kind::RAM),
            (memory::LOW_END, memory::HIGH, kind::RESERVED),
            (memory::HIGH, ram, kind::RAM),
        ];
        put!(self, e820_entries, (map.len() as u8));
        for (index, (start, end, kind)) in map.into_iter().enumerate() {
            let at = offset_of!(boot_params, e820_table) + index * size_of::<boot_e820_entry>();
            let size: u64 = end - start;
            self.put(
                at + offset_of!(boot_e820_entry, addr),
                &u64::to_le_bytes(start),
            );
            self.put(at + offset_of!(boot_e820_entry, size), &size.to_le_bytes());
            self.put(
                at + offset_of!(boot_e820_entry, r#type),
                &u32::to_le_bytes(kind),
            );
        }
    }
}

/// Fills `ram`, and gives the CPU's state.
pub(crate) fn prepare(
    ram: &Ram,
    config: &MachineConfig,
    name: &str,
    parts: &Parts<'_>,
) -> Result<CpuState, LoadError> {
    let kernel = Kernel::parse(parts.kernel).map_err(|why| why.of(name))?;
    let initrd = place_of_initrd(ram, &kernel, name, parts.initrd.len())?;
    kernel.load(ram)?;
    ram.write(initrd, parts.initrd)?;
    ram.write(memory::COMMAND_LINE, parts.command_line)?;
    ram.write(memory::ACPI, &acpi::tables(config, memory::ACPI))?;
    let mut params = BootParams::new(&kernel);
    if !parts.initrd.is_empty() {
        put!(params, hdr.ramdisk_image, (initrd as u32));
        put!(params, hdr.ramdisk_size, (parts.initrd.len() as u32));
    }
    params.set_map(ram.len() as u64);
    ram.write(memory::BOOT_PARAMS, &params.0)?;
    let tables = memory::build(ram)?;
    Ok(state_at(kernel.entry, tables))
}

/// The end of RAM, or of what the kernel reaches early.
fn place_of_initrd(ram: &Ram, kernel: &Kernel, name: &str, len: usize) -> Result<u64, ImageError> {
    let top = (ram.len() as u64).min(INITRD_MAX);
    let place = top
        .checked_sub(len as u64)
        .map(|place| place & !(PAGE as u64 - 1));
    match place.filter(|place| *place >= kernel.end) {
        Some(place) => Ok(place),
        None => Err(ImageError::TooSmall {
            name: name.to_owned(),
            need: (kernel.end + len as u64).div_ceil(1 << 20) + 1,
            have: (ram.len() >> 20) as u64,
        }),
    }
}

/// Long mode, interrupts off, RSI at the parameters.
fn state_at(entry: u64, tables: u64) -> CpuState {
    let mut state = start_state(entry);
    let selectors = [
        memory::CODE,
        memory::DATA,
        memory::DATA,
        memory::DATA,
        memory::DATA,
        memory::DATA,
        memory::TASK,
    ];
    for (segment, selector) in state.system.segments.iter_mut().zip(selectors) {
        segment.selector = selector;
    }
    state.system.tables = [(memory::GDT, memory::GDT_LIMIT), (0, 0)];
    state.system.control[2] = tables;
    state.registers.general = [0; 16];
    // RSI.
    state.registers.general[4] = memory::BOOT_PARAMS;
    state
}
