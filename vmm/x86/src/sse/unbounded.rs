//! Whether a result that is too large or too small is also inexact, where that is not masked.
//!
//! Masked, overflow is always inexact. Not masked, the processor rounds as if exponents had no bounds, and
//! says whether that is exact. Here the operation is done once more, with exponents from the middle.

/// Overflow, underflow and precision flags of MXCSR.
const OE: u32 = 1 << 3;
const UE: u32 = 1 << 4;
const PE: u32 = 1 << 5;
/// Results too small for a normal number become zero, whether they are exact or not.
pub const FTZ: u32 = 1 << 15;

/// How to change the exponents of operands so that only the exponent of the result changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Both by the same: sums and differences. Only too large ones are asked for: too small ones are exact.
    Alike,
    /// To that of 1: products, quotients and conversions.
    ToOne,
}

/// The numbers in a source, and what is done with each.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// How many.
    pub count: u32,
    /// Bits of each.
    pub bits: u32,
    /// Which operation.
    pub scale: Scale,
}

impl Lanes {
    fn significand_bits(self) -> u32 {
        match self.bits {
            32 => 23,
            _ => 52,
        }
    }

    /// The exponent of 1, as it is encoded.
    fn bias(self) -> u64 {
        (1 << (self.bits - 2 - self.significand_bits())) - 1
    }

    /// A number with another exponent.
    fn scaled(self, number: u64) -> u64 {
        let significand_bits = self.significand_bits();
        let sign = number & 1 << (self.bits - 1);
        let exponent = (number & !sign) >> significand_bits;
        let significand = number & ((1 << significand_bits) - 1);
        if number == sign {
            return number;
        }
        let (exponent, significand) = match self.scale {
            // The other operand is large: of one so small it only matters that it is not zero.
            Scale::Alike if exponent <= 4 => (1, significand),
            Scale::Alike => (exponent - 4, significand),
            Scale::ToOne if exponent != 0 => (self.bias(), significand),
            Scale::ToOne => {
                let up = significand.leading_zeros() - (63 - significand_bits);
                let hidden = 1 << significand_bits;
                (self.bias(), significand << up & (hidden - 1))
            }
        };
        sign | exponent << significand_bits | significand
    }

    /// The number of this index, changed by `change`, with ones in the others' places.
    fn alone(self, value: u128, index: u32, change: impl Fn(u64) -> u64) -> u128 {
        let mask = u128::MAX >> (128 - self.bits);
        let shift = index * self.bits;
        let one = u128::from(self.bias() << self.significand_bits());
        let ones = (0..128 / self.bits).fold(0, |all, place| all | one << (place * self.bits));
        let number = change((value >> shift & mask) as u64);
        ones & !(mask << shift) | u128::from(number) << shift
    }

    /// PE, if a number of the result is inexact; of one that is too large or too small, and `unmasked` as
    /// such, if it were so without bounds.
    pub fn inexact(
        self,
        (a, b): (u128, u128),
        (mxcsr, unmasked): (u32, u32),
        run: impl Fn(u32, u128, u128) -> (u128, u32),
    ) -> u32 {
        let mut all = 0;
        for index in 0..self.count {
            let flags = |mxcsr, change: &dyn Fn(u64) -> u64| {
                run(
                    mxcsr,
                    self.alone(a, index, change),
                    self.alone(b, index, change),
                )
                .1
            };
            let bounded = flags(mxcsr, &|number| number);
            let tiny = flags(mxcsr | FTZ, &|number| number) & UE;
            let beyond = match self.scale {
                Scale::Alike => bounded & OE,
                Scale::ToOne => bounded & OE | tiny,
            };
            all |= match beyond & unmasked {
                0 => bounded,
                _ => flags(mxcsr, &|number| self.scaled(number)),
            };
        }
        all & PE
    }
}
