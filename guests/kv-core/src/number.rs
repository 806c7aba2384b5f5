//! Decimal integers of 64 bits as Redis writes them: no sign but `-`, no leading zeros.

/// Most bytes of a number: `-9223372036854775808`.
pub const MAX_DIGITS: usize = 20;

/// The number that `text` stands for; `None` if it is not written as Redis writes it, or does not fit.
pub fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    // Counts downwards, because there is one more negative number than positive ones.
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value
            .checked_mul(10)?
            .checked_sub(i64::from(digit - b'0'))?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// A number's decimal digits.
pub struct Digits {
    bytes: [u8; MAX_DIGITS],
    start: usize,
}

impl Digits {
    /// The digits of `value`.
    pub fn of(value: i64) -> Self {
        let mut digits = Self {
            bytes: [0; MAX_DIGITS],
            start: MAX_DIGITS,
        };
        let mut rest = value.unsigned_abs();
        loop {
            digits.push(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            digits.push(b'-');
        }
        digits
    }

    fn push(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    /// As text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
