//! The status flags. They are kept as what they are computed from, since most are never asked for.

use crate::state::{Cpu, extend};

/// CF.
pub const CF: u64 = 1;
/// PF.
pub const PF: u64 = 1 << 2;
/// AF.
pub const AF: u64 = 1 << 4;
/// ZF.
pub const ZF: u64 = 1 << 6;
/// SF.
pub const SF: u64 = 1 << 7;
/// TF.
pub const TF: u64 = 1 << 8;
/// IF.
pub const IF: u64 = 1 << 9;
/// DF.
pub const DF: u64 = 1 << 10;
/// OF.
pub const OF: u64 = 1 << 11;
/// IOPL.
pub const IOPL: u64 = 3 << 12;
/// NT.
pub const NT: u64 = 1 << 14;
/// RF.
pub const RF: u64 = 1 << 16;
/// VM.
pub const VM: u64 = 1 << 17;
/// AC.
pub const AC: u64 = 1 << 18;
/// ID.
pub const ID: u64 = 1 << 21;
/// The status flags.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// Bits of [`Flags::aux`]. OF is whether the first two differ.
const CARRY_IN: u32 = 1;
const CARRY_OUT: u32 = 2;
const HALF: u32 = 8;
/// SF is not the result's sign but its opposite.
const SIGN: u32 = 16;
/// From here on: what is added, bit by bit, to the result's lowest byte before its parity is taken.
const PARITY: u32 = 8;

/// The status flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// The result, extended by its sign: ZF, SF and PF.
    result: u64,
    /// CF, OF and AF, and where SF and PF are not the result's.
    aux: u32,
}

impl Flags {
    /// As RFLAGS has them.
    #[inline(always)]
    pub fn from_status(status: u64) -> Flags {
        let carry = u32::from(status & CF != 0);
        let overflow = u32::from(status & OF != 0);
        let half = if status & AF != 0 { HALF } else { 0 };
        let sign = if status & SF != 0 { SIGN } else { 0 };
        let odd = u32::from(status & PF == 0);
        Flags {
            // Its lowest byte is zero and even.
            result: if status & ZF != 0 { 0 } else { 0x100 },
            aux: carry << 1 | (carry ^ overflow) | half | sign | odd << PARITY,
        }
    }

    /// Of an addition or subtraction of `S` bytes with these carries, a bit for each place.
    #[inline(always)]
    fn arithmetic<const S: u8>(result: u64, carries: u64) -> Flags {
        Flags {
            result: extend::<S>(result),
            aux: (carries >> (8 * u32::from(S) - 2)) as u32 & 3 | carries as u32 & HALF,
        }
    }

    /// Of `a + b`, and of `a + b + 1`, which is `sum`.
    #[inline(always)]
    pub fn of_sum<const S: u8>(a: u64, b: u64, sum: u64) -> Flags {
        Flags::arithmetic::<S>(sum, a & b | (a | b) & !sum)
    }

    /// Of `a - b`, and of `a - b - 1`, which is `difference`.
    #[inline(always)]
    pub fn of_difference<const S: u8>(a: u64, b: u64, difference: u64) -> Flags {
        Flags::arithmetic::<S>(difference, !a & b | (!a | b) & difference)
    }

    /// Of a logical operation: CF, OF and AF are clear.
    #[inline(always)]
    pub fn of_logic<const S: u8>(result: u64) -> Flags {
        Flags {
            result: extend::<S>(result),
            aux: 0,
        }
    }

    /// Of a result, with CF and OF given and AF clear.
    #[inline(always)]
    pub fn of_result<const S: u8>(result: u64, carry: bool, overflow: bool) -> Flags {
        let carry = u32::from(carry);
        Flags {
            result: extend::<S>(result),
            aux: carry << 1 | (carry ^ u32::from(overflow)),
        }
    }

    /// Of a product's lower half: the same, but that ZF is clear whatever it is.
    #[inline(always)]
    pub fn of_product<const S: u8>(low: u64, overflow: bool) -> Flags {
        let flags = Flags::of_result::<S>(low, overflow, overflow);
        Flags {
            // Its lowest byte is zero too.
            result: if low == 0 { 0x100 } else { flags.result },
            ..flags
        }
    }

    /// Of a search for a bit: ZF if there was none, PF of its number.
    #[inline(always)]
    pub fn of_scan(found: Option<u32>) -> Flags {
        match found {
            None => Flags::of_logic::<8>(0),
            // Not zero, but in the lowest byte.
            Some(number) => Flags::of_logic::<8>(u64::from(number) | 0x100),
        }
    }

