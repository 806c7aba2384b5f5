//! Numbers with 128 bits of significand, for what is computed in software.
//!
//! Operations cut off what does not fit, so each is off by less than two units in the last place, 2^-126 of
//! its result, and its magnitude is not too large.

/// A finite number: `significand` * 2^(`exponent` - 127). The significand's first bit is set, or it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// Is it below zero?
    pub negative: bool,
    /// The exponent of its first bit.
    pub exponent: i32,
    /// Its bits.
    pub significand: u128,
}

/// The upper half of a product.
const fn high_half(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let middle = a1 * b0 + ((a0 * b0) >> 64);
    let other = a0 * b1 + (middle & LOW);
    a1 * b1 + (middle >> 64) + (other >> 64)
}

impl Wide {
    /// Nothing.
    pub const ZERO: Wide = Wide::new(false, 0, 0);
    /// One.
    pub const ONE: Wide = Wide::integer(1);

    /// Of these bits, whether the first of them is set or not.
    pub const fn new(negative: bool, exponent: i32, significand: u128) -> Wide {
        if significand == 0 {
            return Wide {
                negative: false,
                exponent: 0,
                significand,
            };
        }
        let shift = significand.leading_zeros();
        Wide {
            negative,
            exponent: exponent - shift as i32,
            significand: significand << shift,
        }
    }

    /// A positive integer.
    pub const fn integer(value: u64) -> Wide {
        Wide::new(false, 127, value as u128)
    }

    /// Of a finite number of 80 bits.
    pub fn from_extended(value: u128) -> Wide {
        let exponent = (value >> 64 & 0x7fff) as i32;
        let significand = u128::from(value as u64) << 64;
        Wide::new(value >> 79 & 1 == 1, exponent.max(1) - 0x3fff, significand)
    }

    /// Is it zero?
    pub const fn is_zero(self) -> bool {
        self.significand == 0
    }

    /// With the sign turned.
    pub const fn negated(self) -> Wide {
        Wide {
            negative: !self.negative && !self.is_zero(),
            ..self
        }
    }

    /// Without the sign.
    pub const fn magnitude(self) -> Wide {
        Wide {
            negative: false,
            ..self
        }
    }

    /// Times 2^`by`.
    pub const fn scaled(self, by: i32) -> Wide {
        Wide::new(self.negative, self.exponent + by, self.significand)
    }

    /// Is its magnitude less than that of `other`?
    pub fn is_smaller(self, other: Wide) -> bool {
        match (self.is_zero(), other.is_zero()) {
            (_, true) => false,
            (true, false) => true,
            _ => (self.exponent, self.significand) < (other.exponent, other.significand),
        }
    }

    /// The product.
    pub const fn times(self, other: Wide) -> Wide {
        let product = high_half(self.significand, other.significand);
        let negative = self.negative != other.negative;
        Wide::new(negative, self.exponent + other.exponent + 1, product)
    }

    /// The quotient. `other` is not zero.
    pub const fn over(self, other: Wide) -> Wide {
        if self.is_zero() {
            return self;
        }
        // Half of each, so that the rest can be doubled.
        let divisor = other.significand;
        let mut exponent = self.exponent - other.exponent;
        let mut rest = self.significand;
        let mut carry = false;
        if rest < divisor {
            exponent -= 1;
            carry = rest >> 127 == 1;
            rest <<= 1;
        }
        let mut quotient = 0;
        let mut bit = 0;
        while bit < 128 {
            quotient <<= 1;
            if carry || rest >= divisor {
                rest = rest.wrapping_sub(divisor);
                quotient |= 1;
            }
            carry = rest >> 127 == 1;
            rest <<= 1;
            bit += 1;
        }
        Wide::new(self.negative != other.negative, exponent, quotient)
    }

    /// The sum.
    pub fn plus(self, other: Wide) -> Wide {
        if self.is_zero() || other.is_zero() {
            return if self.is_zero() { other } else { self };
        }
        let (large, small) = match self.is_smaller(other) {
            true => (other, self),
            false => (self, other),
        };
        let distance = (large.exponent - small.exponent) as u32;
        let moved = small.significand.checked_shr(distance).unwrap_or(0);
        let lost = moved.checked_shl(distance) != Some(small.significand);
        if large.negative != small.negative {
            // What was cut off takes a unit with it, so that the result is not too large.
            let rest = large.significand - moved - u128::from(lost);
            return Wide::new(large.negative, large.exponent, rest);
        }
        match large.significand.overflowing_add(moved) {
            (sum, false) => Wide::new(large.negative, large.exponent, sum),
            (sum, true) => Wide::new(large.negative, large.exponent + 1, sum >> 1 | 1 << 127),
        }
    }

    /// The difference.
    pub fn minus(self, other: Wide) -> Wide {
        self.plus(other.negated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_that_of_integers_where_these_are_exact() {
        let wide = |n: i64| match n < 0 {
            true => Wide::integer(n.unsigned_abs()).negated(),
            false => Wide::integer(n as u64),
        };
        let numbers = [
            0,
            1,
            -1,
            2,
            3,
            -7,
            100,
            12_345,
            -99_999,
            i64::from(i32::MAX),
        ];
        for a in numbers {
            for b in numbers {
                assert_eq!(wide(a).plus(wide(b)), wide(a + b));
                assert_eq!(wide(a).minus(wide(b)), wide(a - b));
                assert_eq!(wide(a).times(wide(b)), wide(a * b));
                if b != 0 {
                    assert_eq!(wide(a * b).over(wide(b)), wide(a));
                }
            }
        }
    }

    #[test]
    fn what_is_cut_off_makes_results_smaller() {
        let tiny = Wide::ONE.scaled(-200);
        assert_eq!(Wide::ONE.plus(tiny), Wide::ONE);
        let less = Wide::ONE.minus(tiny);
        assert_eq!((less.exponent, less.significand), (-1, u128::MAX << 1));
        let third = Wide::ONE.over(Wide::integer(3));
        assert_eq!((third.exponent, third.significand), (-2, u128::MAX / 3 * 2));
    }
}
