//! Arithmetic: a number from one or two.

use super::host::{Job, Operation, arithmetic as host};
use super::memory::{F32, F64, I16, I32, Source, by_source};
use super::stack::{INDEFINITE, fsw};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::state::Cpu;

/// FADD and its like.
pub trait Arithmetic {
    /// ST(0) with ST(1).
    const REGISTERS: Operation;
    /// ST(0) with memory, by [`Source::NUMBER`].
    const MEMORY: [Operation; 4];
}

macro_rules! arithmetic {
    ($($name:ident: $st:ident $f32:ident $f64:ident $i16:ident $i32:ident)*) => {$(
        /// See the instruction.
        #[derive(Debug)]
        pub struct $name;
        impl Arithmetic for $name {
            const REGISTERS: Operation = host::$st;
            const MEMORY: [Operation; 4] = [host::$f32, host::$f64, host::$i16, host::$i32];
        }
    )*};
}
arithmetic! {
    Add: add add_32 add_64 add_int_16 add_int_32
    Sub: sub sub_32 sub_64 sub_int_16 sub_int_32
    Subr: subr subr_32 subr_64 subr_int_16 subr_int_32
    Mul: mul mul_32 mul_64 mul_int_16 mul_int_32
    Div: div div_32 div_64 div_int_16 div_int_32
    Divr: divr divr_32 divr_64 divr_int_16 divr_int_32
}

fn registers<A: Arithmetic, const POP: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let fpu = &cpu.fpu;
    let mut job = Job::new(fpu.fcw, fpu.value(op.dst), fpu.value(op.src), 0);
    if fpu.is_empty(op.dst) || fpu.is_empty(op.src) {
        (job.a, job.fsw) = (INDEFINITE, fsw::UNDERFLOW);
    } else {
        A::REGISTERS(&mut job);
    }
    if cpu.end_arithmetic(op, job.fsw) {
        cpu.fpu.set(op.dst, job.a);
        if POP {
            cpu.fpu.pop();
        }
    }
    Ok(Flow::Next)
}

fn memory<A: Arithmetic, S: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let memory = S::load(cpu, op)?;
    let mut job = Job::new(cpu.fpu.fcw, cpu.fpu.value(0), 0, u128::from(memory));
    match cpu.fpu.is_empty(0) {
        true => (job.a, job.fsw) = (INDEFINITE, fsw::UNDERFLOW),
        false => A::MEMORY[S::NUMBER](&mut job),
    }
    if cpu.end_arithmetic(op, job.fsw) {
        cpu.fpu.set(0, job.a);
    }
    Ok(Flow::Next)
}

/// FADD, FIADD and their like.
pub fn pick<A: Arithmetic>(form: &Form) -> Handler {
    match form.memory() {
        false => registers::<A, false>,
        true => by_source!(form, S => memory::<A, S>),
    }
}

/// FADDP and its like.
pub fn pick_pop<A: Arithmetic>(_: &Form) -> Handler {
    registers::<A, true>
}

/// What changes ST(0).
pub trait InPlace {
    /// It does so.
    const RUN: Operation;
    /// Does it look at ST(1)?
    const TWO: bool;
    /// The condition codes that it sets.
    const CODES: u16;
}

macro_rules! in_place {
    ($($name:ident: $run:path, $two:literal, $codes:expr;)*) => {$(
        /// See the instruction.
        #[derive(Debug)]
        pub struct $name;
        impl InPlace for $name {
            const RUN: Operation = $run;
            const TWO: bool = $two;
            const CODES: u16 = $codes;
        }
    )*};
}
in_place! {
    Sqrt: host::sqrt, false, fsw::C1;
    Round: host::round, false, fsw::C1;
    Scale: host::scale, true, fsw::C1;
    Rem: super::remainder::truncated, true, fsw::CODES;
    Rem1: super::remainder::nearest, true, fsw::CODES;
}

fn in_place<I: InPlace>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let fpu = &cpu.fpu;
    let mut job = Job::new(fpu.fcw, fpu.value(0), fpu.value(1), 0);
    if fpu.is_empty(0) || I::TWO && fpu.is_empty(1) {
        (job.a, job.fsw) = (INDEFINITE, fsw::UNDERFLOW);
    } else {
        I::RUN(&mut job);
    }
    // No quotient, no bits of it.
    let nan = job.a >> 64 & 0x7fff == 0x7fff;
    let stopped = job.fsw & !job.fcw & fsw::BEFORE != 0;
    let codes = match nan || stopped {
        true => I::CODES & (fsw::C1 | fsw::C2),
        false => I::CODES,
    };
    if cpu.end_x87(op, job.fsw, codes, fsw::BEFORE) {
        cpu.fpu.set(0, job.a);
    }
    Ok(Flow::Next)
}

/// FSQRT, FRNDINT, FSCALE, FPREM and FPREM1.
pub fn pick_in_place<I: InPlace>(_: &Form) -> Handler {
    in_place::<I>
}

/// The exponent becomes ST(1), the significand ST(0).
fn extract(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let fpu = &cpu.fpu;
    let mut job = Job::new(fpu.fcw, fpu.value(0), 0, 0);
    if fpu.is_empty(0) || !fpu.is_empty(7) {
        (job.a, job.b) = (INDEFINITE, INDEFINITE);
        job.fsw = if fpu.is_empty(0) {
            fsw::UNDERFLOW
        } else {
            fsw::OVERFLOW
        };
    } else {
        host::extract(&mut job);
    }
    if cpu.end_arithmetic(op, job.fsw) {
        cpu.fpu.set(0, job.b);
        cpu.fpu.push(job.a);
    }
    Ok(Flow::Next)
}

/// FXTRACT.
pub fn pick_extract(_: &Form) -> Handler {
    extract
}

/// The sign is the only bit that changes, whatever the register holds.
fn sign<const FLIP: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    const SIGN: u128 = 1 << 79;
    cpu.begin_x87()?;
    let old = cpu.fpu.value(0);
    let (value, raised) = match (cpu.fpu.is_empty(0), FLIP) {
        (true, _) => (INDEFINITE, fsw::UNDERFLOW),
        (false, true) => (old ^ SIGN, 0),
        (false, false) => (old & !SIGN, 0),
    };
    if cpu.end_arithmetic(op, raised) {
        cpu.fpu.set(0, value);
    }
    Ok(Flow::Next)
}

/// FCHS.
pub fn pick_chs(_: &Form) -> Handler {
    sign::<true>
}

/// FABS.
pub fn pick_abs(_: &Form) -> Handler {
    sign::<false>
}