    /// The same with another CF.
    #[inline(always)]
    pub fn with_carry(self, carry: bool) -> Flags {
        self.with_carry_overflow(carry, self.overflow())
    }

    /// The same with other CF and OF.
    #[inline(always)]
    pub fn with_carry_overflow(self, carry: bool, overflow: bool) -> Flags {
        let carry = u32::from(carry);
        Flags {
            aux: self.aux & !(CARRY_IN | CARRY_OUT) | carry << 1 | (carry ^ u32::from(overflow)),
            ..self
        }
    }

    /// CF.
    #[inline(always)]
    pub fn carry(self) -> bool {
        self.aux & CARRY_OUT != 0
    }

    /// PF.
    #[inline(always)]
    pub fn parity(self) -> bool {
        (self.result as u8 ^ (self.aux >> PARITY) as u8).count_ones() & 1 == 0
    }

    /// AF.
    #[inline(always)]
    pub fn half(self) -> bool {
        self.aux & HALF != 0
    }

    /// ZF.
    #[inline(always)]
    pub fn zero(self) -> bool {
        self.result == 0
    }

    /// SF.
    #[inline(always)]
    pub fn sign(self) -> bool {
        (self.result >> 63 != 0) != (self.aux & SIGN != 0)
    }

    /// OF.
    #[inline(always)]
    pub fn overflow(self) -> bool {
        (self.aux ^ self.aux >> 1) & 1 != 0
    }

    /// As in RFLAGS.
    pub fn status(self) -> u64 {
        let bit = |set: bool, flag: u64| if set { flag } else { 0 };
        bit(self.carry(), CF)
            | bit(self.parity(), PF)
            | bit(self.half(), AF)
            | bit(self.zero(), ZF)
            | bit(self.sign(), SF)
            | bit(self.overflow(), OF)
    }

    /// Does condition `C` hold, as Jcc, SETcc and CMOVcc number it?
    #[inline(always)]
    pub fn holds<const C: u8>(self) -> bool {
        let even = match C >> 1 {
            0 => self.overflow(),
            1 => self.carry(),
            2 => self.zero(),
            3 => self.carry() || self.zero(),
            4 => self.sign(),
            5 => self.parity(),
            6 => self.sign() != self.overflow(),
            _ => self.zero() || self.sign() != self.overflow(),
        };
        even == (C & 1 == 0)
    }
}

impl Cpu {
    /// RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.system_flags | self.flags.status() | 2
    }

    /// Sets all of RFLAGS.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags = Flags::from_status(value);
        self.system_flags = value & (TF | IF | DF | IOPL | NT | RF | VM | AC | ID);
    }

    /// Sets those flags of RFLAGS that `writable` names.
    pub fn change_rflags(&mut self, value: u64, writable: u64) {
        let old = self.rflags();
        self.set_rflags(old & !writable | value & writable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::mask;

    #[test]
    fn every_combination_is_kept() {
        for bits in 0..1u64 << 12 {
            let status = bits & STATUS;
            let flags = Flags::from_status(status);
            assert_eq!(flags.status(), status);
            assert_eq!(flags.with_carry(true).status(), status | CF);
            let other = flags.with_carry_overflow(false, true).status();
            assert_eq!(other, status & !CF | OF);
        }
    }

    #[test]
    fn byte_sums_and_differences_have_the_flags_of_the_manual() {
        for (a, b) in (0..=255u64).flat_map(|a| (0..=255u64).map(move |b| (a, b))) {
            let sum = mask::<1>(a + b);
            let flags = Flags::of_sum::<1>(a, b, sum);
            let signed = i16::from(a as i8) + i16::from(b as i8);
            assert_eq!(flags.carry(), a + b > 255);
            assert_eq!(flags.overflow(), i8::try_from(signed).is_err());
            assert_eq!(flags.half(), (a & 15) + (b & 15) > 15);
            let difference = mask::<1>(a.wrapping_sub(b));
            let flags = Flags::of_difference::<1>(a, b, difference);
            let signed = i16::from(a as i8) - i16::from(b as i8);
            assert_eq!(flags.carry(), a < b);
            assert_eq!(flags.overflow(), i8::try_from(signed).is_err());
            assert_eq!(flags.half(), a & 15 < b & 15);
            assert_eq!(flags.zero(), a == b);
        }
    }
}
