//! Choosing parts of registers by an immediate, and moving parts and signs to general registers.

use super::host;
use super::operand::{Bank, Mm, Source, Xmm, by_bank, on_mmx};
use super::packed::operate;
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::Value;
use crate::state::Cpu;

/// The part of `bits` bits of `value` with this number.
#[inline(always)]
fn part(value: u128, bits: u32, number: u64) -> u128 {
    value >> (bits * number as u32) & ((1 << bits) - 1)
}

/// Four parts of `bits` bits, each chosen by two bits of `order`: two of `a` and then two of `b`.
#[inline(always)]
fn choose(a: u128, b: u128, bits: u32, order: u64) -> u128 {
    let number = |index: u32| order >> (2 * index) & 3;
    part(a, bits, number(0))
        | part(a, bits, number(1)) << bits
        | part(b, bits, number(2)) << (2 * bits)
        | part(b, bits, number(3)) << (3 * bits)
}

const LOW: u128 = u64::MAX as u128;

/// The destination becomes what `$run` makes of it, the source and the immediate.
macro_rules! shuffles {
    ($($name:ident $run:expr;)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<B: Bank, R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<B, R>(cpu, op, |a, b| $run(a, b, op.imm))
            }
            by_bank!(form, B, R => run::<B, R>)
        }
    )*};
}
shuffles! {
    pshufd |_, b, order| choose(b, b, 32, order);
    pshuflw |_, b: u128, order| b & !LOW | choose(b, b, 16, order);
    pshufhw |_, b: u128, order| b & LOW | choose(b >> 64, b >> 64, 16, order) << 64;
    pshufw |_, b, order| choose(b, b, 16, order);
    shufps |a, b, order| choose(a, b, 32, order);
    shufpd |a, b, order: u64| part(a, 64, order & 1) | part(b, 64, order >> 1 & 1) << 64;
}

/// A general register or memory becomes a word.
fn insert<B: Bank, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    B::enter(cpu)?;
    let word = u128::from(R::read::<2>(cpu, op)?);
    let shift = 16 * (op.imm as u32 % u32::from(B::BYTES / 2));
    let old = B::get(cpu, op.dst);
    B::set(cpu, op.dst, old & !(0xffff << shift) | word << shift);
    B::used(cpu);
    Ok(Flow::Next)
}

/// PINSRW.
pub fn pinsrw(form: &Form) -> Handler {
    by_bank!(form, B, R => insert::<B, R>)
}

/// PEXTRW.
pub fn pextrw(form: &Form) -> Handler {
    fn extract<B: Bank>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
        B::enter(cpu)?;
        let number = op.imm % u64::from(B::BYTES / 2);
        let word = part(B::get(cpu, op.src), 16, number);
        cpu.set::<8>(op.dst, word as u64);
        B::used(cpu);
        Ok(Flow::Next)
    }
    match on_mmx(form) {
        false => extract::<Xmm>,
        true => extract::<Mm>,
    }
}

/// A general register becomes the signs of all parts.
#[inline(always)]
fn signs<B: Bank>(cpu: &mut Cpu, op: &Op, run: impl Fn(u128) -> i32) -> Done<Flow> {
    B::enter(cpu)?;
    let bits = run(B::get(cpu, op.src));
    cpu.set::<4>(op.dst, bits as u64);
    B::used(cpu);
    Ok(Flow::Next)
}

/// PMOVMSKB. The upper half of what it sees of an MMX register is zero.
pub fn pmovmskb(form: &Form) -> Handler {
    fn run<B: Bank>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
        signs::<B>(cpu, op, host::pmovmskb)
    }
    match on_mmx(form) {
        false => run::<Xmm>,
        true => run::<Mm>,
    }
}

/// MOVMSKPS.
pub fn movmskps(_: &Form) -> Handler {
    |cpu, op| signs::<Xmm>(cpu, op, host::movmskps)
}

/// MOVMSKPD.
pub fn movmskpd(_: &Form) -> Handler {
    |cpu, op| signs::<Xmm>(cpu, op, host::movmskpd)
}
