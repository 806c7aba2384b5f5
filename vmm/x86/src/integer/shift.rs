//! Shifts and rotations.
//!
//! The manual leaves OF undefined for counts above one, and AF for all shifts. Here it is as Intel's
//! processors do it. AF is clear after a shift. OF is what a shift by one would have made of it. Two kinds of
//! rotation leave OF alone: of a register by an immediate other than one, and through carry by a count that
//! comes back to where it began.

use crate::flags::Flags;
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Cl, Imm, Src, Target, Value, by_size, by_target, by_wide_size};
use crate::state::{Cpu, extend, mask};

/// A shift or rotation by `n`, which is masked and not zero.
pub trait Shift {
    /// Result and flags, from the flags before. `fixed`: a register is shifted by an immediate.
    fn apply<const S: u8>(flags: Flags, a: u64, n: u32, fixed: bool) -> (u64, Flags);
}

/// SHL, and SAL, which is the same.
#[derive(Debug)]
pub struct Shl;
/// SHR.
#[derive(Debug)]
pub struct Shr;
/// SAR.
#[derive(Debug)]
pub struct Sar;
/// ROL.
#[derive(Debug)]
pub struct Rol;
/// ROR.
#[derive(Debug)]
pub struct Ror;
/// RCL.
#[derive(Debug)]
pub struct Rcl;
/// RCR.
#[derive(Debug)]
pub struct Rcr;

const fn bits(size: u8) -> u32 {
    8 * size as u32
}

/// The highest bit.
fn top<const S: u8>(value: u64) -> bool {
    value >> (bits(S) - 1) & 1 != 0
}

/// Do the two highest bits differ? That is OF after a shift to the left by one.
fn top_two_differ<const S: u8>(value: u64) -> bool {
    top::<S>(value ^ value << 1)
}

impl Shift for Shl {
    #[inline(always)]
    fn apply<const S: u8>(_: Flags, a: u64, n: u32, _: bool) -> (u64, Flags) {
        let result = mask::<S>(a << n);
        let carry = match S {
            8 => a >> (64 - n) & 1 != 0,
            _ => (a << n) >> bits(S) & 1 != 0,
        };
        let overflow = top_two_differ::<S>(a);
        (result, Flags::of_result::<S>(result, carry, overflow))
    }
}

impl Shift for Shr {
    #[inline(always)]
    fn apply<const S: u8>(_: Flags, a: u64, n: u32, _: bool) -> (u64, Flags) {
        let result = a >> n;
        let carry = a >> (n - 1) & 1 != 0;
        (result, Flags::of_result::<S>(result, carry, top::<S>(a)))
    }
}

impl Shift for Sar {
    #[inline(always)]
    fn apply<const S: u8>(_: Flags, a: u64, n: u32, _: bool) -> (u64, Flags) {
        let a = extend::<S>(a) as i64;
        let result = mask::<S>((a >> n) as u64);
        let carry = a >> (n - 1) & 1 != 0;
        (result, Flags::of_result::<S>(result, carry, false))
    }
}

fn rotate_left<const S: u8>(a: u64, n: u32) -> u64 {
    match S {
        1 => u64::from((a as u8).rotate_left(n)),
        2 => u64::from((a as u16).rotate_left(n)),
        4 => u64::from((a as u32).rotate_left(n)),
        _ => a.rotate_left(n),
    }
}

impl Shift for Rol {
    #[inline(always)]
    fn apply<const S: u8>(flags: Flags, a: u64, n: u32, fixed: bool) -> (u64, Flags) {
        let result = rotate_left::<S>(a, n % bits(S));
        let overflow = match fixed && n != 1 {
            true => flags.overflow(),
            false => top_two_differ::<S>(a),
        };
        (result, flags.with_carry_overflow(result & 1 != 0, overflow))
    }
}

impl Shift for Ror {
    #[inline(always)]
    fn apply<const S: u8>(flags: Flags, a: u64, n: u32, fixed: bool) -> (u64, Flags) {
        let result = rotate_left::<S>(a, bits(S) - n % bits(S));
        let overflow = match fixed && n != 1 {
            true => flags.overflow(),
            false => top::<S>(a) != (a & 1 != 0),
        };
        (
            result,
            flags.with_carry_overflow(top::<S>(result), overflow),
        )
    }
}

impl Shift for Rcl {
    #[inline(always)]
    fn apply<const S: u8>(flags: Flags, a: u64, n: u32, _: bool) -> (u64, Flags) {
        let (result, carry) = through_carry::<S>(a, flags.carry(), n);
        let overflow = match n % (bits(S) + 1) {
            0 => flags.overflow(),
            _ => top_two_differ::<S>(a),
        };
        (result, flags.with_carry_overflow(carry, overflow))
    }
}

