//! RESP2 replies.

use core::fmt::{self, Write};

use crate::buffer::{Budget, Buffer, OutOfMemory};
use crate::number::Digits;

/// Room that every command has for its reply without asking, bytes: enough for any error, number
/// or status, and for the lists that tell about the server.
pub const SMALL: usize = 4 * 1024;
/// Longest text of an error, bytes.
const MAX_ERROR: usize = 512;
/// Bytes around the content of a bulk string, at most.
pub const BULK_FRAME: usize = 32;

/// Where a command writes its reply: at most [`SMALL`] bytes, and what [`Reply::reserve`] grants.
pub struct Reply<'a> {
    out: &'a mut Buffer,
    budget: &'a mut Budget,
}

impl<'a> Reply<'a> {
    /// A reply behind those in `out`.
    pub fn new(out: &'a mut Buffer, budget: &'a mut Budget) -> Result<Self, OutOfMemory> {
        out.reserve(SMALL, budget)?;
        Ok(Self { out, budget })
    }

    /// Makes room for `bytes` beyond [`SMALL`].
    pub fn reserve(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.out.reserve(SMALL + bytes, self.budget)
    }

    /// `+text`
    pub fn status(&mut self, text: &str) {
        self.line(b"+", text.as_bytes());
    }

    /// `-text`, one line: what would end it becomes a blank, and what is too long is cut.
    pub fn error(&mut self, text: fmt::Arguments) {
        self.out.push(b"-");
        let _ = ErrorText {
            out: self.out,
            left: MAX_ERROR,
        }
        .write_fmt(text);
        self.out.push(b"\r\n");
    }

    /// `-OOM …`
    pub fn out_of_memory(&mut self) {
        self.error(format_args!(
            "OOM command not allowed when used memory > 'maxmemory'."
        ));
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

    /// The bulk string that is none.
    pub fn null(&mut self) {
        self.out.push(b"$-1\r\n");
    }

    /// The head of an array; its elements follow.
    pub fn array(&mut self, length: usize) {
        self.line(b"*", Digits::of(length as i64).as_bytes());
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
