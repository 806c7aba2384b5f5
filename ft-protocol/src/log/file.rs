//! The log file.
//!
//! | bytes | field                                                        |
//! |-------|--------------------------------------------------------------|
//! | 8     | magic                                                        |
//! | 4     | format version, little-endian                                |
//! | 4     | the version's complement                                     |
//! | …     | frame 0: [`Header`], [`LogStart`]                            |
//! | …     | frames `start.seq` + 1, + 2, …: [`Entry`]; the last is [`Event::End`] if the run ended |
//!
//! A file that was cut anywhere is a log that ends early, which is not an error: see [`Tail`].

use super::codec::{self, Damage, FRAME_HEADER_LEN, FrameDecoder, MAX_ENTRY_PAYLOAD, PayloadError};
use super::{Entry, Event, Header, LogStart, Position};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use thiserror::Error;

/// The first bytes of a log file. The bytes around the name show a transfer that treated it as text.
pub const MAGIC: [u8; 8] = *b"\x89LKSTP\r\n";
/// The format that this version writes.
pub const FORMAT_VERSION: u32 = 4;
/// Bytes before frame 0.
pub const PREFIX_LEN: usize = 16;

/// Largest start of a log: entries, outputs and exits of a machine never become so many. Adding to it
/// never overflows.
pub const MAX_START: u64 = u64::MAX / 2;

/// Bytes read from the file at a time.
const READ_CHUNK: usize = 64 << 10;

/// Why a log cannot be read, or not be read further.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file could not be read.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Not a log, or its first 16 bytes are damaged.
    #[error("this is no Lockstep log: its first {PREFIX_LEN} bytes are not a log's")]
    BadMagic,
    /// A log of another format version.
    #[error(
        "the log has format version {found}, and this version of lockstep reads version \
         {FORMAT_VERSION}: replay it with the version that wrote it"
    )]
    BadVersion {
        /// The version in the file.
        found: u32,
    },
    /// The file ends inside its header, so it holds no entry.
    #[error("the log is cut inside its header: it holds no entry")]
    CutInHeader,
    /// The file was changed after it was written.
    #[error("the log is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the damaged frame starts, bytes from the start of the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

impl From<Damage> for LogError {
    fn from(Damage { offset, what }: Damage) -> LogError {
        LogError::Damaged { offset, what }
    }
}

/// How the part of a log that was read ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With [`Event::End`]: nothing is missing.
    Ended,
    /// After a whole frame without [`Event::End`]: the log is still being written, or its writer died.
    Open,
    /// Inside a frame.
    Cut {
        /// Where that frame starts, bytes from the start of the file.
        offset: u64,
    },
}

/// A place between two entries of a log file, to which its reader can go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Sequence number of the entry behind it.
    seq: u64,
    /// Where that entry's frame starts in the file.
    offset: u64,
    /// Position of the entry before it.
    last: Position,
    ended: bool,
}

impl Place {
    /// Where the frame behind it starts in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// Writes a log.
#[derive(Debug)]
pub struct LogWriter<W: Write> {
    out: W,
    next_seq: u64,
    /// Reused for each entry.
    frame: Vec<u8>,
}

impl<W: Write> LogWriter<W> {
    /// Starts the log of a machine at its first instruction: writes everything before the first entry.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn create(out: W, header: &Header) -> io::Result<LogWriter<W>> {
        LogWriter::create_at(out, header, LogStart::default())
    }

