//! Near branches, calls and returns, and the instructions that raise an exception on purpose.

use crate::exception::{Exception, GP0, UD, vector};
use crate::form::Form;
use crate::integer::moves::by_condition;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Value, by_target};
use crate::paging::canonical;
use crate::state::{Cpu, Mode, gpr};

fn jump(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.rip = op.imm;
    Ok(Flow::Branch)
}

/// The target, if code may lie there.
fn checked(cpu: &mut Cpu, target: u64) -> Done<u64> {
    match canonical(target) {
        true => Ok(target),
        false => cpu.except(GP0),
    }
}

fn jump_to<const S: u8, D: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let target = D::read::<S>(cpu, op)?;
    cpu.rip = checked(cpu, target)?;
    Ok(Flow::Branch)
}

/// Has it an operand size of 16 bits? In 64-bit mode none has; in compatibility mode they are not there.
fn narrow(form: &Form) -> bool {
    use iced_x86::Code;
    matches!(
        form.instruction.code(),
        Code::Retnw
            | Code::Retnw_imm16
            | Code::Call_rm16
            | Code::Call_rel16
            | Code::Jmp_rm16
            | Code::Jmp_rel16
            | Code::Jmp_rel8_16
    )
}

/// JMP, near.
pub fn jmp(form: &Form) -> Handler {
    if narrow(form) {
        return ud(form);
    }
    match (form.instruction.is_jmp_near_indirect(), form.mode) {
        (false, _) => jump,
        (true, Mode::Long) => by_target!(form.memory(), D => jump_to::<8, D>),
        (true, Mode::Compat32) => by_target!(form.memory(), D => jump_to::<4, D>),
    }
}

fn jump_if<const C: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.rip = if cpu.flags.holds::<C>() {
        op.imm
    } else {
        op.next
    };
    Ok(Flow::Branch)
}

/// Jcc.
pub fn jcc(form: &Form) -> Handler {
    by_condition!(form.condition(), C => jump_if::<C>)
}

fn call<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.push::<S>(op.next)?;
    cpu.rip = op.imm;
    Ok(Flow::Branch)
}

fn call_to<const S: u8, D: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let target = D::read::<S>(cpu, op)?;
    let target = checked(cpu, target)?;
    cpu.push::<S>(op.next)?;
    cpu.rip = target;
    Ok(Flow::Branch)
}

/// CALL, near.
pub fn pick_call(form: &Form) -> Handler {
    if narrow(form) {
        return ud(form);
    }
    match (form.instruction.is_call_near_indirect(), form.mode) {
        (false, Mode::Long) => call::<8>,
        (false, Mode::Compat32) => call::<4>,
        (true, Mode::Long) => by_target!(form.memory(), D => call_to::<8, D>),
        (true, Mode::Compat32) => by_target!(form.memory(), D => call_to::<4, D>),
    }
}

/// The immediate is what is taken from the stack beyond the return address.
fn ret<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let sp = cpu.sp();
    let target = cpu.stack_load::<S>(sp)?;
    cpu.rip = checked(cpu, target)?;
    let taken = u64::from(S).wrapping_add(op.imm & 0xffff);
    cpu.set_sp(sp.wrapping_add(taken));
    Ok(Flow::Branch)
}

/// RET, near.
pub fn pick_ret(form: &Form) -> Handler {
    if narrow(form) {
        return ud(form);
    }
    match form.mode {
        Mode::Long => ret::<8>,
        Mode::Compat32 => ret::<4>,
    }
}

/// What LOOP asks besides the count.
const ALWAYS: u8 = 0;
const WHILE_ZERO: u8 = 1;
const WHILE_NOT_ZERO: u8 = 2;

fn count_down<const K: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let count = cpu.pointer(op, gpr::CX).wrapping_sub(1);
    cpu.set_pointer(op, gpr::CX, count);
    let goes_on = match K {
        WHILE_ZERO => cpu.flags.zero(),
        WHILE_NOT_ZERO => !cpu.flags.zero(),
        _ => true,
    };
    let again = cpu.pointer(op, gpr::CX) != 0 && goes_on;
    cpu.rip = if again { op.imm } else { op.next };
    Ok(Flow::Branch)
}

/// LOOP.
pub fn pick_loop(_: &Form) -> Handler {
    count_down::<ALWAYS>
}

/// LOOPE.
pub fn pick_loope(_: &Form) -> Handler {
    count_down::<WHILE_ZERO>
}

/// LOOPNE.
pub fn pick_loopne(_: &Form) -> Handler {
    count_down::<WHILE_NOT_ZERO>
}

fn jump_if_counted(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.rip = if cpu.pointer(op, gpr::CX) == 0 {
        op.imm
    } else {
        op.next
    };
    Ok(Flow::Branch)
}

/// JRCXZ and JECXZ.
pub fn jcxz(_: &Form) -> Handler {
    jump_if_counted
}

/// The immediate is the vector.
fn interrupt(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.except(Exception::software(op.imm as u8))
}

/// INT n.
pub fn int(_: &Form) -> Handler {
    interrupt
}

fn breakpoint(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.except(Exception::software(vector::BP))
}

/// INT3.
pub fn int3(_: &Form) -> Handler {
    breakpoint
}

/// INT1 raises what a debug exception is, without a privilege check and without a reason in DR6.
fn debug(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.except(Exception::debug_trap(0))
}

/// INT1.
pub fn int1(_: &Form) -> Handler {
    debug
}

fn undefined(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.except(UD)
}

/// UD0, UD1, UD2, and all that this processor does not have.
pub fn ud(_: &Form) -> Handler {
    undefined
}
