//! Programs that are written for the machine: static ELF files, which are checked before any part of them is
//! loaded.

use crate::allowlist;
use crate::image::{ImageError, NotAnImage};
use lockstep_abi::IMAGE_BASE;
use lockstep_memory::ram::{PAGE, Ram, RamError};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _};
use std::ops::Range;

/// Largest image file, bytes.
pub const MAX_IMAGE_BYTES: usize = 32 << 20;
/// Most RAM that an image may occupy, bytes (its `.bss` included).
pub const MAX_LOADED_BYTES: u64 = 64 << 20;

/// What the compiler's instrumentation calls at branch edges (`guests/rt/src/edges.s`).
const EDGE_CALLBACK: &str = "__sanitizer_cov_trace_pc";

/// CALL with a distance of 32 bits (SDM vol. 2A).
const CALL: u8 = 0xe8;
/// Its length, bytes.
const CALL_LEN: usize = 5;

/// Address range and rights of a loaded segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// May the guest write to it?
    pub writable: bool,
    /// May the guest execute it?
    pub executable: bool,
}

impl Segment {
    /// The address range of the pages that it touches.
    pub fn pages(&self) -> Range<u64> {
        self.start & !(PAGE as u64 - 1)..self.end.next_multiple_of(PAGE as u64)
    }
}

/// What is known of a program's file.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    entry: u64,
    segments: Vec<(Segment, Range<usize>)>,
    symbols: Vec<(u64, String)>,
}

