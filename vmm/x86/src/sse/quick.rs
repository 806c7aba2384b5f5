//! Arithmetic without loading MXCSR, which takes longer than the arithmetic.
//!
//! It is for operands and results that are neither denormal nor infinite nor NaNs. These raise nothing but PE.
//! While PE is set and masked already, and both the guest and the host round to nearest, MXCSR has no other
//! part in it. Everything else goes the long way.

use super::host;
use crate::fpu::Fpu;

/// MXCSR: PE, its mask, and the rounding mode, where 0 is to nearest.
const PE: u32 = 1 << 5;
const PM: u32 = 1 << 12;
const ROUNDING: u32 = 3 << 13;
/// DAZ and FTZ. While the host has one of them even a comparison with zero is not what Rust takes it for.
const DAZ_FTZ: u32 = 1 << 6 | 1 << 15;

impl Fpu {
    /// May inexact results be computed so?
    #[inline(always)]
    pub fn is_quick(&self) -> bool {
        self.mxcsr & (PE | PM | ROUNDING) | self.host_modes == PE | PM
    }

    /// May exact ones?
    #[inline(always)]
    pub fn is_host_plain(&self) -> bool {
        self.host_modes == 0
    }

    /// Looks at the modes that the host has in this thread.
    pub fn look_at_host(&mut self) {
        self.host_modes = host::mxcsr() & (ROUNDING | DAZ_FTZ);
    }
}

/// A number of single or double precision.
pub trait Float: Copy + PartialOrd {
    /// Bits of it.
    const BITS: u32;
    /// The number with these bits.
    fn from_low(bits: u128) -> Self;
    /// Its bits.
    fn low(self) -> u128;
    /// Is it zero?
    fn is_zero(self) -> bool;
    /// Is it normal, and not next to those that are not? A tiny result may have been rounded to the least
    /// normal number.
    fn is_plain(self) -> bool;
    /// The square root.
    fn root(self) -> Self;
}

macro_rules! floats {
    ($($float:ident $bits:ident $count:literal $exponents:literal $significand:literal)*) => {$(
        impl Float for $float {
            const BITS: u32 = $count;

            #[inline(always)]
            fn from_low(bits: u128) -> $float {
                $float::from_bits(bits as $bits)
            }

            #[inline(always)]
            fn low(self) -> u128 {
                u128::from(self.to_bits())
            }

            #[inline(always)]
            fn is_zero(self) -> bool {
                self.to_bits() << 1 == 0
            }

            #[inline(always)]
            fn is_plain(self) -> bool {
                let exponent = self.to_bits() >> $significand & $exponents;
                exponent.wrapping_sub(2) < $exponents - 2
            }

            #[inline(always)]
            fn root(self) -> $float {
                self.sqrt()
            }
        }
    )*};
}
floats! { f32 u32 32 0xff 23 f64 u64 64 0x7ff 52 }

#[inline(always)]
fn is_usable<F: Float>(number: F) -> bool {
    number.is_plain() || number.is_zero()
}

/// An operation on two numbers. None: it is to go the long way.
pub trait Quick {
    /// Does it.
    fn run<F: Float + Arithmetic>(a: F, b: F) -> Option<F>;
}

/// What numbers can do.
pub trait Arithmetic:
    std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + Sized
{
}
impl Arithmetic for f32 {}
impl Arithmetic for f64 {}

macro_rules! operations {
    ($($name:ident |$a:ident, $b:ident| $result:expr, $zero:expr;)*) => {$(
        /// The operation of that name.
        #[derive(Debug)]
        pub struct $name;

        impl Quick for $name {
            #[inline(always)]
            fn run<F: Float + Arithmetic>($a: F, $b: F) -> Option<F> {
                let result = $result;
                let good = result.is_plain() || result.is_zero() && $zero;
                (is_usable($a) && is_usable($b) && good).then_some(result)
            }
        }
    )*};
}
// After the operands, whether a result that is zero is exact.
operations! {
    Add |a, b| a + b, true;
    Sub |a, b| a - b, true;
    Mul |a, b| a * b, a.is_zero() || b.is_zero();
    // What is divided by zero is infinite or a NaN, and neither is good.
    Div |a, b| a / b, a.is_zero();
}

