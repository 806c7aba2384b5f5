//! Guest images: what a guest is loaded from, whatever kind of guest it is.

use crate::linux::{Linux, NotBootable, Parts};
use crate::program::{MAX_IMAGE_BYTES, MAX_LOADED_BYTES, Program};
use ft_protocol::log::BootProtocol;
use lockstep_abi::IMAGE_BASE;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

/// Why a file is not accepted as a guest.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Not an ELF file for this machine.
    #[error(
        "{name} is no guest image: {why}; give a static x86-64 ELF file, a Linux kernel, or the name of a guest that ships with Lockstep"
    )]
    NotAGuest {
        /// Name or path.
        name: String,
        /// What is wrong.
        why: NotAnImage,
    },
    /// A Linux kernel, or what comes with it.
    #[error("{name} cannot be booted: {why}")]
    NotBootable {
        /// Name or path.
        name: String,
        /// What is wrong.
        why: NotBootable,
    },
    /// Linux is no program for this machine, but for a PC.
    #[error(
        "{name} is a Linux kernel, which runs on the software CPU only: use --cpu soft or auto"
    )]
    NeedsCount {
        /// Name or path.
        name: String,
    },
    /// The log or the peer says that it starts in another way than it does.
    #[error(
        "{name} does not start as the machine's configuration says; it was exchanged or damaged"
    )]
    OtherBoot {
        /// Name or path.
        name: String,
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

/// A checked guest image: one run of bytes, whatever it is made of, as it travels to a backup and lies beside a
/// log.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    bytes: Vec<u8>,
    content: Content,
}

/// What the bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A program for this machine.
    Program(Program),
    /// A Linux kernel with its initrd and its command line.
    Linux(Linux),
}

impl Image {
    /// Checks an image: a static ELF file, or what [`Image::linux`] made.
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Image, ImageError> {
        let content = match Linux::parse(&bytes) {
            Some(Ok(linux)) => Content::Linux(linux),
            Some(Err(why)) => return Err(why.of(name)),
            None => {
                Content::Program(Program::parse(&bytes).map_err(|why| ImageError::NotAGuest {
                    name: name.to_owned(),
                    why,
                })?)
            }
        };
        Ok(Image {
            name: name.to_owned(),
            bytes,
            content,
        })
    }

    /// The image of a Linux kernel, a bzImage or a vmlinux, with what goes with it.
    pub fn linux(name: &str, parts: &Parts<'_>) -> Result<Image, ImageError> {
        let bytes = parts.pack().map_err(|why| why.of(name))?;
        Image::parse(name, bytes)
    }

    /// How it is started.
    pub fn boot(&self) -> BootProtocol {
        match self.content {
            Content::Program(_) => BootProtocol::LockstepAbi,
            Content::Linux(_) => BootProtocol::Linux,
        }
    }

    /// Checks its code: it must have allowed instructions only, where the host's CPU executes it.
    pub fn check_instructions(&self) -> Result<(), ImageError> {
        match &self.content {
            Content::Program(program) => program.check_instructions(&self.name, &self.bytes),
            Content::Linux(_) => Err(ImageError::NeedsCount {
                name: self.name.clone(),
            }),
        }
    }

    /// Does it count its own branch edges?
    pub fn counts_edges(&self) -> bool {
        match &self.content {
            Content::Program(program) => program.counts_edges(&self.bytes),
            Content::Linux(_) => false,
        }
    }

    /// Address of a program's entry point; a kernel's is known when it is unpacked.
    pub fn entry(&self) -> Option<u64> {
        match &self.content {
            Content::Program(program) => Some(program.entry()),
            Content::Linux(_) => None,
        }
    }

    /// Its name or path, as the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// xxh3-128 of its bytes.
    pub fn hash(&self) -> u128 {
        image_hash(&self.bytes)
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }
}
