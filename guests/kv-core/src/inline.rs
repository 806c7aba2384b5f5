//! Splits an inline command, which a person types, into words like Redis's `sdssplitargs`.
//!
//! Blanks separate words. Between double quotes there may be blanks and escapes (`\n`, `\r`, `\t`,
//! `\b`, `\a`, `\xff`, and `\` before any other character for that character). Between single quotes
//! there may be blanks and `\'`. A quote may begin within a word; after its end there must be a blank.

use alloc::vec::Vec;

use crate::resp::{MAX_ARGS, ProtocolError};

/// Splits `line`, without its end, into words. They are appended to `words`, which must have room for
/// the whole line; `places` gets the place of each.
pub fn split(
    line: &[u8],
    places: &mut Vec<(u32, u32)>,
    words: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    words.clear();
    let mut rest = line;
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() {
            return Ok(());
        }
        if places.len() == MAX_ARGS {
            return Err(ProtocolError::ArrayLength);
        }
        let start = words.len();
        rest = word(rest, words)?;
        places.push((start as u32, words.len() as u32));
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let words = line.iter().position(|byte| !is_blank(*byte));
    &line[words.unwrap_or(line.len())..]
}

/// Appends the first word of `rest`. Returns what follows it.
fn word<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', inside @ ..] => return closed(double_quoted(inside, words)?),
            [b'\'', inside @ ..] => return closed(single_quoted(inside, words)?),
            [byte, more @ ..] => {
                words.push(*byte);
                rest = more;
            }
        }
    }
}

/// The text after a closing quote, which must be empty or begin with a blank.
fn closed(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest.first() {
        Some(byte) if !is_blank(*byte) => Err(ProtocolError::Quotes),
        Some(_) | None => Ok(rest),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        let (byte, more) = match rest {
            [] => return Err(ProtocolError::Quotes),
            [b'"', more @ ..] => return Ok(more),
            [b'\\', b'x', high, low, more @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (16 * digit(*high) + digit(*low), more)
            }
            [b'\\', escaped, more @ ..] => (unescaped(*escaped), more),
            [byte, more @ ..] => (*byte, more),
        };
        words.push(byte);
        rest = more;
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        let (byte, more) = match rest {
            [] => return Err(ProtocolError::Quotes),
            [b'\'', more @ ..] => return Ok(more),
            [b'\\', b'\'', more @ ..] => (b'\'', more),
            [byte, more @ ..] => (*byte, more),
        };
        words.push(byte);
        rest = more;
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        itself => itself,
    }
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        letter => (letter | 0x20) - b'a' + 10,
    }
}
