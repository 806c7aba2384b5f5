//! Frames and payloads: the same encoding on the wire and on disk.
//!
//! A frame is
//!
//! | bytes | field                                     |
//! |-------|-------------------------------------------|
//! | 4     | payload length, little-endian             |
//! | 8     | sequence, little-endian                   |
//! | 4     | CRC-32 of the 12 bytes before             |
//! | n     | payload                                   |
//! | 4     | CRC-32 of the payload                     |
//!
//! The length has its own checksum, so that a stream that ends early can be told from a damaged one: a
//! flipped bit in the length cannot make a frame look incomplete.
//!
//! This is the only module that calls bincode.

use super::{Check, Entry, Event, Position};
use bincode::{Decode, Encode};
use std::ops::Range;
use thiserror::Error;

/// Bytes before a frame's payload.
pub const FRAME_HEADER_LEN: usize = 16;
/// Bytes after a frame's payload.
pub const FRAME_TRAILER_LEN: usize = 4;
/// Longest payload of a log entry or of a log's header, bytes.
pub const MAX_ENTRY_PAYLOAD: usize = 1 << 20;
/// Longest payload of a message on the logging channel, bytes: it must be enough for a guest image.
pub const MAX_MESSAGE_PAYLOAD: usize = 256 << 20;

/// Consumed bytes in a decoder's buffer after which the rest is moved to the front.
const COMPACT_AT: usize = 64 << 10;

/// A stream of frames that was damaged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[error("damaged at byte {offset}: {what}")]
pub struct Damage {
    /// Where the damaged frame starts, bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
}

/// What is wrong with a frame.
#[derive(Debug, Error)]
enum Unsound {
    #[error("the checksum of a frame's header does not hold")]
    Header,
    #[error("frame {seq} where {due} belongs")]
    Sequence { seq: u64, due: u64 },
    #[error("a payload of {len} bytes, the limit is {limit}")]
    Length { len: usize, limit: usize },
    #[error("the checksum of frame {0}'s payload does not hold")]
    Payload(u64),
}

/// A payload that does not decode.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// Its bytes do not decode.
    #[error("its content is not understood ({0})")]
    Undecodable(String),
    /// There are bytes after the value.
    #[error("{0} bytes too many after its content")]
    Trailing(usize),
}

/// A whole frame, as a [`FrameDecoder`] hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// Its content.
    pub payload: &'a [u8],
    /// Where it starts, bytes from the start of the stream.
    pub offset: u64,
}

impl Frame<'_> {
    /// Length of the whole frame, bytes.
    pub fn size(&self) -> usize {
        frame_len(self.payload.len())
    }
}

/// Length of a frame with a payload of `payload` bytes.
pub const fn frame_len(payload: usize) -> usize {
    FRAME_HEADER_LEN + payload + FRAME_TRAILER_LEN
}

/// Appends a frame with this payload to `out`.
///
/// # Panics
/// If the payload is longer than [`MAX_MESSAGE_PAYLOAD`].
pub fn encode_frame(seq: u64, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(frame_len(payload.len()));
    frame_around(seq, MAX_MESSAGE_PAYLOAD, out, |out| {
        out.extend_from_slice(payload);
    });
}

/// Appends a log entry's frame to `out`.
///
/// # Panics
/// If the entry is longer than [`MAX_ENTRY_PAYLOAD`]; the inputs of backends are far smaller.
pub fn encode_entry(seq: u64, entry: &Entry, out: &mut Vec<u8>) {
    frame_around(seq, MAX_ENTRY_PAYLOAD, out, |out| {
        encode_payload(entry, out)
    });
}

/// Appends a frame whose payload `fill` appends.
pub(crate) fn frame_around(
    seq: u64,
    limit: usize,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
    fill(out);
    finish_frame(start, seq, limit, out);
}