    /// Starts the log of a machine that ran before.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn create_at(mut out: W, header: &Header, start: LogStart) -> io::Result<LogWriter<W>> {
        let mut bytes = prefix(FORMAT_VERSION).to_vec();
        codec::frame_around(0, MAX_ENTRY_PAYLOAD, &mut bytes, |out| {
            codec::encode_payload(header, out);
            codec::encode_payload(&start, out);
        });
        out.write_all(&bytes)?;
        Ok(LogWriter {
            out,
            next_seq: start.seq + 1,
            frame: Vec::new(),
        })
    }

    /// Appends an entry. Returns its sequence number.
    ///
    /// # Errors
    /// If the output cannot be written. What was written until then is a log, perhaps a cut one.
    pub fn append(&mut self, entry: &Entry) -> io::Result<u64> {
        let seq = self.next_seq;
        self.frame.clear();
        codec::encode_entry(seq, entry, &mut self.frame);
        self.out.write_all(&self.frame)?;
        self.next_seq += 1;
        Ok(seq)
    }

    /// Appends whole frames that are encoded already; the first must have the sequence number
    /// [`Self::next_seq`].
    ///
    /// # Errors
    /// If the output cannot be written.
    ///
    /// # Panics
    /// If a piece is not the next in order.
    pub fn append_pieces(&mut self, pieces: &[(&[u8], u64)]) -> io::Result<()> {
        for (frames, last_seq) in pieces {
            let first = frames.get(4..FRAME_HEADER_LEN - 4);
            let first = first.and_then(|seq| seq.try_into().ok());
            let (first, next) = (first.map(u64::from_le_bytes), Some(self.next_seq));
            assert_eq!(first, next, "pieces are appended in order");
            self.next_seq = last_seq + 1;
        }
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece.0)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match self.out.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The sequence number that the next entry gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The output.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Returns the output, without a flush.
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// Magic, version and the version's complement.
fn prefix(version: u32) -> [u8; PREFIX_LEN] {
    let mut bytes = [0; PREFIX_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..].copy_from_slice(&(!version).to_le_bytes());
    bytes
}

/// Reads a log.
///
/// After the end of the file, [`LogReader::next`] may be called again: it goes on if the file has
/// grown. So a log can be followed while it is written.
#[derive(Debug)]
pub struct LogReader<R: Read> {
    input: R,
    decoder: FrameDecoder,
    header: Header,
    start: LogStart,
    last: Position,
    ended: bool,
    damage: Option<Damage>,
}

impl<R: Read> LogReader<R> {
    /// Reads everything before the first entry.
    ///
    /// # Errors
    /// See [`LogError`]; each of them can occur.
    pub fn open(mut input: R) -> Result<LogReader<R>, LogError> {
        read_prefix(&mut input)?;
        let mut decoder = FrameDecoder::new(0, MAX_ENTRY_PAYLOAD, PREFIX_LEN as u64);
        let (header, start) = loop {
            if let Some(frame) = decoder.next_frame()? {
                break decode_head(frame.payload).map_err(|what| LogError::Damaged {
                    offset: frame.offset,
                    what: format!("the header: {what}"),
                })?;
            }
            if !fill(&mut input, &mut decoder)? {
                return Err(LogError::CutInHeader);
            }
        };
        decoder.expect(start.seq + 1);
        Ok(LogReader {
            input,
            decoder,
            header,
            start,
            last: Position::exit(start.at.exit),
            ended: false,
            damage: None,
        })
    }

    /// The header of the log.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The entry with which it begins.
    pub fn start(&self) -> LogStart {
        self.start
    }

    /// The next entry: its sequence number, where its frame starts in the file, and the entry itself.
    /// `None` at the end of the file; then [`LogReader::tail`] says how the log ends.
    ///
    /// # Errors
    /// [`LogError::Io`], or [`LogError::Damaged`], which is final.
    #[expect(
        clippy::should_implement_trait,
        reason = "an end that may move is no iterator's"
    )]
    pub fn next(&mut self) -> Result<Option<(u64, u64, Entry)>, LogError> {
        loop {
            if let Some(damage) = &self.damage {
                return Err(damage.clone().into());
            }
            match self.take() {
                Ok(Some(item)) => return Ok(Some(item)),
                Ok(None) => {}
                Err(damage) => self.damage = Some(damage),
            }
            if self.damage.is_none() && !fill(&mut self.input, &mut self.decoder)? {
                return Ok(None);
            }
        }
    }

    /// The next entry that was already read from the file.
    fn take(&mut self) -> Result<Option<(u64, u64, Entry)>, Damage> {
        if self.ended && self.decoder.pending() > 0 {
            let what = "the log goes on after its end entry".into();
            return Err(Damage {
                offset: self.decoder.offset(),
                what,
            });
        }
        let Some(frame) = self.decoder.next_frame()? else {
            return Ok(None);
        };
        let (seq, offset) = (frame.seq, frame.offset);
        let entry = codec::decode_entry(frame.payload).map_err(|e| Damage {
            offset,
            what: format!("entry {seq}: {e}"),
        })?;
        if entry.at < self.last {
            let what = format!(
                "entry {seq} goes back from position {} to {}",
                self.last, entry.at
            );
            return Err(Damage { offset, what });
        }
        self.last = entry.at;
        self.ended = matches!(entry.event, Event::End(_));
        Ok(Some((seq, offset, entry)))
    }

    /// How the log ends, as far as it was read. Meaningful after [`LogReader::next`] has returned
    /// `None`.
    pub fn tail(&self) -> Tail {
        match (self.ended, self.decoder.pending()) {
            (true, _) => Tail::Ended,
            (false, 0) => Tail::Open,
            (false, _) => Tail::Cut {
                offset: self.decoder.offset(),
            },
        }
    }
}

