//! Linux guests: a kernel as distributions ship it, with its initrd and its command line.
//!
//! The three travel and are recorded as one image. The kernel is kept as it was given and unpacked when the
//! machine is built, so that the guest need not do it.

mod acpi;
mod kernel;
mod memory;
mod start;
mod unpack;

pub(crate) use start::prepare;

use crate::image::ImageError;
use ft_protocol::wire::MAX_IMAGE;
use kernel::is_kernel;
use std::ops::Range;
use thiserror::Error;

/// How the image of a Linux guest begins. No ELF file begins so.
const MAGIC: &[u8; 8] = b"LSLINUX\x01";
/// Lengths of kernel, initrd and command line follow.
const HEAD: usize = MAGIC.len() + 3 * size_of::<u64>();
/// Longest command line, bytes: what x86 kernels take (`COMMAND_LINE_SIZE`), without the zero at its end.
pub const MAX_COMMAND_LINE: usize = 2047;
/// Longest kernel file and initrd together, bytes: they must fit into a message to a backup.
pub const MAX_LINUX_BYTES: usize = MAX_IMAGE - HEAD - MAX_COMMAND_LINE;

/// Why a kernel, or what goes with it, is not accepted.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum NotBootable {
    #[error(
        "it is no Linux kernel (a bzImage or a vmlinux for x86-64), and --initrd and --append are for one"
    )]
    NotAKernel,
    #[error("kernel and initrd together are larger than {} MiB", MAX_LINUX_BYTES >> 20)]
    TooLarge,
    #[error("its command line is longer than {MAX_COMMAND_LINE} bytes; shorten --append")]
    CommandLine,
    #[error("its command line has a zero byte; remove it from --append")]
    ZeroByte,
    #[error("its image is damaged ({0})")]
    Container(&'static str),
    #[error("its header is cut")]
    Cut,
    #[error("its boot protocol is {}.{:02}, and 2.08 or later is needed, as Linux has since 2.6.26", .0 >> 8, .0 & 0xff)]
    TooOld(u16),
    #[error("it is no 64-bit kernel")]
    Not64Bit,
    #[error("it is packed in a way that is not known ({0}); known are gzip, xz, zstd and lz4")]
    Packing(String),
    #[error("its {0} data is damaged ({1})")]
    Damaged(&'static str, String),
    #[error("unpacked it is larger than {} MiB", unpack::MAX_UNPACKED >> 20)]
    UnpacksTooLarge,
    #[error("the ELF headers of its vmlinux are cut or damaged ({0})")]
    Elf(#[from] object::read::Error),
    #[error("its vmlinux has a segment at {0:#x} that lies outside its file, or below 1 MiB")]
    Segment(u64),
    #[error("its entry point {0:#x} is in none of its segments")]
    Entry(u64),
}

impl NotBootable {
    pub(crate) fn of(self, name: &str) -> ImageError {
        ImageError::NotBootable {
            name: name.to_owned(),
            why: self,
        }
    }
}

/// A kernel file, an initrd, which may be empty, and a command line.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// bzImage or vmlinux.
    pub kernel: &'a [u8],
    /// The initial RAM disk; empty if there is none.
    pub initrd: &'a [u8],
    /// The command line.
    pub command_line: &'a [u8],
}

/// Is this the file of a Linux kernel?
pub fn is_linux(file: &[u8]) -> bool {
    is_kernel(file)
}

impl Parts<'_> {
    /// The three as one.
    pub(crate) fn pack(&self) -> Result<Vec<u8>, NotBootable> {
        let parts = [self.kernel, self.initrd, self.command_line];
        if !is_kernel(self.kernel) {
            return Err(NotBootable::NotAKernel);
        }
        if self.kernel.len() + self.initrd.len() > MAX_LINUX_BYTES {
            return Err(NotBootable::TooLarge);
        }
        if self.command_line.len() > MAX_COMMAND_LINE {
            return Err(NotBootable::CommandLine);
        }
        if self.command_line.contains(&0) {
            return Err(NotBootable::ZeroByte);
        }
        let lengths = parts.map(|part| (part.len() as u64).to_le_bytes());
        Ok([&MAGIC[..], &lengths.concat(), &parts.concat()].concat())
    }
}

/// Where the three lie in the image.
#[derive(Clone, Debug)]
pub(crate) struct Linux {
    kernel: Range<usize>,
    initrd: Range<usize>,
    command_line: Range<usize>,
}

impl Linux {
    /// Looks at an image, which may come from a peer or a file. None: it is of another kind.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Result<Linux, NotBootable>> {
        let rest = bytes.strip_prefix(MAGIC)?;
        Some(Linux::parse_rest(bytes, rest))
    }

    fn parse_rest(bytes: &[u8], rest: &[u8]) -> Result<Linux, NotBootable> {
        const CUT: NotBootable = NotBootable::Container("it is cut");
        let (words, _) = rest.as_chunks::<8>();
        let mut at = HEAD;
        let mut lengths = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut part = || {
            let len = lengths.next().ok_or(CUT)?;
            let end = usize::try_from(len)
                .ok()
                .and_then(|len| at.checked_add(len));
            let end = end.filter(|end| *end <= bytes.len()).ok_or(CUT)?;
            Ok::<_, NotBootable>(std::mem::replace(&mut at, end)..end)
        };
        let linux = Linux {
            kernel: part()?,
            initrd: part()?,
            command_line: part()?,
        };
        match at == bytes.len() {
            false => Err(NotBootable::Container("something follows it")),
            true if linux.command_line.len() > MAX_COMMAND_LINE => Err(NotBootable::CommandLine),
            true => Ok(linux),
        }
    }

    pub(crate) fn parts<'a>(&self, bytes: &'a [u8]) -> Parts<'a> {
        Parts {
            kernel: &bytes[self.kernel.clone()],
            initrd: &bytes[self.initrd.clone()],
            command_line: &bytes[self.command_line.clone()],
        }
    }
}

#[cfg(test)]
mod tests;