/// Completes the frame that begins at `start`: room for its header is there, and its payload.
fn finish_frame(start: usize, seq: u64, limit: usize, out: &mut Vec<u8>) {
    let payload = start + FRAME_HEADER_LEN;
    let len = out.len() - payload;
    assert!(
        len <= limit,
        "a payload of {len} bytes in a frame that holds {limit}"
    );
    let crc = crc32fast::hash(&out[payload..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    out[start + 4..start + 12].copy_from_slice(&seq.to_le_bytes());
    let crc = crc32fast::hash(&out[start..start + 12]);
    out[start + 12..payload].copy_from_slice(&crc.to_le_bytes());
}

/// An input that is bytes, and comes from elsewhere: its log entry is made around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BytesInput {
    /// [`Event::Frame`].
    Frame,
    /// [`Event::ConsoleInput`].
    Console,
    /// [`Event::Entropy`].
    Entropy,
}

impl BytesInput {
    /// Its event, of no bytes.
    fn empty(self) -> Event {
        let data = Vec::new();
        match self {
            BytesInput::Frame => Event::Frame { data },
            BytesInput::Console => Event::ConsoleInput { data },
            BytesInput::Entropy => Event::Entropy { data },
        }
    }
}

/// Appends a log entry's frame to `out` whose input `fill` puts where it belongs: into a buffer of `room`
/// bytes, of which it says how many it used. Gives where they are in `out`. None if there is no input: then
/// nothing is appended.
///
/// The bytes are not moved if the length of the input is encoded like a length of `guess`: both are shorter
/// than 251 bytes, or none is.
///
/// # Errors
/// Those of `fill`; `out` is as it was.
///
/// # Panics
/// If `room` is over 65535, or `fill` used more.
pub fn encode_bytes<E>(
    (seq, at, check): (u64, Position, Option<Check>),
    input: BytesInput,
    out: &mut Vec<u8>,
    (room, guess): (usize, usize),
    fill: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>,
) -> Result<Option<Range<usize>>, E> {
    assert!(room <= usize::from(u16::MAX), "a length in three bytes");
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
    let event = input.empty();
    encode_up_to_bytes(&Entry { at, check, event }, out);
    let length = out.len();
    let data = length + length_len(guess);
    // Two more: the bytes may have to move.
    out.resize(data + room + 2, 0);
    let filled = fill(&mut out[data..data + room]);
    let Ok(Some(used)) = filled else {
        out.truncate(start);
        return filled.map(|_| None);
    };
    assert!(used <= room, "{used} bytes in a buffer of {room}");
    let place = length + length_len(used);
    if place != data {
        out.copy_within(data..data + used, place);
    }
    encode_len(used, &mut out[length..place]);
    out.truncate(place + used);
    finish_frame(start, seq, MAX_ENTRY_PAYLOAD, out);
    Ok(Some(place..place + used))
}

/// Appends the encoding of a value that ends with bytes, of which it has none: as if `len` of them came next.
pub(crate) fn encode_bytes_of<T: Encode>(empty: &T, len: usize, out: &mut Vec<u8>) {
    encode_up_to_bytes(empty, out);
    encode_payload(&(len as u64), out);
}

/// The same, as far as their length.
fn encode_up_to_bytes<T: Encode>(empty: &T, out: &mut Vec<u8>) {
    encode_payload(empty, out);
    let length = out.pop();
    assert_eq!(length, Some(0), "the length of no bytes comes last");
}

/// Lengths from here on are encoded as this byte and two more (bincode's variable encoding).
const TWO_BYTES: u8 = 251;

/// How many bytes a length is encoded in.
fn length_len(len: usize) -> usize {
    if len < usize::from(TWO_BYTES) { 1 } else { 3 }
}

/// Encodes a length, of at most 65535, as the encoding of a `Vec` begins with it.
fn encode_len(len: usize, out: &mut [u8]) {
    match out {
        [short] => *short = len as u8,
        [mark, rest @ ..] => {
            *mark = TWO_BYTES;
            rest.copy_from_slice(&(len as u16).to_le_bytes());
        }
        [] => unreachable!("a length has a byte at least"),
    }
}

/// Appends a value's encoding to `out`.
pub fn encode_payload<T: Encode>(value: &T, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, bincode::config::standard())
        .expect("a Vec takes any bytes, and no type here refuses to be encoded");
}

