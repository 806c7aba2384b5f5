//! Storing, and moving within the stack.

use super::host::{Job, Operation, conversion as host};
use super::memory::kind;
use super::stack::{INDEFINITE, fsw};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::state::Cpu;
use iced_x86::{Code, MemorySize, Mnemonic};

/// A format that numbers are stored in.
trait Format {
    /// Bytes.
    const SIZE: usize;
    /// What is stored for nothing.
    const INDEFINITE: u128;
    /// The conversion.
    const RUN: Operation;
}

macro_rules! formats {
    ($($name:ident $size:literal $indefinite:literal $run:path;)*) => {$(
        struct $name;
        impl Format for $name {
            const SIZE: usize = $size;
            const INDEFINITE: u128 = $indefinite;
            const RUN: Operation = $run;
        }
    )*};
}
formats! {
    Float32 4 0xffc0_0000 host::store_32;
    Float64 8 0xfff8_0000_0000_0000 host::store_64;
    Float80 10 0xffff_c000_0000_0000_0000 as_is;
    Int16 2 0x8000 host::store_int_16;
    Int32 4 0x8000_0000 host::store_int_32;
    Int64 8 0x8000_0000_0000_0000 host::store_int_64;
    Decimal 10 0xffff_c000_0000_0000_0000 host::store_bcd;
}

fn as_is(job: &mut Job) {
    job.memory = job.a;
}

/// Exceptions that leave memory and stack as they were if they are not masked.
const STOPS: u16 = fsw::BEFORE | fsw::RANGE;

fn memory<F: Format, const POP: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let mut job = Job::new(cpu.fpu.fcw, cpu.fpu.value(0), 0, F::INDEFINITE);
    match cpu.fpu.is_empty(0) {
        true => job.fsw = fsw::UNDERFLOW,
        false => F::RUN(&mut job),
    }
    if job.fsw & !job.fcw & STOPS == 0 {
        let address = cpu.address(op);
        let (low, high) = (job.memory as u64, (job.memory >> 64) as u64);
        match F::SIZE {
            2 => cpu.store::<2>(address, low)?,
            4 => cpu.store::<4>(address, low)?,
            8 => cpu.store::<8>(address, low)?,
            // If the second part faults, Intel's processors have written the first.
            _ => {
                cpu.store::<8>(address, low)?;
                cpu.store::<2>(address.wrapping_add(8), high)?;
            }
        }
    }
    if cpu.end_x87(op, job.fsw, fsw::C1, STOPS) && POP {
        cpu.fpu.pop();
    }
    Ok(Flow::Next)
}

fn register<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let (value, raised) = match cpu.fpu.is_empty(0) {
        true => (INDEFINITE, fsw::UNDERFLOW),
        false => (cpu.fpu.value(0), 0),
    };
    if cpu.end_arithmetic(op, raised) {
        cpu.fpu.set(op.dst, value);
        if POP {
            cpu.fpu.pop();
        }
    }
    Ok(Flow::Next)
}

/// FST.
pub fn pick_fst(form: &Form) -> Handler {
    match (form.memory(), kind(form)) {
        (false, _) => register::<false>,
        (true, MemorySize::Float32) => memory::<Float32, false>,
        (true, _) => memory::<Float64, false>,
    }
}

/// FSTP.
pub fn pick_fstp(form: &Form) -> Handler {
    match (form.memory(), kind(form)) {
        (false, _) => register::<true>,
        (true, MemorySize::Float32) => memory::<Float32, true>,
        (true, MemorySize::Float64) => memory::<Float64, true>,
        (true, _) => memory::<Float80, true>,
    }
}

/// FSTP by another encoding: an empty ST(0) is no fault, and changes nothing but the top.
fn quietly(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    match cpu.fpu.is_empty(0) {
        false => register::<true>(cpu, op),
        true => {
            cpu.begin_x87()?;
            cpu.end_arithmetic(op, 0);
            cpu.fpu.pop();
            Ok(Flow::Next)
        }
    }
}

/// FSTPNCE.
pub fn pick_fstpnce(_: &Form) -> Handler {
    quietly
}

/// FIST.
pub fn pick_fist(form: &Form) -> Handler {
    match kind(form) {
        MemorySize::Int16 => memory::<Int16, false>,
        _ => memory::<Int32, false>,
    }
}

/// FISTP.
pub fn pick_fistp(form: &Form) -> Handler {
    match kind(form) {
        MemorySize::Int16 => memory::<Int16, true>,
        MemorySize::Int32 => memory::<Int32, true>,
        _ => memory::<Int64, true>,
    }
}

/// FBSTP.
pub fn pick_fbstp(_: &Form) -> Handler {
    memory::<Decimal, true>
}

/// An empty register counts as an indefinite number, if that is masked.
fn exchange(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let taken = |cpu: &Cpu, index: u8| match cpu.fpu.is_empty(index) {
        true => INDEFINITE,
        false => cpu.fpu.value(index),
    };
    let (first, second) = (taken(cpu, 0), taken(cpu, op.src));
    let underflow = cpu.fpu.is_empty(0) || cpu.fpu.is_empty(op.src);
    let raised = if underflow { fsw::UNDERFLOW } else { 0 };
    if cpu.end_arithmetic(op, raised) {
        cpu.fpu.set(0, second);
        cpu.fpu.set(op.src, first);
    }
    Ok(Flow::Next)
}

/// FXCH.
pub fn pick_exchange(_: &Form) -> Handler {
    exchange
}

fn free<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    cpu.end_x87(op, 0, fsw::C1, 0);
    cpu.fpu.free(op.dst);
    if POP {
        cpu.fpu.pop();
    }
    Ok(Flow::Next)
}

/// FFREE and FFREEP.
pub fn pick_free(form: &Form) -> Handler {
    match form.instruction.code() {
        Code::Ffreep_sti => free::<true>,
        _ => free::<false>,
    }
}

fn turn<const BY: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    cpu.end_x87(op, 0, fsw::C1, 0);
    cpu.fpu.turn(BY);
    Ok(Flow::Next)
}

/// FINCSTP and FDECSTP.
pub fn pick_turn(form: &Form) -> Handler {
    match form.instruction.mnemonic() {
        Mnemonic::Fincstp => turn::<1>,
        _ => turn::<7>,
    }
}
