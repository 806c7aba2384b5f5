//! A checkpoint file: the machine with which a log begins, if the machine ran before.
//!
//! | bytes | field                                    |
//! |-------|------------------------------------------|
//! | 8     | magic                                    |
//! | 4     | version, little-endian                   |
//! | 4     | the version's complement                 |
//! | …     | frames 0, 1, 2, …: one [`Piece`] each    |
//!
//! The pieces are: the start, the state, all of memory in chunks, the end. A file without its end is
//! not a checkpoint.

use bincode::{Decode, Encode};
use ft_protocol::log::codec::{PayloadError, decode_payload, encode_frame, encode_payload};
use ft_protocol::log::{Damage, FrameDecoder, Header, LogStart, MachineConfig, Position};
use lockstep_machine::{Machine, MachineError, MachineState, StateError};
use lockstep_memory::pages::{CHUNK_BYTES, CHUNK_PAGES};
use lockstep_memory::{PageError, PageReceiver, PageSender, Ram, RamDigest, RamError};
use lockstep_vcpu::CpuBackend;
use std::io::{self, Read, Write};
use thiserror::Error;

/// The first bytes of a checkpoint.
const MAGIC: [u8; 8] = *b"\x89LKCHK\r\n";
/// The format version that is written, and the only one that can be read.
pub const CHECKPOINT_VERSION: u32 = 1;
/// Bytes before frame 0.
const PREFIX_LEN: usize = 16;
/// Longest payload, bytes: a chunk of memory, plus its encoding as a [`Piece`].
const MAX_PAYLOAD: usize = CHUNK_BYTES + 64;
/// Bytes read from the file at a time.
const READ_CHUNK: usize = 1 << 20;

