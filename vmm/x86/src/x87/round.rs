//! From 128 bits of significand to the guest's 64, under its control word.

use super::stack::fsw;
use super::wide::Wide;

/// The exponents of normal numbers.
const LEAST: i32 = -16382;
const MOST: i32 = 16383;
/// What the exponent of a result is off by after an overflow or underflow that is not masked.
const WRAP: i32 = 24576;
/// The largest finite number, and infinity.
const LARGEST: u128 = 0x7ffe_ffff_ffff_ffff_ffff;
const INFINITY: u128 = 0x7fff_8000_0000_0000_0000;

/// Where rounding goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Nearest,
    Away,
    Towards,
}

fn rounding(fcw: u16, negative: bool) -> Rounding {
    match (fcw >> 10 & 3, negative) {
        (0, _) => Rounding::Nearest,
        (1, true) | (2, false) => Rounding::Away,
        _ => Rounding::Towards,
    }
}

/// The number of 80 bits and what rounding raises. The precision is always 64 bits, as for all functions
/// that this serves. `exact`: the value is not an approximation.
pub fn round(value: Wide, exact: bool, fcw: u16) -> (u128, u16) {
    let rounding = rounding(fcw, value.negative);
    let mut exponent = value.exponent;
    let mut raised = 0;
    let tiny = exponent < LEAST;
    if tiny && fcw & fsw::UE == 0 {
        exponent += WRAP;
        raised |= fsw::UE;
    }
    let shift = (LEAST - exponent).max(0) as u32;
    let bits = value.significand.checked_shr(shift).unwrap_or(0);
    let sticky = bits.checked_shl(shift) != Some(value.significand) || !exact;
    let (head, tail) = ((bits >> 64) as u64, bits as u64);
    let inexact = tail != 0 || sticky;
    let up = match rounding {
        Rounding::Nearest if tail == 1 << 63 => sticky || head & 1 == 1,
        Rounding::Nearest => tail > 1 << 63,
        Rounding::Away => inexact,
        Rounding::Towards => false,
    };
    let mut significand = u128::from(head) + u128::from(up);
    if significand >> 64 == 1 {
        significand >>= 1;
        exponent += 1;
    }
    if inexact {
        raised |= fsw::PE | if tiny { fsw::UE } else { 0 } | if up { fsw::C1 } else { 0 };
    }
    let sign = u128::from(value.negative) << 79;
    if exponent > MOST {
        if fcw & fsw::OE != 0 {
            let finite = rounding == Rounding::Towards;
            let (limit, up) = if finite {
                (LARGEST, 0)
            } else {
                (INFINITY, fsw::C1)
            };
            return (sign | limit, fsw::OE | fsw::PE | up);
        }
        exponent -= WRAP;
        raised |= fsw::OE;
    }
    let field = match shift {
        0 => (exponent + MOST) as u128,
        // A denormal number may have become the least normal one.
        _ => significand >> 63,
    };
    (sign | field << 64 | significand, raised)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x87::host::{Job, arithmetic};

    /// Quotients, whose remainders the host's unit knows, in all directions and at both ends of the range.
    #[test]
    fn it_rounds_as_the_host_does() {
        let numbers = [
            0x3fff_8000_0000_0000_0000_u128,
            0xbfff_c000_0000_0000_0000,
            0x4000_c000_0000_0000_0001,
            0x0001_8000_0000_0000_0000,
            0x8003_ffff_ffff_ffff_ffff,
            0x7ffe_ffff_ffff_ffff_ffff,
            0x3fbe_8000_0000_0000_0001,
            0x4001_a000_0000_0000_0000,
            0x3fff_ffff_ffff_ffff_ffff,
            0x5fff_9249_2492_4924_9249,
        ];
        for fcw in (0..4).flat_map(|rc| [0x37f, 0x36f, 0x377, 0x35f].map(|fcw| fcw | rc << 10)) {
            for (a, b) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
                let mut job = Job::new(fcw, a, b, 0);
                arithmetic::div(&mut job);
                let (a, b) = (Wide::from_extended(a), Wide::from_extended(b));
                let quotient = a.over(b);
                let exact = quotient.times(b) == a && quotient.significand << 64 == 0;
                let (value, raised) = round(quotient, exact, fcw);
                assert_eq!(value, job.a, "{a:?} / {b:?} under {fcw:#x}");
                let compared = fsw::EXCEPTIONS | fsw::C1;
                assert_eq!(raised, job.fsw & compared, "{a:?} / {b:?} under {fcw:#x}");
            }
        }
    }
}