impl<R: Read + Seek> LogReader<R> {
    /// Where the next entry is read.
    pub fn place(&self) -> Place {
        Place {
            seq: self.decoder.next_seq(),
            offset: self.decoder.offset(),
            last: self.last,
            ended: self.ended,
        }
    }

    /// Goes to a place of this log: the next entry is the one behind it.
    ///
    /// # Errors
    /// If the file cannot be read there.
    pub fn go_to(&mut self, place: Place) -> io::Result<()> {
        self.input.seek(SeekFrom::Start(place.offset))?;
        self.decoder = FrameDecoder::new(place.seq, MAX_ENTRY_PAYLOAD, place.offset);
        (self.last, self.ended, self.damage) = (place.last, place.ended, None);
        Ok(())
    }
}

/// Why frame 0 does not begin a log.
#[derive(Debug, Error)]
enum HeadError {
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("it begins where no log can")]
    Start,
}

/// Decodes frame 0.
fn decode_head(payload: &[u8]) -> Result<(Header, LogStart), HeadError> {
    let (header, start): (Header, LogStart) = codec::decode_payload(payload)?;
    match start.seq.max(start.outputs).max(start.at.exit) > MAX_START {
        true => Err(HeadError::Start),
        false => Ok((header, start)),
    }
}

/// Reads magic and version.
fn read_prefix(input: &mut impl Read) -> Result<(), LogError> {
    let mut bytes = [0; PREFIX_LEN];
    let mut have = 0;
    while have < PREFIX_LEN {
        match read_some(input, &mut bytes[have..])? {
            0 => break,
            n => have += n,
        }
    }
    if bytes[..have.min(8)] != MAGIC[..have.min(8)] {
        return Err(LogError::BadMagic);
    }
    let [.., a, b, c, d, e, f, g, h] = bytes;
    let found = u32::from_le_bytes([a, b, c, d]);
    if have < PREFIX_LEN {
        return Err(LogError::CutInHeader);
    }
    if u32::from_le_bytes([e, f, g, h]) != !found {
        return Err(LogError::BadMagic);
    }
    match found {
        FORMAT_VERSION => Ok(()),
        _ => Err(LogError::BadVersion { found }),
    }
}

/// Reads more of the file into the decoder. Returns false at the end of the file.
fn fill(input: &mut impl Read, decoder: &mut FrameDecoder) -> io::Result<bool> {
    let mut chunk = [0; READ_CHUNK];
    let n = read_some(input, &mut chunk)?;
    decoder.push(&chunk[..n]);
    Ok(n > 0)
}

/// Reads once; repeated when a signal interrupts it.
fn read_some(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads a whole log. Returns its header, its entries, and how it ends.
///
/// # Errors
/// See [`LogError`].
pub fn read_all(input: impl Read) -> Result<(Header, Vec<Entry>, Tail), LogError> {
    let mut log = LogReader::open(input)?;
    let mut entries = Vec::new();
    while let Some((_, _, entry)) = log.next()? {
        entries.push(entry);
    }
    let tail = log.tail();
    Ok((log.header, entries, tail))
}

/// Writes a whole log. Together with [`read_all`], tests plant faults in logs with it.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_all(out: impl Write, header: &Header, entries: &[Entry]) -> io::Result<()> {
    let mut log = LogWriter::create(out, header)?;
    for entry in entries {
        log.append(entry)?;
    }
    log.flush()
}

#[cfg(test)]
mod tests;
