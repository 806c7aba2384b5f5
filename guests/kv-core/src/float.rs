//! Floating-point numbers as Redis reads and writes them.

use core::fmt::{self, Write};

/// Longest text of a number, bytes, written or read.
const MAX_TEXT: usize = 352;
/// Numbers from here on are written with an exponent…
const LARGE: f64 = 1e21;
/// …and numbers below this too.
const SMALL: f64 = 1e-6;

/// The number that `text` stands for; `None` for NaN and other text.
pub fn parse(text: &[u8]) -> Option<f64> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let value: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// The shortest text that reads as the same number.
pub struct Decimal {
    bytes: [u8; MAX_TEXT],
    length: usize,
}

impl Decimal {
    /// The text of `value`.
    pub fn of(value: f64) -> Self {
        let mut text = Self {
            bytes: [0; MAX_TEXT],
            length: 0,
        };
        let size = value.abs();
        let plain = size == 0.0 || !size.is_finite() || (SMALL..LARGE).contains(&size);
        let written = if plain {
            write!(text, "{value}")
        } else if size < 1.0 {
            write!(text, "{value:e}")
        } else {
            text.write_large(value)
        };
        written.expect("no number is longer");
        text
    }

    /// Writes an exponent as Redis does, with a sign also if it is positive.
    fn write_large(&mut self, value: f64) -> fmt::Result {
        write!(self, "{value:e}")?;
        let end = self.length;
        if let Some(at) = self.as_bytes().iter().position(|byte| *byte == b'e') {
            self.write_str("+")?;
            self.bytes[at + 1..=end].rotate_right(1);
        }
        Ok(())
    }

    /// As text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Decimal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
