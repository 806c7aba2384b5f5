//! The numbers of INCRBYFLOAT: C's `long double`, which has 64 bits of significand on x86-64.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round, Status};

/// Longest text that is read as a number, bytes. It is enough for every number that is written.
const MAX_TEXT: usize = 5 * 1024 - 1;
/// Most digits written after the decimal point.
const FRACTION_DIGITS: usize = 17;
/// The fraction 1.0, in units of the last digit that is written.
const FRACTION_ONE: u128 = 10_u128.pow(FRACTION_DIGITS as u32);
/// The exponent's bias, plus the distance of the point from the significand's last bit.
const BIAS: i32 = 16383 + 63;
/// Integers are converted to decimal digits in groups of nine.
const GROUP: u64 = 1_000_000_000;

/// A number that is not NaN.
#[derive(Clone, Copy)]
pub struct LongDouble(X87DoubleExtended);

impl LongDouble {
    /// The number that `text` stands for.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let text = str::from_utf8(text).ok()?;
        // Checked by Rust's own parser first, as the library's also accepts exponents without digits.
        let rough: f64 = text.parse().ok()?;
        if rough.is_nan() {
            return None;
        }
        if text.contains(['n', 'N']) {
            let endless = X87DoubleExtended::INFINITY;
            return Some(Self(if rough < 0.0 { -endless } else { endless }));
        }
        let read = X87DoubleExtended::from_str_r(text, Round::NearestTiesToEven).ok()?;
        let vanished = read.status.contains(Status::UNDERFLOW) && read.value.is_zero();
        let fits = !read.status.contains(Status::OVERFLOW) && !vanished;
        fits.then_some(Self(read.value))
    }

    /// The sum; `None` if it is not finite.
    pub fn plus(self, other: Self) -> Option<Self> {
        let sum = (self.0 + other.0).value;
        sum.is_finite().then_some(Self(sum))
    }

    /// The number with at most 17 digits after the point, without zeros at the end.
    pub fn text(self) -> String {
        let bits = self.0.to_bits();
        let significand = bits as u64;
        let exponent = ((bits >> 64) & 0x7FFF) as i32;
        let shift = exponent.max(1) - BIAS;
        let mut text = if shift >= 0 {
            integer(significand, shift as usize)
        } else {
            with_fraction(significand, shift.unsigned_abs())
        };
        if self.0.is_negative() && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// `significand`, shifted to the right, as text.
fn with_fraction(significand: u64, shift: u32) -> String {
    let whole = significand.checked_shr(shift).unwrap_or(0);
    let rest = u128::from(significand) - (u128::from(whole) << shift.min(64));
    // Below 2^64 times 10^17, so it fits. A shift of 128 or more leaves less than half of the last
    // digit.
    let scaled = rest * FRACTION_ONE;
    let (digits, left) = match shift {
        ..128 => (scaled >> shift, scaled & ((1 << shift) - 1)),
        _ => (0, 0),
    };
    let half = 1_u128.checked_shl(shift - 1).unwrap_or(u128::MAX);
    let up = left > half || left == half && digits % 2 == 1;
    let digits = digits + u128::from(up);
    let whole = u128::from(whole) + digits / FRACTION_ONE;
    let mut text = String::new();
    let width = FRACTION_DIGITS;
    write!(text, "{whole}.{:0width$}", digits % FRACTION_ONE).expect("a string takes all");
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text
}

/// `significand`, shifted to the left, as text.
fn integer(significand: u64, shift: usize) -> String {
    let mut limbs = alloc::vec![0_u32; shift / 32];
    let mut rest = u128::from(significand) << (shift % 32);
    while rest > 0 {
        limbs.push(rest as u32);
        rest >>= 32;
    }
    let mut groups = Vec::new();
    while !limbs.is_empty() {
        let mut remainder = 0;
        for limb in limbs.iter_mut().rev() {
            let value = remainder << 32 | u64::from(*limb);
            *limb = (value / GROUP) as u32;
            remainder = value % GROUP;
        }
        groups.push(remainder);
        while limbs.last().is_some_and(|limb| *limb == 0) {
            limbs.pop();
        }
    }
    let mut text = String::new();
    let first = groups.pop().unwrap_or(0);
    write!(text, "{first}").expect("a string takes all");
    for group in groups.iter().rev() {
        write!(text, "{group:09}").expect("a string takes all");
    }
    text
}