impl Shift for Rcr {
    #[inline(always)]
    fn apply<const S: u8>(flags: Flags, a: u64, n: u32, _: bool) -> (u64, Flags) {
        let n = n % (bits(S) + 1);
        let (result, carry) = through_carry::<S>(a, flags.carry(), bits(S) + 1 - n);
        let overflow = match n {
            0 => flags.overflow(),
            _ => top::<S>(a) != flags.carry(),
        };
        (result, flags.with_carry_overflow(carry, overflow))
    }
}

/// Rotates CF and the number to the left, as one.
fn through_carry<const S: u8>(a: u64, carry: bool, n: u32) -> (u64, bool) {
    let places = bits(S) + 1;
    let wide = u128::from(a) | u128::from(carry) << bits(S);
    let n = n % places;
    let rotated = wide << n | wide >> (places - n);
    (mask::<S>(rotated as u64), rotated >> bits(S) & 1 != 0)
}

/// The count as the processor takes it.
#[inline(always)]
fn count<const S: u8>(count: u64) -> u32 {
    count as u32 & if S == 8 { 63 } else { 31 }
}

fn shift<K: Shift, const S: u8, D: Target, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let n = count::<S>(R::read::<1>(cpu, op)?);
    let place = D::open::<S>(cpu, op)?;
    let a = D::peek::<S>(cpu, place);
    if n == 0 {
        // The destination is written all the same: half a register clears the other half.
        D::poke::<S>(cpu, place, a);
        return Ok(Flow::Next);
    }
    let (result, flags) = K::apply::<S>(cpu.flags, a, n, R::FIXED && D::REGISTER);
    D::poke::<S>(cpu, place, result);
    cpu.flags = flags;
    Ok(Flow::Next)
}

/// The handler of a shift or rotation.
pub fn pick<K: Shift>(form: &Form) -> Handler {
    match form.by_cl() {
        true => by_size!(form.size(), S => by_target!(form.memory(), D => shift::<K, S, D, Cl>)),
        false => by_size!(form.size(), S => by_target!(form.memory(), D => shift::<K, S, D, Imm>)),
    }
}

/// SHLD and SHRD: a shift that takes in the bits of another register.
pub trait DoubleShift {
    /// Result and CF.
    fn apply<const S: u8>(a: u64, b: u64, n: u32) -> (u64, bool);
    /// OF.
    fn overflow<const S: u8>(a: u64, b: u64) -> bool;
}

/// SHLD.
#[derive(Debug)]
pub struct Shld;
/// SHRD.
#[derive(Debug)]
pub struct Shrd;

/// With 16 bits and a count above 16, which the manual leaves undefined, `a` comes in again behind `b`.
impl DoubleShift for Shld {
    #[inline(always)]
    fn apply<const S: u8>(a: u64, b: u64, n: u32) -> (u64, bool) {
        if S == 2 {
            let wide = a << 32 | b << 16 | a;
            return (mask::<2>(wide << n >> 32), wide >> (48 - n) & 1 != 0);
        }
        let result = a << n | b >> (bits(S) - n);
        (mask::<S>(result), a >> (bits(S) - n) & 1 != 0)
    }

    #[inline(always)]
    fn overflow<const S: u8>(a: u64, _: u64) -> bool {
        top_two_differ::<S>(a)
    }
}

impl DoubleShift for Shrd {
    #[inline(always)]
    fn apply<const S: u8>(a: u64, b: u64, n: u32) -> (u64, bool) {
        if S == 2 {
            let wide = a << 32 | b << 16 | a;
            return (mask::<2>(wide >> n), wide >> (n - 1) & 1 != 0);
        }
        let result = a >> n | b << (bits(S) - n);
        (mask::<S>(result), a >> (n - 1) & 1 != 0)
    }

    #[inline(always)]
    fn overflow<const S: u8>(a: u64, b: u64) -> bool {
        top::<S>(a) != (b & 1 != 0)
    }
}

fn double_shift<K: DoubleShift, const S: u8, D: Target, R: Value>(
    cpu: &mut Cpu,
    op: &Op,
) -> Done<Flow> {
    let n = count::<S>(R::read::<1>(cpu, op)?);
    let place = D::open::<S>(cpu, op)?;
    let a = D::peek::<S>(cpu, place);
    if n == 0 {
        D::poke::<S>(cpu, place, a);
        return Ok(Flow::Next);
    }
    let b = Src::read::<S>(cpu, op)?;
    let (result, carry) = K::apply::<S>(a, b, n);
    let overflow = K::overflow::<S>(a, b);
    D::poke::<S>(cpu, place, result);
    cpu.flags = Flags::of_result::<S>(result, carry, overflow);
    Ok(Flow::Next)
}

/// The handler of SHLD or SHRD.
pub fn pick_double<K: DoubleShift>(form: &Form) -> Handler {
    match form.by_cl() {
        true => {
            by_wide_size!(form.size(), S => by_target!(form.memory(), D => double_shift::<K, S, D, Cl>))
        }
        false => {
            by_wide_size!(form.size(), S => by_target!(form.memory(), D => double_shift::<K, S, D, Imm>))
        }
    }
}