/// The square root of the second operand. That of a negative number is a NaN.
#[derive(Debug)]
pub struct Sqrt;

impl Quick for Sqrt {
    #[inline(always)]
    fn run<F: Float + Arithmetic>(_: F, b: F) -> Option<F> {
        let result = b.root();
        (is_usable(b) && is_usable(result)).then_some(result)
    }
}

/// The lowest `COUNT` numbers of both registers.
#[inline(always)]
pub fn lanes<Q: Quick, F: Float + Arithmetic, const COUNT: u32>(a: u128, b: u128) -> Option<u128> {
    let mut value = a;
    for index in 0..COUNT {
        let at = index * F::BITS;
        let number = Q::run(F::from_low(a >> at), F::from_low(b >> at))?;
        let mask = u128::MAX >> (128 - F::BITS);
        value = value & !(mask << at) | number.low() << at;
    }
    Some(value)
}

/// What a comparison of the lowest numbers leaves in ZF, PF and CF. It raises nothing, whatever the guest's
/// MXCSR says.
#[inline(always)]
pub fn order<F: Float>(a: u128, b: u128) -> Option<u64> {
    let (a, b) = (F::from_low(a), F::from_low(b));
    let status = u64::from(a == b) << 6 | u64::from(a < b);
    (is_usable(a) && is_usable(b)).then_some(status)
}

/// The lesser or the greater of the lowest numbers; the second one where they are equal. As above.
#[inline(always)]
pub fn extreme<F: Float, const GREATER: bool>(a: u128, b: u128) -> Option<u128> {
    let (x, y) = (F::from_low(a), F::from_low(b));
    let first = if GREATER { x > y } else { x < y };
    let chosen = if first { x } else { y };
    let mask = u128::MAX >> (128 - F::BITS);
    (is_usable(x) && is_usable(y)).then(|| a & !mask | chosen.low())
}

/// Cuts off what is behind the point, for numbers whose integers certainly have `S` bytes.
#[inline(always)]
pub fn truncate<F: Float + Into<f64>, const S: u8>(b: u128) -> Option<u64> {
    let number = F::from_low(b);
    let wide: f64 = number.into();
    let bound = if S == 4 { 2147483647.0 } else { 9.2e18 };
    let fits = is_usable(number) && wide > -bound && wide < bound;
    fits.then(|| {
        if S == 4 {
            u64::from(wide as i32 as u32)
        } else {
            wide as i64 as u64
        }
    })
}

/// An integer of `S` bytes as a double, where that is exact.
#[inline(always)]
pub fn double_of<const S: u8>(value: u64) -> Option<f64> {
    let value = if S == 4 {
        i64::from(value as i32)
    } else {
        value as i64
    };
    (value.unsigned_abs() <= 1 << 53).then_some(value as f64)
}

/// An integer of `S` bytes, rounded to nearest.
#[inline(always)]
pub fn single_of<const S: u8>(value: u64) -> f32 {
    if S == 4 {
        value as i32 as f32
    } else {
        value as i64 as f32
    }
}

/// A single as a double, which is exact. As for comparisons.
#[inline(always)]
pub fn widened(b: u128) -> Option<f64> {
    let number = f32::from_low(b);
    is_usable(number).then(|| f64::from(number))
}

/// A double, rounded to a single.
#[inline(always)]
pub fn narrowed(b: u128) -> Option<f32> {
    let number = f64::from_low(b);
    let result = number as f32;
    let good = result.is_plain() || number.is_zero();
    (is_usable(number) && good).then_some(result)
}
