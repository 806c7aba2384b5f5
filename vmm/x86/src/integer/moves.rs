//! Moving, extending and converting.

use crate::flags::{AF, CF, DF, Flags, PF, SF, STATUS, ZF};
use crate::form::Form;
use crate::op::{Done, Flow, HIGH, Handler, Op};
use crate::operand::{Mem, Src, Target, Value, by_shape, by_size, by_target, by_wide_size};
use crate::state::{Cpu, extend, gpr, mask};

fn copy<const S: u8, D: Target, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = R::read::<S>(cpu, op)?;
    D::write::<S>(cpu, op, value)?;
    Ok(Flow::Next)
}

/// MOV between general registers, memory and immediates; MOVNTI.
pub fn mov(form: &Form) -> Handler {
    by_size!(form.size(), S => by_shape!(form.shape(), D, R => copy::<S, D, R>))
}

/// From `F` bytes to `T`.
fn zero_extend<const F: u8, const T: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = R::read::<F>(cpu, op)?;
    cpu.set::<T>(op.dst, value);
    Ok(Flow::Next)
}

fn sign_extend<const F: u8, const T: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = R::read::<F>(cpu, op)?;
    cpu.set::<T>(op.dst, extend::<F>(value));
    Ok(Flow::Next)
}

/// MOVZX.
pub fn movzx(form: &Form) -> Handler {
    match (form.source_size(), form.memory()) {
        (1, false) => by_wide_size!(form.size(), T => zero_extend::<1, T, Src>),
        (1, true) => by_wide_size!(form.size(), T => zero_extend::<1, T, Mem>),
        (_, false) => by_wide_size!(form.size(), T => zero_extend::<2, T, Src>),
        (_, true) => by_wide_size!(form.size(), T => zero_extend::<2, T, Mem>),
    }
}

/// MOVSX and MOVSXD.
pub fn movsx(form: &Form) -> Handler {
    match (form.source_size(), form.memory()) {
        (1, false) => by_wide_size!(form.size(), T => sign_extend::<1, T, Src>),
        (1, true) => by_wide_size!(form.size(), T => sign_extend::<1, T, Mem>),
        (2, false) => by_wide_size!(form.size(), T => sign_extend::<2, T, Src>),
        (2, true) => by_wide_size!(form.size(), T => sign_extend::<2, T, Mem>),
        (_, false) => by_wide_size!(form.size(), T => sign_extend::<4, T, Src>),
        (_, true) => by_wide_size!(form.size(), T => sign_extend::<4, T, Mem>),
    }
}

fn load_address<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let offset = cpu.offset(op);
    cpu.set::<S>(op.dst, mask::<S>(offset));
    Ok(Flow::Next)
}

/// LEA.
pub fn lea(form: &Form) -> Handler {
    by_wide_size!(form.size(), S => load_address::<S>)
}

/// The expression with the form's condition as a constant.
macro_rules! by_condition {
    ($condition:expr, $C:ident => $body:expr) => {
        by_condition!(@ $condition, $C => $body; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $condition:expr, $C:ident => $body:expr; $($number:literal)*) => {
        match $condition {
            $($number => {
                const $C: u8 = $number;
                $body
            })*
            other => unreachable!("condition {other}"),
        }
    };
}
pub(crate) use by_condition;

fn set_byte<const C: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let holds = u64::from(cpu.flags.holds::<C>());
    D::write::<1>(cpu, op, holds)?;
    Ok(Flow::Next)
}

/// SETcc.
pub fn setcc(form: &Form) -> Handler {
    by_condition!(form.condition(), C => by_target!(form.memory(), D => set_byte::<C, D>))
}

/// The source is read, and half a register cleared, whether the condition holds or not.
fn move_if<const C: u8, const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = R::read::<S>(cpu, op)?;
    let old = cpu.get::<S>(op.dst);
    let new = if cpu.flags.holds::<C>() { value } else { old };
    cpu.set::<S>(op.dst, new);
    Ok(Flow::Next)
}

