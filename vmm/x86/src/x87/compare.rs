//! Comparing, and moves that depend on it.

use super::host::{Job, Operation, comparison as host};
use super::memory::{F32, F64, I16, I32, Source, by_source};
use super::stack::{INDEFINITE, fsw};
use crate::flags::Flags;
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::state::Cpu;
use iced_x86::{Code, Mnemonic};

/// Neither less, nor equal, nor greater.
const UNORDERED: u16 = fsw::C0 | fsw::C2 | fsw::C3;

/// ST(0) with memory, by [`Source::NUMBER`].
const WITH_MEMORY: [Operation; 4] = [
    host::com_32,
    host::com_64,
    host::com_int_16,
    host::com_int_32,
];

/// The status word of comparing ST(0) with ST(`with`).
fn status(cpu: &Cpu, with: u8, run: Operation) -> u16 {
    let fpu = &cpu.fpu;
    if fpu.is_empty(0) || fpu.is_empty(with) {
        return fsw::UNDERFLOW | UNORDERED;
    }
    let mut job = Job::new(fpu.fcw, fpu.value(0), fpu.value(with), 0);
    run(&mut job);
    job.fsw
}

fn pop(cpu: &mut Cpu, count: u8) {
    for _ in 0..count {
        cpu.fpu.pop();
    }
}

/// `QUIET`: a quiet NaN is not invalid. The other operand is ST(1) where none is named.
fn registers<const QUIET: bool, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let with = if POPS == 2 { 1 } else { op.src };
    let raised = status(cpu, with, if QUIET { host::ucom } else { host::com });
    if cpu.end_x87(op, raised, fsw::CODES, fsw::BEFORE) {
        pop(cpu, POPS);
    }
    Ok(Flow::Next)
}

fn memory<S: Source, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let memory = S::load(cpu, op)?;
    let mut job = Job::new(cpu.fpu.fcw, cpu.fpu.value(0), 0, u128::from(memory));
    match cpu.fpu.is_empty(0) {
        true => job.fsw = fsw::UNDERFLOW | UNORDERED,
        false => WITH_MEMORY[S::NUMBER](&mut job),
    }
    if cpu.end_x87(op, job.fsw, fsw::CODES, fsw::BEFORE) {
        pop(cpu, POPS);
    }
    Ok(Flow::Next)
}

/// FCOM and FICOM.
pub fn pick_com(form: &Form) -> Handler {
    match form.memory() {
        false => registers::<false, 0>,
        true => by_source!(form, S => memory::<S, 0>),
    }
}

/// FCOMP and FICOMP.
pub fn pick_comp(form: &Form) -> Handler {
    match form.memory() {
        false => registers::<false, 1>,
        true => by_source!(form, S => memory::<S, 1>),
    }
}

/// FCOMPP, FUCOM, FUCOMP and FUCOMPP.
pub fn pick_others(form: &Form) -> Handler {
    match form.instruction.code() {
        Code::Fcompp => registers::<false, 2>,
        Code::Fucom_st0_sti => registers::<true, 0>,
        Code::Fucomp_st0_sti => registers::<true, 1>,
        Code::Fucompp => registers::<true, 2>,
        other => unreachable!("{other:?} is no comparison"),
    }
}

/// C0, C2 and C3 become CF, PF and ZF, the other status flags zero, whether an exception is masked or not.
fn to_flags<const QUIET: bool, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let raised = status(cpu, op.src, if QUIET { host::ucom } else { host::com });
    cpu.flags = Flags::from_status(u64::from(raised >> 8) & 0x45);
    let codes = if raised & fsw::SF != 0 { fsw::C1 } else { 0 };
    if cpu.end_x87(op, raised & !UNORDERED, codes, fsw::BEFORE) {
        pop(cpu, POPS);
    }
    Ok(Flow::Next)
}

/// FCOMI, FCOMIP, FUCOMI and FUCOMIP.
pub fn pick_to_flags(form: &Form) -> Handler {
    match form.instruction.mnemonic() {
        Mnemonic::Fcomi => to_flags::<false, 0>,
        Mnemonic::Fcomip => to_flags::<false, 1>,
        Mnemonic::Fucomi => to_flags::<true, 0>,
        _ => to_flags::<true, 1>,
    }
}

fn test(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let raised = status(cpu, 0, host::test);
    cpu.end_x87(op, raised, fsw::CODES, fsw::BEFORE);
    Ok(Flow::Next)
}

/// FTST.
pub fn pick_test(_: &Form) -> Handler {
    test
}

/// What a register holds, as FXAM reports it.
fn class(value: u128) -> u16 {
    let (exponent, significand) = (value >> 64 & 0x7fff, value as u64);
    let whole = significand >> 63 == 1;
    match (exponent, whole) {
        (0, _) if significand == 0 => fsw::C3,
        (0, _) => fsw::C3 | fsw::C2,
        (_, false) => 0,
        (0x7fff, _) if significand << 1 == 0 => fsw::C2 | fsw::C0,
        (0x7fff, _) => fsw::C0,
        _ => fsw::C2,
    }
}

fn examine(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let value = cpu.fpu.value(0);
    let class = match cpu.fpu.is_empty(0) {
        true => fsw::C3 | fsw::C0,
        false => class(value),
    };
    let sign = if value >> 79 & 1 == 1 { fsw::C1 } else { 0 };
    cpu.end_x87(op, class | sign, fsw::CODES, 0);
    Ok(Flow::Next)
}

/// FXAM.
pub fn pick_examine(_: &Form) -> Handler {
    examine
}

/// Both registers must be full, whether the condition holds or not.
fn move_if<const CONDITION: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let underflow = cpu.fpu.is_empty(0) || cpu.fpu.is_empty(op.src);
    let (raised, codes) = if underflow {
        (fsw::UNDERFLOW, fsw::C1)
    } else {
        (0, 0)
    };
    let holds = cpu.flags.holds::<CONDITION>();
    if cpu.end_x87(op, raised, codes, fsw::BEFORE) && (holds || underflow) {
        let value = if underflow {
            INDEFINITE
        } else {
            cpu.fpu.value(op.src)
        };
        cpu.fpu.set(0, value);
    }
    Ok(Flow::Next)
}

/// FCMOVcc.
pub fn pick_move_if(form: &Form) -> Handler {
    match form.instruction.mnemonic() {
        Mnemonic::Fcmovb => move_if::<2>,
        Mnemonic::Fcmovnb => move_if::<3>,
        Mnemonic::Fcmove => move_if::<4>,
        Mnemonic::Fcmovne => move_if::<5>,
        Mnemonic::Fcmovbe => move_if::<6>,
        Mnemonic::Fcmovnbe => move_if::<7>,
        Mnemonic::Fcmovu => move_if::<10>,
        _ => move_if::<11>,
    }
}
