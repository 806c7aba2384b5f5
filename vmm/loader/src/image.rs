//! Guest images: static ELF files, which are checked before any part of them is loaded.

use super::allowlist;
use lockstep_abi::IMAGE_BASE;
use lockstep_memory::ram::{PAGE, Ram, RamError};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _};
use std::ops::Range;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

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

/// Why a file is not accepted as a guest.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Not an ELF file for this machine.
    #[error(
        "{name} is no guest image: {why}; give a static x86-64 ELF file or the name of a guest that ships with Lockstep"
    )]
    NotAGuest {
        /// Name or path.
        name: String,
        /// What is wrong.
        why: NotAnImage,
    },
    /// It contains an instruction that no replay could reproduce.
    #[error("{name} is refused: {what}; {advice}")]
    Instruction {
        /// Name or path.
        name: String,
        /// Which instruction, where.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// The machine is too small for it.
    #[error("{name} needs {need} MiB of memory and the machine has {have} MiB; raise --mem")]
    TooSmall {
        /// Name or path.
        name: String,
        /// MiB needed.
        need: u64,
        /// MiB there.
        have: u64,
    },
}

/// What is wrong with a file that is to be an image.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum NotAnImage {
    #[error("it is larger than {} MiB", MAX_IMAGE_BYTES >> 20)]
    TooLarge,
    #[error("it is no ELF file")]
    NotElf,
    #[error("its ELF headers are cut or damaged ({0})")]
    Headers(#[from] object::read::Error),
    #[error("it is not for x86-64")]
    OtherMachine,
    #[error("it is not a static executable (ET_EXEC)")]
    NotExecutable,
    #[error("it is not static")]
    NotStatic,
    #[error("its entry point {0:#x} is not in its code")]
    Entry(u64),
    #[error("segment {0:#x} is not mapped one to one")]
    Mapped(u64),
    #[error("it is truncated: segment {start:#x} ends beyond the file's {file_len} bytes")]
    Truncated { start: u64, file_len: usize },
    #[error(
        "segment {start:#x} (+{len:#x}) lies outside {IMAGE_BASE:#x} to {:#x}",
        IMAGE_BASE + MAX_LOADED_BYTES
    )]
    Outside { start: u64, len: u64 },
    #[error("segment {0:#x} is both writable and executable")]
    WritableCode(u64),
    #[error("segments {0:#x} and {1:#x} share a page")]
    SharedPage(u64, u64),
}

/// The hash by which an image is known, whatever is in the file.
pub fn image_hash(bytes: &[u8]) -> u128 {
    xxh3_128(bytes)
}

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

/// A checked guest image.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    bytes: Vec<u8>,
    entry: u64,
    segments: Vec<(Segment, Range<usize>)>,
    symbols: Vec<(u64, String)>,
}

impl Image {
    /// Checks a file: it must be a static ELF file.
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Image, ImageError> {
        Image::parse_headers(name, bytes).map_err(|why| ImageError::NotAGuest {
            name: name.to_string(),
            why,
        })
    }

    /// Checks its code: it must have allowed instructions only, where the host's CPU executes it.
    pub fn check_instructions(&self) -> Result<(), ImageError> {
        for (segment, file) in &self.segments {
            if segment.executable {
                allowlist::check(&self.bytes[file.clone()], segment.start, &self.symbols).map_err(
                    |refused| ImageError::Instruction {
                        name: self.name.clone(),
                        what: refused.to_string(),
                        advice: refused.advice(),
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Does it count its own branch edges? It does if its code calls [`EDGE_CALLBACK`] anywhere.
    pub fn counts_edges(&self) -> bool {
        let named = self.symbols.iter().find(|(_, name)| name == EDGE_CALLBACK);
        let Some(&(callback, _)) = named else {
            return false;
        };
        let mut code = self.segments.iter().filter(|(s, _)| s.executable);
        code.any(|(segment, file)| {
            let bytes = self.bytes[file.clone()].windows(CALL_LEN);
            bytes.zip(segment.start..).any(|(bytes, at)| {
                let distance = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
                let next = at + CALL_LEN as u64;
                bytes[0] == CALL && next.wrapping_add_signed(distance.into()) == callback
            })
        })
    }

    fn parse_headers(name: &str, bytes: Vec<u8>) -> Result<Image, NotAnImage> {
        if bytes.len() > MAX_IMAGE_BYTES {
            return Err(NotAnImage::TooLarge);
        }
        if !bytes.starts_with(&elf::ELFMAG) {
            return Err(NotAnImage::NotElf);
        }
        let header = FileHeader64::<Endianness>::parse(&*bytes)?;
        let endian = header.endian()?;
        if header.e_machine(endian) != elf::EM_X86_64 {
            return Err(NotAnImage::OtherMachine);
        }
        if header.e_type(endian) != elf::ET_EXEC {
            return Err(NotAnImage::NotExecutable);
        }
        let mut segments = Vec::new();
        for program in header.program_headers(endian, &*bytes)? {
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
        let symbols = symbols(header, endian, &bytes)?;
        Ok(Image {
            name: name.to_string(),
            entry,
            segments,
            symbols,
            bytes,
        })
    }

    /// Its name or path, as the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// xxh3-128 of the file.
    pub fn hash(&self) -> u128 {
        image_hash(&self.bytes)
    }

    /// Address of its entry point.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Address of the first page after it.
    pub fn end(&self) -> u64 {
        let end = self.segments.iter().map(|(s, _)| s.pages().end).max();
        end.expect("an image has a segment")
    }

    /// Its segments.
    pub fn segments(&self) -> Vec<Segment> {
        self.segments.iter().map(|(s, _)| *s).collect()
    }

    /// Copies the segments into `ram`.
    pub fn load(&self, ram: &Ram) -> Result<(), ImageError> {
        let too_small = |_: RamError| ImageError::TooSmall {
            name: self.name.clone(),
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
            ram.write(segment.start, &self.bytes[file.clone()])
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
