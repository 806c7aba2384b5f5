//! RCPPS, RCPSS, RSQRTPS and RSQRTSS. Real processors differ in these; here they are exact values, rounded
//! to nearest with 12 bits after the point. Denormal operands are taken for zeros, and results too small for
//! a normal number are zero. No flag of MXCSR is set, and no mode of it has an effect.

use super::operand::{Bank, Source, Xmm, by_source};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::state::Cpu;

const SIGN: u32 = 1 << 31;
const INFINITE: u32 = 0x7f80_0000;
/// What makes a NaN quiet.
const QUIET: u32 = 1 << 22;
/// The NaN that invalid operations give.
const INDEFINITE: u32 = 0xffc0_0000;
/// The exponent of 1.
const BIAS: i32 = 127;

/// A positive normal number: its exponent, and its significand with 23 bits after the point.
fn parts(bits: u32) -> (i32, u64) {
    let exponent = (bits >> 23 & 0xff) as i32 - BIAS;
    (exponent, u64::from(bits & 0x7f_ffff | 1 << 23))
}

/// The number with this exponent and this significand, which has 12 bits after the point and is from 1 to 2.
fn assemble(exponent: i32, significand: u64) -> u32 {
    debug_assert!((1 << 12..=1 << 13).contains(&significand));
    let biased = exponent + BIAS + (significand >> 13) as i32;
    match biased {
        ..=0 => 0,
        _ => (biased as u32) << 23 | (significand as u32 & 0xfff) << 11,
    }
}

/// What both give for an operand that is zero, denormal, infinite or no number.
fn special(bits: u32) -> Option<u32> {
    let sign = bits & SIGN;
    match bits & !SIGN {
        0..0x80_0000 => Some(sign | INFINITE),
        INFINITE => Some(sign),
        0x7f80_0001.. => Some(bits | QUIET),
        _ => None,
    }
}

/// 1/x.
fn reciprocal(bits: u32) -> u32 {
    if let Some(result) = special(bits) {
        return result;
    }
    let (exponent, significand) = parts(bits);
    // From 2^12 to 2^13, with 12 bits after the point if it is taken for half as much. Never half way
    // between two: that needs a power of two, which divides evenly.
    let quotient = (1 << 36) / significand;
    let rest = (1 << 36) % significand;
    let rounded = quotient + u64::from(2 * rest > significand);
    bits & SIGN | assemble(-1 - exponent, rounded)
}

/// 1/√x.
fn root_reciprocal(bits: u32) -> u32 {
    match special(bits) {
        Some(_) if bits == SIGN | INFINITE => return INDEFINITE,
        Some(result) => return result,
        None if bits & SIGN != 0 => return INDEFINITE,
        None => {}
    }
    let (exponent, significand) = parts(bits);
    // x is from 1 to 4, times a power of 4.
    let half = exponent.div_euclid(2);
    let x = significand << exponent.rem_euclid(2);
    // As above, from 2^12 to 2^13.
    let root = ((1 << 49) / x).isqrt();
    let middle = 2 * root + 1;
    let rounded = root + u64::from(middle * middle * x < 1 << 51);
    assemble(-1 - half, rounded)
}

/// The destination's lowest `count` numbers become what `run` makes of the source's.
#[inline(always)]
fn operate<R: Source>(cpu: &mut Cpu, op: &Op, count: u8, run: impl Fn(u32) -> u32) -> Done<Flow> {
    cpu.may_use_sse()?;
    let source = R::wide::<Xmm>(cpu, op, 4 * count)?;
    let mut value = Xmm::get(cpu, op.dst);
    for shift in (0..u32::from(count)).map(|index| 32 * index) {
        let result = run((source >> shift) as u32);
        value = value & !(u128::from(u32::MAX) << shift) | u128::from(result) << shift;
    }
    Xmm::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

macro_rules! approximations {
    ($($count:literal $name:ident $run:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<R>(cpu, op, $count, $run)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
approximations! {
    1 rcpss reciprocal 4 rcpps reciprocal 1 rsqrtss root_reciprocal 4 rsqrtps root_reciprocal
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Positive normal numbers, at equal distances.
    fn numbers() -> impl Iterator<Item = u32> {
        (0x80_0000..INFINITE).step_by(997)
    }

    /// How far off a result is, as a part of the exact one.
    fn error(result: u32, exact: f64) -> f64 {
        (f64::from(f32::from_bits(result)) / exact - 1.0).abs()
    }

    #[test]
    fn results_are_as_near_as_twelve_bits_allow() {
        let most = 1.0 / f64::from(1 << 13);
        for bits in numbers() {
            let x = f64::from(f32::from_bits(bits));
            let root = root_reciprocal(bits);
            assert!(error(root, 1.0 / x.sqrt()) <= most, "{bits:#x}");
            let result = reciprocal(bits);
            let tiny = 1.0 / x < f64::from(f32::MIN_POSITIVE) * (1.0 - most);
            match result {
                0 => assert!(1.0 / x < f64::from(f32::MIN_POSITIVE), "{bits:#x}"),
                _ => assert!(!tiny && error(result, 1.0 / x) <= most, "{bits:#x}"),
            }
            assert_eq!(result & 0x7ff | root & 0x7ff, 0, "bits after the twelfth");
            assert_eq!(reciprocal(bits | SIGN), result | SIGN);
            assert_eq!(root_reciprocal(bits | SIGN), INDEFINITE);
        }
    }

    #[test]
    fn powers_of_two_are_exact_and_special_operands_as_in_the_manual() {
        assert_eq!(reciprocal(2f32.to_bits()), 0.5f32.to_bits());
        assert_eq!(reciprocal((-0.25f32).to_bits()), (-4f32).to_bits());
        assert_eq!(root_reciprocal(16f32.to_bits()), 0.25f32.to_bits());
        assert_eq!(root_reciprocal(0.25f32.to_bits()), 2f32.to_bits());
        for run in [reciprocal, root_reciprocal] {
            assert_eq!(run(0), INFINITE);
            assert_eq!(run(SIGN | 1), SIGN | INFINITE);
            assert_eq!(run(INFINITE), 0);
            assert_eq!(run(0x7f80_0001), 0x7fc0_0001);
            assert_eq!(run(0xffc0_1234), 0xffc0_1234);
        }
        assert_eq!(reciprocal(SIGN | INFINITE), SIGN);
        assert_eq!(root_reciprocal(SIGN | INFINITE), INDEFINITE);
        // 2^126 gives the least normal number, and more gives zero.
        assert_eq!(reciprocal(253 << 23), 0x80_0000);
        assert_eq!(reciprocal(254 << 23), 0);
    }
}
