//! Loading onto the stack.

use super::host::{Job, Operation, conversion as host};
use super::memory::{F32, F64, Source, kind};
use super::number::from_integer;
use super::stack::{INDEFINITE, fsw};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Mem, Value};
use crate::state::{Cpu, extend};
use iced_x86::{MemorySize, Mnemonic};

/// Ends an instruction that pushes `value`, if there is room. A denormal operand is no obstacle, masked or
/// not.
fn push(cpu: &mut Cpu, op: &Op, value: u128, raised: u16) -> Done<Flow> {
    let (value, raised) = match cpu.fpu.is_empty(7) {
        true => (value, raised),
        false => (INDEFINITE, fsw::OVERFLOW),
    };
    if cpu.end_x87(op, raised, fsw::C1, fsw::IE) {
        cpu.fpu.push(value);
    }
    Ok(Flow::Next)
}

/// With conversion, which may find a signalling NaN or a denormal.
fn float<S: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    const RUN: [Operation; 2] = [host::load_32, host::load_64];
    cpu.begin_x87()?;
    let memory = S::load(cpu, op)?;
    let mut job = Job::new(cpu.fpu.fcw, 0, 0, u128::from(memory));
    RUN[S::NUMBER](&mut job);
    push(cpu, op, job.a, job.fsw)
}

fn integer<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let value = extend::<S>(Mem::read::<S>(cpu, op)?) as i64;
    push(cpu, op, from_integer(value), 0)
}

/// Ten bytes of memory.
fn ten_bytes(cpu: &mut Cpu, op: &Op) -> Done<u128> {
    let mut bytes = [0; 16];
    let address = cpu.address(op);
    cpu.load_bytes(address, &mut bytes[..10])?;
    Ok(u128::from_le_bytes(bytes))
}

fn extended(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let value = ten_bytes(cpu, op)?;
    push(cpu, op, value, 0)
}

/// Digits above nine count for what they are; the manual leaves them undefined.
fn decimal(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let packed = ten_bytes(cpu, op)?;
    let digit = |place: u32| (packed >> (4 * place)) as i64 & 0xf;
    let value = (0..18)
        .rev()
        .fold(0, |value, place| value * 10 + digit(place));
    let sign = (packed >> 79 & 1) << 79;
    push(cpu, op, from_integer(value) | sign, 0)
}

fn register(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    if !cpu.fpu.is_empty(op.dst) {
        return push(cpu, op, cpu.fpu.value(op.dst), 0);
    }
    // Whether there is room or not.
    if cpu.end_arithmetic(op, fsw::UNDERFLOW) {
        cpu.fpu.push(INDEFINITE);
    }
    Ok(Flow::Next)
}

/// FLD.
pub fn pick_fld(form: &Form) -> Handler {
    match (form.memory(), kind(form)) {
        (false, _) => register,
        (true, MemorySize::Float32) => float::<F32>,
        (true, MemorySize::Float64) => float::<F64>,
        (true, _) => extended,
    }
}

/// FILD.
pub fn pick_fild(form: &Form) -> Handler {
    match kind(form) {
        MemorySize::Int16 => integer::<2>,
        MemorySize::Int32 => integer::<4>,
        _ => integer::<8>,
    }
}

/// FBLD.
pub fn pick_fbld(_: &Form) -> Handler {
    decimal
}

/// The constants of FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2 and FLDZ, rounded as the guest wants.
const CONSTANTS: [Operation; 7] = [
    host::one,
    host::log2_10,
    host::log2_e,
    host::pi,
    host::log10_2,
    host::ln_2,
    host::zero,
];

fn constant<const NUMBER: usize>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let mut job = Job::new(cpu.fpu.fcw, 0, 0, 0);
    CONSTANTS[NUMBER](&mut job);
    push(cpu, op, job.a, job.fsw)
}

/// FLD1 and its like.
pub fn pick_constant(form: &Form) -> Handler {
    match form.instruction.mnemonic() {
        Mnemonic::Fld1 => constant::<0>,
        Mnemonic::Fldl2t => constant::<1>,
        Mnemonic::Fldl2e => constant::<2>,
        Mnemonic::Fldpi => constant::<3>,
        Mnemonic::Fldlg2 => constant::<4>,
        Mnemonic::Fldln2 => constant::<5>,
        _ => constant::<6>,
    }
}
