//! The kernel's file: a bzImage (`Documentation/arch/x86/boot.rst` of Linux) or a vmlinux.

use super::NotBootable;
use super::unpack::unpack;
use linux_loader::bootparam::{boot_params, setup_header};
use lockstep_memory::Ram;
use lockstep_memory::ram::RamError;
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use std::borrow::Cow;
use std::mem::offset_of;
use std::ops::Range;

/// `HdrS`, where a bzImage's header says what it is.
const HEADER_MAGIC: &[u8; 4] = b"HdrS";
/// Where the setup header begins in the file, as in `boot_params`.
pub const SETUP: usize = offset_of!(boot_params, hdr);
/// The first protocol that says where the payload is.
const FIRST_PROTOCOL: u16 = 0x0208;
const SECTOR: usize = 512;
/// Kernels are linked to run from here: the top 2 GiB.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// XLF_KERNEL_64: there is a 64-bit entry.
const KERNEL_64: u16 = 1;
/// Below, there is what the loader puts there.
const LOWEST: u64 = 1 << 20;

/// A field of the setup header.
fn field<const N: usize>(file: &[u8], offset: usize) -> Option<[u8; N]> {
    file.get(SETUP + offset..)?.first_chunk().copied()
}

macro_rules! field {
    ($file:expr, $type:ty, $name:ident) => {
        field($file, offset_of!(setup_header, $name)).map(<$type>::from_le_bytes)
    };
}

fn is_bzimage(file: &[u8]) -> bool {
    field(file, offset_of!(setup_header, header)) == Some(*HEADER_MAGIC)
}

/// Is this a Linux kernel's file? A vmlinux is known by where it runs: programs for the machine lie one to one.
pub fn is_kernel(file: &[u8]) -> bool {
    is_bzimage(file) || is_vmlinux(file).unwrap_or(false)
}

fn is_vmlinux(file: &[u8]) -> object::read::Result<bool> {
    let header = FileHeader64::<Endianness>::parse(file)?;
    let endian = header.endian()?;
    let programs = header.program_headers(endian, file)?;
    let mut loaded = programs.iter().filter(|p| p.p_type(endian) == elf::PT_LOAD);
    Ok(header.e_machine(endian) == elf::EM_X86_64
        && loaded.any(|program| program.p_vaddr(endian) >= KERNEL_MAP))
}

/// A kernel, ready to be loaded.
#[derive(Debug)]
pub struct Kernel<'a> {
    vmlinux: Cow<'a, [u8]>,
    /// Where parts of that file go.
    segments: Vec<(u64, Range<usize>)>,
    /// Physical address of its 64-bit entry.
    pub entry: u64,
    /// First byte after it, and after what it takes at its start.
    pub end: u64,
    /// The setup header of its bzImage, in the file's bytes.
    pub setup: Option<&'a [u8]>,
}

impl Kernel<'_> {
    /// Unpacks and checks a kernel.
    pub fn parse(file: &[u8]) -> Result<Kernel<'_>, NotBootable> {
        let (vmlinux, setup) = match is_bzimage(file) {
            true => {
                let (payload, setup) = parts_of_bzimage(file)?;
                (Cow::Owned(unpack(payload)?), Some(setup))
            }
            false => (Cow::Borrowed(file), None),
        };
        let (segments, entry, end) = layout(&vmlinux)?;
        Ok(Kernel {
            vmlinux,
            segments,
            entry,
            end,
            setup,
        })
    }

    /// Copies it to where it runs.
    pub fn load(&self, ram: &Ram) -> Result<(), RamError> {
        for (address, file) in &self.segments {
            ram.write(*address, &self.vmlinux[file.clone()])?;
        }
        Ok(())
    }
}

/// The payload and the setup header.
fn parts_of_bzimage(file: &[u8]) -> Result<(&[u8], &[u8]), NotBootable> {
    let cut = || NotBootable::Cut;
    let version = field!(file, u16, version).ok_or_else(cut)?;
    if version < FIRST_PROTOCOL {
        return Err(NotBootable::TooOld(version));
    }
    if field!(file, u16, xloadflags).ok_or_else(cut)? & KERNEL_64 == 0 && version >= 0x020c {
        return Err(NotBootable::Not64Bit);
    }
    // 0 stands for 4.
    let sectors = match field!(file, u8, setup_sects).ok_or_else(cut)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = field!(file, u32, payload_offset).ok_or_else(cut)? as usize;
    let len = field!(file, u32, payload_length).ok_or_else(cut)? as usize;
    let start = (sectors + 1) * SECTOR + offset;
    let payload = file.get(start..start + len).ok_or_else(cut)?;
    // The jump at its beginning leads over the header: so its length is known.
    let [_, distance] = field::<2>(file, offset_of!(setup_header, jump)).ok_or_else(cut)?;
    let end = SETUP + offset_of!(setup_header, header) + usize::from(distance);
    let setup = file.get(SETUP..end).ok_or_else(cut)?;
    Ok((payload, setup))
}

type Layout = (Vec<(u64, Range<usize>)>, u64, u64);

/// Segments, entry and end of a vmlinux.
fn layout(vmlinux: &[u8]) -> Result<Layout, NotBootable> {
    let header = FileHeader64::<Endianness>::parse(vmlinux)?;
    let endian = header.endian()?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(NotBootable::Not64Bit);
    }
    let entry = header.e_entry(endian);
    let (mut segments, mut end, mut enters) = (Vec::new(), 0, false);
    for program in header.program_headers(endian, vmlinux)? {
        if program.p_type(endian) != elf::PT_LOAD {
            continue;
        }
        let (address, len) = (program.p_paddr(endian), program.p_memsz(endian));
        let (offset, filed) = (program.p_offset(endian), program.p_filesz(endian));
        let file_end = offset
            .checked_add(filed)
            .filter(|e| *e <= vmlinux.len() as u64);
        let memory_end = address
            .checked_add(len)
            .filter(|_| filed <= len && address >= LOWEST);
        let (Some(file_end), Some(memory_end)) = (file_end, memory_end) else {
            return Err(NotBootable::Segment(address));
        };
        segments.push((address, offset as usize..file_end as usize));
        end = end.max(memory_end);
        enters |= (address..memory_end).contains(&entry);
    }
    match enters {
        true => Ok((segments, entry, end)),
        false => Err(NotBootable::Entry(entry)),
    }
}