impl Program {
    /// Checks its code: it must have allowed instructions only, where the host's CPU executes it.
    pub(crate) fn check_instructions(&self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        for (segment, file) in &self.segments {
            if segment.executable {
                allowlist::check(&bytes[file.clone()], segment.start, &self.symbols).map_err(
                    |refused| ImageError::Instruction {
                        name: name.to_owned(),
                        what: refused.to_string(),
                        advice: refused.advice(),
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Does it count its own branch edges? It does if its code calls [`EDGE_CALLBACK`] anywhere.
    pub(crate) fn counts_edges(&self, bytes: &[u8]) -> bool {
        let named = self.symbols.iter().find(|(_, name)| name == EDGE_CALLBACK);
        let Some(&(callback, _)) = named else {
            return false;
        };
        let mut code = self.segments.iter().filter(|(s, _)| s.executable);
        code.any(|(segment, file)| {
            let bytes = bytes[file.clone()].windows(CALL_LEN);
            bytes.zip(segment.start..).any(|(bytes, at)| {
                let distance = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
                let next = at + CALL_LEN as u64;
                bytes[0] == CALL && next.wrapping_add_signed(distance.into()) == callback
            })
        })
    }

    /// Checks a file: it must be a static ELF file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Program, NotAnImage> {
        if bytes.len() > MAX_IMAGE_BYTES {
            return Err(NotAnImage::TooLarge);
        }
        if !bytes.starts_with(&elf::ELFMAG) {
            return Err(NotAnImage::NotElf);
        }
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        if header.e_machine(endian) != elf::EM_X86_64 {
            return Err(NotAnImage::OtherMachine);
        }
        if header.e_type(endian) != elf::ET_EXEC {
            return Err(NotAnImage::NotExecutable);
        }
        let mut segments = Vec::new();
        for program in header.program_headers(endian, bytes)? {
            match program.p_type(endian) {
                elf::PT_LOAD if program.p_memsz(endian) > 0 => {
                    segments.push(segment(program, endian, bytes.len())?);
                }
                elf::PT_INTERP | elf::PT_DYNAMIC => return Err(NotAnImage::NotStatic),
                _ => {}
            }
        }
        check_layout(&mut segments)?;
        let entry = header.e_entry(endian);
        let executable = |(s, _): &&(Segment, _)| s.executable && (s.start..s.end).contains(&entry);
        if !segments.iter().any(|s| executable(&s)) {
            return Err(NotAnImage::Entry(entry));
        }
        let symbols = symbols(header, endian, bytes)?;
        Ok(Program {
            entry,
            segments,
            symbols,
        })
    }

    /// Address of its entry point.
    pub(crate) fn entry(&self) -> u64 {
        self.entry
    }

    /// Address of the first page after it.
    pub(crate) fn end(&self) -> u64 {
        let end = self.segments.iter().map(|(s, _)| s.pages().end).max();
        end.expect("an image has a segment")
    }

    /// Its segments.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.segments.iter().map(|(s, _)| *s).collect()
    }

    /// Copies the segments into `ram`.
    pub(crate) fn load(&self, name: &str, bytes: &[u8], ram: &Ram) -> Result<(), ImageError> {
        let too_small = |_: RamError| ImageError::TooSmall {
            name: name.to_owned(),
            need: self.end().div_ceil(1 << 20) + 1,
            have: (ram.len() >> 20) as u64,
        };
        if self.end() >= ram.len() as u64 {
            return Err(too_small(RamError::Outside {
                addr: self.end(),
                len: 0,
            }));
        }
        for (segment, file) in &self.segments {
            ram.write(segment.start, &bytes[file.clone()])
                .map_err(too_small)?;
        }
        Ok(())
    }
}

fn segment(
    program: &elf::ProgramHeader64<Endianness>,
    endian: Endianness,
    file_len: usize,
) -> Result<(Segment, Range<usize>), NotAnImage> {
    let (start, len) = (program.p_paddr(endian), program.p_memsz(endian));
    let (offset, filed) = (program.p_offset(endian), program.p_filesz(endian));
    let file_end = offset.checked_add(filed).filter(|e| *e <= file_len as u64);
    let end = start.checked_add(len);
    match (file_end, end) {
        (Some(file_end), Some(end))
            if filed <= len && start >= IMAGE_BASE && end - IMAGE_BASE <= MAX_LOADED_BYTES =>
        {
            let flags = program.p_flags(endian);
            let segment = Segment {
                start,
                end,
                writable: flags.0 & elf::PF_W.0 != 0,
                executable: flags.0 & elf::PF_X.0 != 0,
            };
            if program.p_vaddr(endian) != start {
                return Err(NotAnImage::Mapped(start));
            }
            Ok((segment, offset as usize..file_end as usize))
        }
        (None, _) => Err(NotAnImage::Truncated { start, file_len }),
        _ => Err(NotAnImage::Outside { start, len }),
    }
}

/// Segments must not share pages, and none may be both writable and executable.
fn check_layout(segments: &mut [(Segment, Range<usize>)]) -> Result<(), NotAnImage> {
    segments.sort_by_key(|(s, _)| s.start);
    for (s, _) in segments.iter() {
        if s.writable && s.executable {
            return Err(NotAnImage::WritableCode(s.start));
        }
    }
    for pair in segments.windows(2) {
        let (a, b) = (pair[0].0, pair[1].0);
        if a.pages().end > b.pages().start {
            return Err(NotAnImage::SharedPage(a.start, b.start));
        }
    }
    Ok(())
}

/// Names of functions by address, for messages; empty for an image without symbols.
fn symbols(
    header: &FileHeader64<Endianness>,
    endian: Endianness,
    bytes: &[u8],
) -> object::read::Result<Vec<(u64, String)>> {
    let sections = header.sections(endian, bytes)?;
    let mut symbols = Vec::new();
    for (_, section) in sections.enumerate() {
        if section.sh_type(endian) != elf::SHT_SYMTAB {
            continue;
        }
        let table = sections.symbols(endian, bytes, elf::SHT_SYMTAB)?;
        for symbol in table.iter() {
            let name = String::from_utf8_lossy(table.symbol_name(endian, symbol)?);
            if symbol.st_type() != elf::STT_FILE && !name.is_empty() {
                symbols.push((symbol.st_value(endian), name.into_owned()));
            }
        }
    }
    symbols.sort();
    Ok(symbols)
}
