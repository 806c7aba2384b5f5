//! Addition, subtraction, logic and comparison, and the exchanges XCHG, XADD and CMPXCHG.

use crate::flags::{Flags, ZF};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Src, Target, Value, by_shape, by_size, by_target};
use crate::state::{Cpu, gpr, mask};

/// An operation on two numbers of `S` bytes.
pub trait Binary {
    /// Does it write its result?
    const WRITES: bool = true;
    /// Result and flags, from the flags before.
    fn apply<const S: u8>(flags: Flags, a: u64, b: u64) -> (u64, Flags);
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident $writes:literal: |$flags:ident, $a:ident, $b:ident| $result:expr, $after:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;
            impl Binary for $name {
                const WRITES: bool = $writes;
                #[inline(always)]
                fn apply<const S: u8>($flags: Flags, $a: u64, $b: u64) -> (u64, Flags) {
                    let result = mask::<S>($result);
                    let of: fn(u64, u64, u64) -> Flags = $after;
                    (result, of($a, $b, result))
                }
            }
        )*
    };
}

binary! {
    /// ADD.
    Add true: |_flags, a, b| a.wrapping_add(b), Flags::of_sum::<S>;
    /// ADC.
    Adc true: |flags, a, b| a.wrapping_add(b).wrapping_add(u64::from(flags.carry())), Flags::of_sum::<S>;
    /// SUB.
    Sub true: |_flags, a, b| a.wrapping_sub(b), Flags::of_difference::<S>;
    /// SBB.
    Sbb true: |flags, a, b| a.wrapping_sub(b).wrapping_sub(u64::from(flags.carry())), Flags::of_difference::<S>;
    /// CMP.
    Cmp false: |_flags, a, b| a.wrapping_sub(b), Flags::of_difference::<S>;
    /// AND.
    And true: |_flags, a, b| a & b, |_, _, result| Flags::of_logic::<S>(result);
    /// OR.
    Or true: |_flags, a, b| a | b, |_, _, result| Flags::of_logic::<S>(result);
    /// XOR.
    Xor true: |_flags, a, b| a ^ b, |_, _, result| Flags::of_logic::<S>(result);
    /// TEST.
    Test false: |_flags, a, b| a & b, |_, _, result| Flags::of_logic::<S>(result);
}

fn binary<K: Binary, const S: u8, D: Target, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let b = R::read::<S>(cpu, op)?;
    if K::WRITES {
        let place = D::open::<S>(cpu, op)?;
        let a = D::peek::<S>(cpu, place);
        let (result, flags) = K::apply::<S>(cpu.flags, a, b);
        D::poke::<S>(cpu, place, result);
        cpu.flags = flags;
    } else {
        let a = D::read::<S>(cpu, op)?;
        cpu.flags = K::apply::<S>(cpu.flags, a, b).1;
    }
    Ok(Flow::Next)
}

/// The handler of such an operation.
pub fn pick<K: Binary>(form: &Form) -> Handler {
    by_size!(form.size(), S => by_shape!(form.shape(), D, R => binary::<K, S, D, R>))
}

/// An operation on one number of `S` bytes.
pub trait Unary {
    /// Result and flags, from the flags before.
    fn apply<const S: u8>(flags: Flags, a: u64) -> (u64, Flags);
}

/// INC.
#[derive(Debug)]
pub struct Inc;
/// DEC.
#[derive(Debug)]
pub struct Dec;
/// NEG.
#[derive(Debug)]
pub struct Neg;
/// NOT.
#[derive(Debug)]
pub struct Not;

impl Unary for Inc {
    #[inline(always)]
    fn apply<const S: u8>(flags: Flags, a: u64) -> (u64, Flags) {
        let result = mask::<S>(a.wrapping_add(1));
        let after = Flags::of_sum::<S>(a, 1, result);
        (result, after.with_carry(flags.carry()))
    }
}

impl Unary for Dec {
    #[inline(always)]
    fn apply<const S: u8>(flags: Flags, a: u64) -> (u64, Flags) {
        let result = mask::<S>(a.wrapping_sub(1));
        let after = Flags::of_difference::<S>(a, 1, result);
        (result, after.with_carry(flags.carry()))
    }
}