/// Decodes a value. The payload must contain it and nothing else.
///
/// A length inside the payload cannot make this allocate much more than the payload's own size. bincode
/// allocates up to its limit before it looks for the bytes, so the limit grows with the payload. The
/// factor is needed because an integer counts in full, however short its encoding.
///
/// # Errors
/// If the payload is not a `T`, or goes on after it.
pub fn decode_payload<T: Decode<()>>(payload: &[u8]) -> Result<T, PayloadError> {
    let config = bincode::config::standard();
    let decoded = match payload.len() {
        0..=0x1000 => bincode::decode_from_slice(payload, config.with_limit::<0x2000>()),
        0x1001..=0x1_0000 => bincode::decode_from_slice(payload, config.with_limit::<0x2_0000>()),
        0x1_0001..=0x10_0000 => {
            bincode::decode_from_slice(payload, config.with_limit::<0x20_0000>())
        }
        0x10_0001..=0x100_0000 => {
            bincode::decode_from_slice(payload, config.with_limit::<0x200_0000>())
        }
        _ => bincode::decode_from_slice(
            payload,
            config.with_limit::<{ MAX_MESSAGE_PAYLOAD + 0x1000 }>(),
        ),
    };
    let (value, used) = decoded.map_err(|e| PayloadError::Undecodable(e.to_string()))?;
    match payload.len() - used {
        0 => Ok(value),
        more => Err(PayloadError::Trailing(more)),
    }
}

/// Reads the payload of a log entry's frame.
///
/// # Errors
/// If it is not an entry, or goes on after it.
pub fn decode_entry(payload: &[u8]) -> Result<Entry, PayloadError> {
    decode_payload(payload)
}

/// Splits a stream of bytes into frames, and checks that their sequence numbers count up by one.
///
/// Push bytes as they arrive, then take frames until there is none. Damage is final: after it was
/// found, every call returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameDecoder {
    buf: Vec<u8>,
    /// Where the next frame starts in `buf`.
    start: usize,
    /// Where the next frame starts in the stream.
    offset: u64,
    next_seq: u64,
    max_payload: usize,
    damage: Option<Damage>,
}

impl FrameDecoder {
    /// A decoder of frames from `first_seq` on with payloads of at most `max_payload` bytes; the
    /// first byte pushed is the stream's byte `offset`.
    pub fn new(first_seq: u64, max_payload: usize, offset: u64) -> FrameDecoder {
        FrameDecoder {
            buf: Vec::new(),
            start: 0,
            offset,
            next_seq: first_seq,
            max_payload,
            damage: None,
        }
    }

    /// The next frame must have the sequence number `seq`, whatever the last one had.
    pub fn expect(&mut self, seq: u64) {
        self.next_seq = seq;
    }

    /// Takes more of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buf.len() || self.start >= COMPACT_AT {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Number of bytes that were pushed and are not part of a returned frame.
    pub fn pending(&self) -> usize {
        self.buf.len() - self.start
    }

    /// Where the next frame starts, bytes from the start of the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame; `None` until more of it is pushed.
    ///
    /// # Errors
    /// If a checksum is wrong, a sequence number is not the next one, or a length exceeds the limit.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Damage> {
        if let Some(damage) = &self.damage {
            return Err(damage.clone());
        }
        let len = match self.check() {
            Ok(Some(len)) => len,
            Ok(None) => return Ok(None),
            Err(unsound) => {
                let damage = Damage {
                    offset: self.offset,
                    what: unsound.to_string(),
                };
                self.damage = Some(damage.clone());
                return Err(damage);
            }
        };
        let payload = self.start + FRAME_HEADER_LEN;
        let frame = Frame {
            seq: self.next_seq,
            payload: &self.buf[payload..payload + len],
            offset: self.offset,
        };
        self.start += frame_len(len);
        self.offset += frame_len(len) as u64;
        self.next_seq += 1;
        Ok(Some(frame))
    }

    /// The payload's length, if a whole frame is there and its checksums are right.
    fn check(&self) -> Result<Option<usize>, Unsound> {
        let bytes = &self.buf[self.start..];
        let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>() else {
            return Ok(None);
        };
        if crc32fast::hash(&head[..12]).to_le_bytes() != head[12..] {
            return Err(Unsound::Header);
        }
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let seq = u64::from_le_bytes(head[4..12].try_into().expect("eight bytes"));
        if seq != self.next_seq {
            let due = self.next_seq;
            return Err(Unsound::Sequence { seq, due });
        }
        if len > self.max_payload {
            let limit = self.max_payload;
            return Err(Unsound::Length { len, limit });
        }
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            return Ok(None);
        };
        let Some(crc) = rest.first_chunk::<FRAME_TRAILER_LEN>() else {
            return Ok(None);
        };
        if crc32fast::hash(payload).to_le_bytes() != *crc {
            return Err(Unsound::Payload(seq));
        }
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests;