/// CMOVcc.
pub fn cmovcc(form: &Form) -> Handler {
    match form.memory() {
        false => {
            by_condition!(form.condition(), C => by_wide_size!(form.size(), S => move_if::<C, S, Src>))
        }
        true => {
            by_condition!(form.condition(), C => by_wide_size!(form.size(), S => move_if::<C, S, Mem>))
        }
    }
}

/// CBW, CWDE and CDQE, to `T` bytes.
fn extend_ax<const F: u8, const T: u8>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let value = extend::<F>(cpu.get::<F>(gpr::AX as u8));
    cpu.set::<T>(gpr::AX as u8, value);
    Ok(Flow::Next)
}

/// CBW.
pub fn cbw(_: &Form) -> Handler {
    extend_ax::<1, 2>
}

/// CWDE.
pub fn cwde(_: &Form) -> Handler {
    extend_ax::<2, 4>
}

/// CDQE.
pub fn cdqe(_: &Form) -> Handler {
    extend_ax::<4, 8>
}

/// CWD, CDQ and CQO.
fn sign_of_ax<const S: u8>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let value = extend::<S>(cpu.get::<S>(gpr::AX as u8)) as i64;
    cpu.set::<S>(gpr::DX as u8, (value >> 63) as u64);
    Ok(Flow::Next)
}

/// CWD.
pub fn cwd(_: &Form) -> Handler {
    sign_of_ax::<2>
}

/// CDQ.
pub fn cdq(_: &Form) -> Handler {
    sign_of_ax::<4>
}

/// CQO.
pub fn cqo(_: &Form) -> Handler {
    sign_of_ax::<8>
}

/// The index is AL, and the address is cut like any other.
fn translate(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let al = Op {
        disp: op.disp.wrapping_add(cpu.get::<1>(gpr::AX as u8)),
        index: crate::op::ZERO,
        ..*op
    };
    let value = Mem::read::<1>(cpu, &al)?;
    cpu.set::<1>(gpr::AX as u8, value);
    Ok(Flow::Next)
}

/// XLATB.
pub fn xlatb(_: &Form) -> Handler {
    translate
}

/// The flags that LAHF and SAHF move.
const IN_AH: u64 = STATUS & 0xff;

fn load_ah(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let flags = cpu.flags.status() & IN_AH | 2;
    cpu.set::<1>(gpr::AX as u8 | HIGH, flags);
    Ok(Flow::Next)
}

/// LAHF.
pub fn lahf(_: &Form) -> Handler {
    load_ah
}

fn store_ah(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    debug_assert_eq!(IN_AH, CF | PF | AF | ZF | SF);
    let ah = cpu.get::<1>(gpr::AX as u8 | HIGH);
    cpu.flags = Flags::from_status(cpu.flags.status() & !IN_AH | ah & IN_AH);
    Ok(Flow::Next)
}

/// SAHF.
pub fn sahf(_: &Form) -> Handler {
    store_ah
}

fn set_direction<const SET: bool>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.system_flags = cpu.system_flags & !DF | if SET { DF } else { 0 };
    Ok(Flow::Next)
}

/// CLD.
pub fn cld(_: &Form) -> Handler {
    set_direction::<false>
}

/// STD.
pub fn std(_: &Form) -> Handler {
    set_direction::<true>
}

fn nothing(_: &mut Cpu, _: &Op) -> Done<Flow> {
    Ok(Flow::Next)
}

/// NOP, PAUSE, ENDBR, fences and what else does nothing here.
pub fn nop(_: &Form) -> Handler {
    nothing
}

/// The line must be readable; nothing else comes of it.
fn touch(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    Mem::read::<1>(cpu, op)?;
    Ok(Flow::Next)
}

/// CLFLUSH.
pub fn clflush(_: &Form) -> Handler {
    touch
}