impl Unary for Neg {
    #[inline(always)]
    fn apply<const S: u8>(_: Flags, a: u64) -> (u64, Flags) {
        let result = mask::<S>(a.wrapping_neg());
        (result, Flags::of_difference::<S>(0, a, result))
    }
}

impl Unary for Not {
    #[inline(always)]
    fn apply<const S: u8>(flags: Flags, a: u64) -> (u64, Flags) {
        (mask::<S>(!a), flags)
    }
}

fn unary<K: Unary, const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let place = D::open::<S>(cpu, op)?;
    let (result, flags) = K::apply::<S>(cpu.flags, D::peek::<S>(cpu, place));
    D::poke::<S>(cpu, place, result);
    cpu.flags = flags;
    Ok(Flow::Next)
}

/// The handler of such an operation.
pub fn pick_unary<K: Unary>(form: &Form) -> Handler {
    by_size!(form.size(), S => by_target!(form.memory(), D => unary::<K, S, D>))
}

fn exchange<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let place = D::open::<S>(cpu, op)?;
    let (a, b) = (D::peek::<S>(cpu, place), Src::read::<S>(cpu, op)?);
    Src::write::<S>(cpu, op, a)?;
    D::poke::<S>(cpu, place, b);
    Ok(Flow::Next)
}

/// XCHG.
pub fn xchg(form: &Form) -> Handler {
    by_size!(form.size(), S => by_target!(form.memory(), D => exchange::<S, D>))
}

fn exchange_add<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let place = D::open::<S>(cpu, op)?;
    let (a, b) = (D::peek::<S>(cpu, place), Src::read::<S>(cpu, op)?);
    let (sum, flags) = Add::apply::<S>(cpu.flags, a, b);
    Src::write::<S>(cpu, op, a)?;
    D::poke::<S>(cpu, place, sum);
    cpu.flags = flags;
    Ok(Flow::Next)
}

/// XADD.
pub fn xadd(form: &Form) -> Handler {
    by_size!(form.size(), S => by_target!(form.memory(), D => exchange_add::<S, D>))
}

/// If they differ, the destination stays: half a register does not clear the other half. A fault is a
/// write's all the same.
fn compare_exchange<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let place = D::open::<S>(cpu, op)?;
    let there = D::peek::<S>(cpu, place);
    let expected = cpu.get::<S>(gpr::AX as u8);
    let new = Src::read::<S>(cpu, op)?;
    let flags = Cmp::apply::<S>(cpu.flags, expected, there).1;
    if flags.zero() {
        D::poke::<S>(cpu, place, new);
    } else {
        cpu.set::<S>(gpr::AX as u8, there);
    }
    cpu.flags = flags;
    Ok(Flow::Next)
}

/// CMPXCHG.
pub fn cmpxchg(form: &Form) -> Handler {
    by_size!(form.size(), S => by_target!(form.memory(), D => compare_exchange::<S, D>))
}

fn compare_exchange_8_bytes(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let address = cpu.address(op);
    let place = cpu.open::<8>(address)?;
    let there = cpu.peek::<8>(place);
    let pair =
        |cpu: &Cpu, high: usize, low: usize| mask::<4>(cpu.r[high]) << 32 | mask::<4>(cpu.r[low]);
    let equal = pair(cpu, gpr::DX, gpr::AX) == there;
    if equal {
        let new = pair(cpu, gpr::CX, gpr::BX);
        cpu.poke::<8>(place, new);
    } else {
        cpu.r[gpr::AX] = mask::<4>(there);
        cpu.r[gpr::DX] = there >> 32;
    }
    let zero = if equal { ZF } else { 0 };
    cpu.flags = Flags::from_status(cpu.flags.status() & !ZF | zero);
    Ok(Flow::Next)
}

/// CMPXCHG8B.
pub fn cmpxchg8b(_: &Form) -> Handler {
    compare_exchange_8_bytes
}

/// What a single flag becomes.
fn set_carry<const SET: bool>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.flags = cpu.flags.with_carry(SET);
    Ok(Flow::Next)
}

/// CLC.
pub fn clc(_: &Form) -> Handler {
    set_carry::<false>
}

/// STC.
pub fn stc(_: &Form) -> Handler {
    set_carry::<true>
}

fn complement_carry(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.flags = cpu.flags.with_carry(!cpu.flags.carry());
    Ok(Flow::Next)
}

/// CMC.
pub fn cmc(_: &Form) -> Handler {
    complement_carry
}