/// Why a file gives no machine.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// It could not be read.
    #[error("the checkpoint cannot be read ({0}); the recording begins with it")]
    Io(#[from] io::Error),
    /// It is not a checkpoint.
    #[error(
        "this is no checkpoint: its first {PREFIX_LEN} bytes are not one's; put the original one back"
    )]
    BadMagic,
    /// It has another format version.
    #[error(
        "the checkpoint has format version {found}, and this version of lockstep reads {CHECKPOINT_VERSION}: \
         replay it with the version that wrote it"
    )]
    BadVersion {
        /// The version in the file.
        found: u32,
    },
    /// It ends too early.
    #[error("the checkpoint is cut: it does not hold a whole machine; nothing can be replayed")]
    Cut,
    /// Its content was changed after it was written.
    #[error("the checkpoint is damaged at byte {offset} ({what}); nothing can be replayed")]
    Damaged {
        /// Where the damaged frame starts, bytes from the start of the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// It belongs to another log.
    #[error("the checkpoint is not the one that the log begins with; put the original one back")]
    Other,
    /// There is no memory for the machine.
    #[error(transparent)]
    Ram(#[from] RamError),
}

impl From<Damage> for CheckpointError {
    fn from(Damage { offset, what }: Damage) -> CheckpointError {
        CheckpointError::Damaged { offset, what }
    }
}

/// Why a piece is not one of a machine.
#[derive(Debug, Error)]
enum PieceError {
    #[error(transparent)]
    Payload(PayloadError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Pages(#[from] PageError),
    #[error("its memory is not all there")]
    Memory,
    #[error("its pieces are out of order")]
    Order,
}

/// The content of a frame.
#[derive(Encode, Decode)]
enum Piece {
    /// Where the log begins, and the hash of the guest's image.
    Start { start: LogStart, guest: u128 },
    /// [`MachineState::encode`].
    State(Vec<u8>),
    /// [`PageSender::chunk`].
    Pages(Vec<u8>),
    /// The digest of all of memory.
    End { memory: u64 },
}

/// Writes the checkpoint of a machine in `state` with the memory `ram`. Calls `wrote` after each piece.
pub fn write(
    mut out: impl Write,
    header: &Header,
    start: LogStart,
    (state, ram): (&MachineState, &Ram),
    wrote: &dyn Fn(),
) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(CHECKPOINT_VERSION.to_le_bytes());
    bytes.extend((!CHECKPOINT_VERSION).to_le_bytes());
    out.write_all(&bytes)?;
    let mut seq = 0;
    let mut put = |piece: &Piece| {
        let (mut payload, mut frame) = (Vec::new(), Vec::new());
        encode_payload(piece, &mut payload);
        encode_frame(seq, &payload, &mut frame);
        seq += 1;
        out.write_all(&frame)?;
        wrote();
        Ok::<(), io::Error>(())
    };
    let guest = header.guest.hash;
    put(&Piece::Start { start, guest })?;
    put(&Piece::State(state.encode()))?;
    let mut sender = PageSender::new(ram);
    let pages: Vec<usize> = (0..ram.pages()).collect();
    for pages in pages.chunks(CHUNK_PAGES) {
        put(&Piece::Pages(sender.chunk(pages)))?;
    }
    let memory = sender.digest();
    put(&Piece::End { memory })?;
    out.flush()
}

/// A machine that was read from a checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    state: MachineState,
    ram: Ram,
    digest: RamDigest,
}

impl Checkpoint {
    /// Reads the checkpoint of the log with this header and this start.
    pub fn read(
        mut input: impl Read,
        header: &Header,
        start: LogStart,
    ) -> Result<Checkpoint, CheckpointError> {
        let offset = read_prefix(&mut input)?;
        let mut frames = FrameDecoder::new(0, MAX_PAYLOAD, offset);
        let mut reading = Reading {
            begun: false,
            state: None,
            memory: PageReceiver::new(Ram::new(header.machine.mem_mib)?),
        };
        let mut chunk = vec![0; READ_CHUNK];
        loop {
            while let Some(frame) = frames.next_frame()? {
                let offset = frame.offset;
                let damaged = |why: PieceError| CheckpointError::Damaged {
                    offset,
                    what: why.to_string(),
                };
                let piece = decode_payload(frame.payload);
                let piece = piece.map_err(|e| damaged(PieceError::Payload(e)))?;
                if let Piece::Start { start: its, guest } = &piece
                    && (*its != start || *guest != header.guest.hash)
                {
                    return Err(CheckpointError::Other);
                }
                if reading.take(piece).map_err(damaged)? {
                    return match frames.pending() {
                        0 if reading.position() != Some(start.at) => Err(CheckpointError::Other),
                        0 => Ok(reading.done()),
                        _ => {
                            let what = "it goes on after its end".into();
                            Err(Damage { offset, what }.into())
                        }
                    };
                }
            }
            match input.read(&mut chunk) {
                Ok(0) => return Err(CheckpointError::Cut),
                Ok(n) => frames.push(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Had the machine left its position? Then the log's first entry belongs to a later one.
    pub fn left(&self) -> bool {
        self.state.left()
    }

    /// Makes the machine.
    pub fn restore(
        self,
        backend: &dyn CpuBackend,
        config: &MachineConfig,
    ) -> Result<Machine, MachineError> {
        Machine::restore(backend, config, self.ram, self.digest, &self.state)
    }
}

/// What was read so far.
struct Reading {
    begun: bool,
    state: Option<MachineState>,
    memory: PageReceiver,
}

impl Reading {
    /// Takes the next piece. Returns true if it was the last.
    fn take(&mut self, piece: Piece) -> Result<bool, PieceError> {
        match (piece, self.begun, &self.state) {
            (Piece::Start { .. }, false, None) => self.begun = true,
            (Piece::State(bytes), true, None) => {
                self.state = Some(MachineState::decode(&bytes)?);
            }
            (Piece::Pages(bytes), true, Some(_)) => {
                self.memory.take(&bytes)?;
            }
            (Piece::End { memory }, true, Some(_)) => {
                return match memory == self.memory.digest() {
                    true => Ok(true),
                    false => Err(PieceError::Memory),
                };
            }
            _ => return Err(PieceError::Order),
        }
        Ok(false)
    }

    fn position(&self) -> Option<Position> {
        self.state.as_ref().map(MachineState::position)
    }

    fn done(self) -> Checkpoint {
        let (ram, digest) = self.memory.into_parts();
        Checkpoint {
            state: self.state.expect("the end comes after it"),
            ram,
            digest,
        }
    }
}

/// Reads magic and version. Returns their length in bytes.
fn read_prefix(input: &mut impl Read) -> Result<u64, CheckpointError> {
    let mut bytes = [0; PREFIX_LEN];
    match input.read_exact(&mut bytes) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(CheckpointError::Cut),
        result => result?,
    }
    let (magic, versions) = bytes.split_at(MAGIC.len());
    let word = |at: usize| u32::from_le_bytes(versions[at..at + 4].try_into().expect("four bytes"));
    let (found, complement) = (word(0), word(4));
    if magic != MAGIC || complement != !found {
        return Err(CheckpointError::BadMagic);
    }
    match found {
        CHECKPOINT_VERSION => Ok(PREFIX_LEN as u64),
        _ => Err(CheckpointError::BadVersion { found }),
    }
}
