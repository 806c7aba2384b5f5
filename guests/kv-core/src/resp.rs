//! Reads commands: RESP2 arrays of bulk strings, and inline commands (words on a line).
//!
//! See the specification of the Redis serialization protocol. Commands are the same in RESP2 and RESP3.

use alloc::vec::Vec;

use thiserror::Error;

use crate::inline;
use crate::number;

/// Longest bulk string, and so the longest key and value, bytes.
pub const MAX_BULK: usize = 512 * 1024;
/// Most arguments of a command, including its name.
pub const MAX_ARGS: usize = 16_384;
/// Longest command, bytes.
pub const MAX_COMMAND: usize = 2 * 1024 * 1024;
/// Longest inline command, bytes.
pub const MAX_INLINE: usize = 64 * 1024;
/// Longest line with a count, bytes.
const MAX_COUNT_LINE: usize = 32;

/// The bytes are not a command. The connection cannot go on, as the begin of the next command is
/// unknown.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// The count after `*` is not a number or too large.
    #[error("invalid multibulk length (a command has at most {MAX_ARGS} arguments)")]
    ArrayLength,
    /// The count after `$` is not a number or too large.
    #[error("invalid bulk length (a string has at most {MAX_BULK} bytes)")]
    BulkLength,
    /// An array's element is not a bulk string.
    #[error("expected '$', got '{}'", char::from(*.0).escape_default())]
    NoBulk(u8),
    /// A bulk string is longer than it said.
    #[error("expected the end of a bulk string")]
    BulkEnd,
    /// A line is too long for a count.
    #[error("too big count string")]
    CountTooLong,
    /// An inline command is too long.
    #[error("too big inline request (at most {MAX_INLINE} bytes)")]
    InlineTooLong,
    /// An inline command has a quote that does not end, or text directly after a quote.
    #[error("unbalanced quotes in request")]
    Quotes,
    /// All arguments together are too long.
    #[error("too big command (at most {MAX_COMMAND} bytes)")]
    CommandTooLong,
}

/// The places of a command's arguments. Used for all commands of a connection in turn; it never grows.
pub struct Arguments {
    places: Vec<(u32, u32)>,
    /// The words of an inline command, without their quotes.
    words: Vec<u8>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            places: Vec::with_capacity(MAX_ARGS),
            words: Vec::with_capacity(MAX_INLINE),
        }
    }
}

/// A complete command: its name and its arguments.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    input: &'a [u8],
    places: &'a [(u32, u32)],
}

impl<'a> Command<'a> {
    /// The number of arguments, including the name.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Is there nothing to execute (an empty line, an empty array)?
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Argument `index`; 0 is the name.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        let (start, end) = self.places[index];
        &self.input[start as usize..end as usize]
    }

    /// The arguments from `first` on.
    pub fn args_from(self, first: usize) -> impl Iterator<Item = &'a [u8]> + Clone {
        (first..self.len()).map(move |index| self.arg(index))
    }
}

/// The first command of `input` and its length in bytes; `None` if it is not complete.
pub fn parse<'a>(
    input: &'a [u8],
    arguments: &'a mut Arguments,
) -> Result<Option<(Command<'a>, usize)>, ProtocolError> {
    let Arguments { places, words } = arguments;
    places.clear();
    let (end, input_or_words) = match input.first() {
        None => (None, input),
        Some(b'*') => (array(input, places)?, input),
        Some(_) => (inline(input, places, words)?, &**words),
    };
    if end.is_none() && input.len() > MAX_COMMAND {
        return Err(ProtocolError::CommandTooLong);
    }
    let input = input_or_words;
    Ok(end.map(|end| (Command { input, places }, end)))
}

fn array(input: &[u8], places: &mut Vec<(u32, u32)>) -> Result<Option<usize>, ProtocolError> {
    let Some((count, mut at)) = count(input, 1, ProtocolError::ArrayLength)? else {
        return Ok(None);
    };
    if count > MAX_ARGS as i64 {
        return Err(ProtocolError::ArrayLength);
    }
    for _ in 0..count {
        match input.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::NoBulk(*other)),
        }
        let Some((length, start)) = self::count(input, at + 1, ProtocolError::BulkLength)? else {
            return Ok(None);
        };
        let length = usize::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
        if length > MAX_BULK {
            return Err(ProtocolError::BulkLength);
        }
        let end = start + length;
        if end > MAX_COMMAND {
            return Err(ProtocolError::CommandTooLong);
        }
        match input.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(ProtocolError::BulkEnd),
        }
        places.push((start as u32, end as u32));
        at = end + 2;
    }
    Ok(Some(at))
}

/// The number on the line at `start`, and where the next line begins.
fn count(
    input: &[u8],
    start: usize,
    error: ProtocolError,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let line = &input[start..input.len().min(start + MAX_COUNT_LINE)];
    let Some(length) = line.iter().position(|byte| *byte == b'\n') else {
        if line.len() == MAX_COUNT_LINE {
            return Err(ProtocolError::CountTooLong);
        }
        return Ok(None);
    };
    let digits = line[..length].strip_suffix(b"\r").ok_or(error)?;
    let number = number::parse(digits).ok_or(error)?;
    Ok(Some((number, start + length + 1)))
}

fn inline(
    input: &[u8],
    places: &mut Vec<(u32, u32)>,
    words: &mut Vec<u8>,
) -> Result<Option<usize>, ProtocolError> {
    let line = &input[..input.len().min(MAX_INLINE)];
    let Some(length) = line.iter().position(|byte| *byte == b'\n') else {
        if line.len() == MAX_INLINE {
            return Err(ProtocolError::InlineTooLong);
        }
        return Ok(None);
    };
    inline::split(&line[..length], places, words)?;
    Ok(Some(length + 1))
}
