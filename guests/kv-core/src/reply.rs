//! Replies, in RESP2 or RESP3.

use core::fmt::{self, Write};

use crate::buffer::{Budget, Buffer, OutOfMemory};
use crate::commands::MAX_REPLY;
use crate::error::Error;
use crate::float::Decimal;
use crate::number::Digits;

/// Bytes that every command may write without reserving them: enough for any error, number or status,
/// or several of them in an array.
pub const SMALL: usize = 4 * 1024;
/// Longest text of an error, bytes.
const MAX_ERROR: usize = 512;
/// Most bytes around the content of a bulk string.
pub const BULK_FRAME: usize = 32;

/// The protocol of replies, which HELLO chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2: only strings, integers, errors, and arrays of those.
    Resp2,
    /// RESP3: also maps, sets, doubles and a null of its own type.
    Resp3,
}

impl Protocol {
    /// Its number in HELLO.
    pub fn version(self) -> i64 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

/// Where a command writes its reply: at most [`SMALL`] bytes, plus what [`Reply::reserve`] grants.
pub struct Reply<'a> {
    out: &'a mut Buffer,
    budget: &'a mut Budget,
    protocol: Protocol,
}

impl<'a> Reply<'a> {
    /// A reply after those in `out`.
    pub fn new(
        out: &'a mut Buffer,
        budget: &'a mut Budget,
        protocol: Protocol,
    ) -> Result<Self, OutOfMemory> {
        out.reserve(SMALL, budget)?;
        Ok(Self {
            out,
            budget,
            protocol,
        })
    }

    /// The budget for the memory of connections.
    pub fn budget(&mut self) -> &mut Budget {
        self.budget
    }

    /// Changes the protocol.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Length of this reply and of those before it, bytes.
    pub fn written(&self) -> usize {
        self.out.len()
    }

    /// Removes what was written after `written` bytes.
    pub fn rewind(&mut self, written: usize) {
        self.out.truncate(written);
    }

    /// Reserves room for `bytes` beyond [`SMALL`].
    pub fn reserve(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.out.reserve(SMALL + bytes, self.budget)
    }

    /// Reserves room for strings of these lengths.
    pub fn room_for(&mut self, lengths: impl Iterator<Item = usize>) -> Result<(), Error> {
        let bytes = lengths.fold(0usize, |sum, length| {
            sum.saturating_add(length + BULK_FRAME)
        });
        if bytes > MAX_REPLY {
            return Err(Error::ReplyTooLong);
        }
        Ok(self.reserve(bytes)?)
    }

    /// `+text`
    pub fn status(&mut self, text: &str) {
        self.line(b"+", text.as_bytes());
    }

    /// `-text` in one line: line ends become blanks, and a long text is cut.
    pub fn error(&mut self, text: fmt::Arguments) {
        self.out.push(b"-");
        let _ = ErrorText {
            out: self.out,
            left: MAX_ERROR,
        }
        .write_fmt(text);
        self.out.push(b"\r\n");
    }

    /// `:value`
    pub fn integer(&mut self, value: i64) {
        self.line(b":", Digits::of(value).as_bytes());
    }

    /// A bulk string.
    pub fn bulk(&mut self, content: &[u8]) {
        self.line(b"$", Digits::of(content.len() as i64).as_bytes());
        self.out.push(content);
        self.out.push(b"\r\n");
    }

    /// A bulk string of any length.
    pub fn long(&mut self, content: &[u8]) -> Result<(), OutOfMemory> {
        self.reserve(content.len())?;
        self.bulk(content);
        Ok(())
    }

    /// A bulk string of any length, or null.
    pub fn long_or_null(&mut self, content: Option<&[u8]>) -> Result<(), OutOfMemory> {
        match content {
            Some(content) => self.long(content),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    /// A text for people, of any length; RESP3 has a type for it.
    pub fn text(&mut self, text: fmt::Arguments) -> Result<(), OutOfMemory> {
        let mut length = Length(0);
        let _ = length.write_fmt(text);
        let Length(length) = length;
        self.reserve(length)?;
        match self.protocol {
            Protocol::Resp2 => self.line(b"$", Digits::of(length as i64).as_bytes()),
            Protocol::Resp3 => {
                self.line(b"=", Digits::of(length as i64 + 4).as_bytes());
                self.out.push(b"txt:");
            }
        }
        let _ = Pushed(self.out).write_fmt(text);
        self.out.push(b"\r\n");
        Ok(())
    }

    /// A floating-point number.
    pub fn double(&mut self, value: f64) {
        let text = Decimal::of(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b",", text.as_bytes()),
        }
    }

    /// Null in place of a string.
    pub fn null(&mut self) {
        self.out.push(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Null in place of an array.
    pub fn null_array(&mut self) {
        self.out.push(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The head of an array; its elements follow.
    pub fn array(&mut self, length: usize) {
        self.line(b"*", Digits::of(length as i64).as_bytes());
    }

    /// The head of a map of `length` keys; keys and values follow, each key before its value.
    pub fn map(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(2 * length),
            Protocol::Resp3 => self.line(b"%", Digits::of(length as i64).as_bytes()),
        }
    }

    /// The head of a set; its members follow.
    pub fn set(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(length),
            Protocol::Resp3 => self.line(b"~", Digits::of(length as i64).as_bytes()),
        }
    }

    /// The head of `length` pairs. For each pair, [`pair`](Self::pair) must be called before its two
    /// values. In RESP2 the values follow one another without pairs.
    pub fn pairs(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(2 * length),
            Protocol::Resp3 => self.array(length),
        }
    }

    /// The head of a pair.
    pub fn pair(&mut self) {
        match self.protocol {
            Protocol::Resp2 => {}
            Protocol::Resp3 => self.array(2),
        }
    }

    fn line(&mut self, kind: &[u8], text: &[u8]) {
        self.out.push(kind);
        self.out.push(text);
        self.out.push(b"\r\n");
    }
}

struct ErrorText<'a> {
    out: &'a mut Buffer,
    left: usize,
}

impl Write for ErrorText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().take(self.left) {
            let harmless = if byte.is_ascii_control() { b' ' } else { byte };
            self.out.push(&[harmless]);
            self.left -= 1;
        }
        Ok(())
    }
}

/// Counts the bytes of a text instead of writing it.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// Writes a text for which there is room.
struct Pushed<'a>(&'a mut Buffer);

impl Write for Pushed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push(text.as_bytes());
        Ok(())
    }
}
