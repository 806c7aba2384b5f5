//! Moving whole registers and parts of them.

use super::operand::{Bank, Mm, Xmm, by_source, on_mmx};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Mem, Shape, Target, Value, by_target};
use crate::paging::Access;
use crate::state::Cpu;

const LOW: u128 = u64::MAX as u128;

/// Loads 16 bytes, which `ALIGNED` has to lie on 16 bytes.
fn load<const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let address = cpu.address(op);
    if ALIGNED {
        cpu.aligned(address)?;
    }
    let value = cpu.load128(address)?;
    Xmm::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

fn store<const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let address = cpu.address(op);
    if ALIGNED {
        cpu.aligned(address)?;
    }
    let value = Xmm::get(cpu, op.src);
    cpu.store128(address, value)?;
    Ok(Flow::Next)
}

/// From register to register: `run` makes the new value of the old one and the source.
#[inline(always)]
fn merge(cpu: &mut Cpu, op: &Op, run: impl Fn(u128, u128) -> u128) -> Done<Flow> {
    cpu.may_use_sse()?;
    let (old, source) = (Xmm::get(cpu, op.dst), Xmm::get(cpu, op.src));
    Xmm::set(cpu, op.dst, run(old, source));
    Ok(Flow::Next)
}

fn copy(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    merge(cpu, op, |_, source| source)
}

/// MOVUPS, MOVUPD, MOVDQU.
pub fn unaligned(form: &Form) -> Handler {
    match form.shape() {
        Shape::RegMem => load::<false>,
        Shape::MemReg => store::<false>,
        _ => copy,
    }
}

/// MOVAPS, MOVAPD, MOVDQA, MOVNTPS, MOVNTPD, MOVNTDQ.
pub fn aligned(form: &Form) -> Handler {
    match form.shape() {
        Shape::RegMem => load::<true>,
        Shape::MemReg => store::<true>,
        _ => copy,
    }
}

/// Loads `S` bytes; above them all is zero.
fn load_low<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let value = Mem::read::<S>(cpu, op)?;
    Xmm::set(cpu, op.dst, u128::from(value));
    Ok(Flow::Next)
}

fn store_low<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let value = Xmm::get(cpu, op.src) as u64;
    Mem::write::<S>(cpu, op, value)?;
    Ok(Flow::Next)
}

/// MOVSS.
pub fn movss(form: &Form) -> Handler {
    const SINGLE: u128 = u32::MAX as u128;
    match form.shape() {
        Shape::RegMem => load_low::<4>,
        Shape::MemReg => store_low::<4>,
        _ => |cpu, op| merge(cpu, op, |old, source| old & !SINGLE | source & SINGLE),
    }
}

/// MOVSD.
pub fn movsd(form: &Form) -> Handler {
    match form.shape() {
        Shape::RegMem => load_low::<8>,
        Shape::MemReg => store_low::<8>,
        _ => |cpu, op| merge(cpu, op, |old, source| old & !LOW | source & LOW),
    }
}

/// Loads the half of the register that begins at bit `AT`.
fn load_half<const AT: u32>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let half = u128::from(Mem::read::<8>(cpu, op)?);
    let old = Xmm::get(cpu, op.dst);
    Xmm::set(cpu, op.dst, old & !(LOW << AT) | half << AT);
    Ok(Flow::Next)
}

fn store_high(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let half = (Xmm::get(cpu, op.src) >> 64) as u64;
    Mem::write::<8>(cpu, op, half)?;
    Ok(Flow::Next)
}

/// MOVLPS, MOVLPD.
pub fn low_half(form: &Form) -> Handler {
    match form.shape() {
        Shape::RegMem => load_half::<0>,
        _ => store_low::<8>,
    }
}

/// MOVHPS, MOVHPD.
pub fn high_half(form: &Form) -> Handler {
    match form.shape() {
        Shape::RegMem => load_half::<64>,
        _ => store_high,
    }
}

/// MOVHLPS.
pub fn movhlps(_: &Form) -> Handler {
    |cpu, op| merge(cpu, op, |old, source| old & !LOW | source >> 64)
}

/// MOVLHPS.
pub fn movlhps(_: &Form) -> Handler {
    |cpu, op| merge(cpu, op, |old, source| old & LOW | source << 64)
}

/// From a general register or memory; above it all is zero.
fn from_general<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let value = R::read::<S>(cpu, op)?;
    Xmm::set(cpu, op.dst, u128::from(value));
    Ok(Flow::Next)
}

fn to_general<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_sse()?;
    let value = Xmm::get(cpu, op.src) as u64;
    D::write::<S>(cpu, op, value)?;
    Ok(Flow::Next)
}

/// MOVD, and MOVQ between an XMM register and another operand.
pub fn movd_movq(form: &Form) -> Handler {
    let xmm = |index| form.instruction.op_register(index).is_xmm();
    match (xmm(0), xmm(1), form.size()) {
        (true, true, _) => |cpu, op| merge(cpu, op, |_, source| source & LOW),
        (true, false, _) if form.source_size() == 4 => {
            by_source!(form, R => from_general::<4, R>)
        }
        (true, false, _) => by_source!(form, R => from_general::<8, R>),
        (false, _, 4) => by_target!(form.memory(), D => to_general::<4, D>),
        (false, _, _) => by_target!(form.memory(), D => to_general::<8, D>),
    }
}

/// MOVQ2DQ.
pub fn movq2dq(_: &Form) -> Handler {
    |cpu, op| {
        cpu.may_use_sse()?;
        Mm::enter(cpu)?;
        let value = Mm::get(cpu, op.src);
        Xmm::set(cpu, op.dst, value);
        Mm::used(cpu);
        Ok(Flow::Next)
    }
}

/// MOVDQ2Q.
pub fn movdq2q(_: &Form) -> Handler {
    |cpu, op| {
        cpu.may_use_sse()?;
        Mm::enter(cpu)?;
        let value = Xmm::get(cpu, op.src);
        Mm::set(cpu, op.dst, value);
        Mm::used(cpu);
        Ok(Flow::Next)
    }
}

/// MOVNTQ.
pub fn movntq(_: &Form) -> Handler {
    |cpu, op| {
        Mm::enter(cpu)?;
        let value = Mm::get(cpu, op.src) as u64;
        Mem::write::<8>(cpu, op, value)?;
        Mm::used(cpu);
        Ok(Flow::Next)
    }
}

/// Stores the bytes of a register whose bytes in a mask have the highest bit set. It faults as if it wrote
/// all, the upper half of a wide register first.
fn store_masked<B: Bank>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    B::enter(cpu)?;
    let mask = B::get(cpu, op.dst).to_le_bytes();
    let data = B::get(cpu, op.src).to_le_bytes();
    for half in (0..B::BYTES).step_by(8).rev().map(u64::from) {
        let start = cpu.address_behind(op, half);
        let span = cpu.span(start, 8, Access::Write)?;
        cpu.may_write(&span)?;
    }
    for index in (0..usize::from(B::BYTES)).filter(|index| mask[*index] & 0x80 != 0) {
        let at = cpu.address_behind(op, index as u64);
        cpu.store::<1>(at, u64::from(data[index]))?;
    }
    B::used(cpu);
    Ok(Flow::Next)
}

/// MASKMOVDQU and MASKMOVQ.
pub fn masked(form: &Form) -> Handler {
    match on_mmx(form) {
        false => store_masked::<Xmm>,
        true => store_masked::<Mm>,
    }
}
