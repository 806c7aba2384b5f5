//! The stack: PUSH, POP, flags on it, frames.

use crate::exception::{GP0, SS0};
use crate::flags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VM};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Dst, Imm, Mem, Target, Value, by_wide_size};
use crate::state::{Cpu, Mode, Stop, gpr, mask, seg};

impl Cpu {
    /// The linear address of an offset on the stack.
    #[inline(always)]
    fn on_stack(&self, offset: u64) -> u64 {
        match self.mode {
            Mode::Long => offset,
            Mode::Compat32 => self.based(seg::SS, mask::<4>(offset)),
        }
    }

    /// The stack pointer, cut to what the mode uses of it.
    #[inline(always)]
    pub fn sp(&self) -> u64 {
        match self.mode {
            Mode::Long => self.r[gpr::SP],
            Mode::Compat32 => mask::<4>(self.r[gpr::SP]),
        }
    }

    /// Sets what the mode uses of it.
    #[inline(always)]
    pub fn set_sp(&mut self, value: u64) {
        self.r[gpr::SP] = match self.mode {
            Mode::Long => value,
            Mode::Compat32 => mask::<4>(value),
        };
    }

    /// Whatever is wrong with an address on the stack is #SS.
    fn stack_fault<T>(&mut self, done: Done<T>) -> Done<T> {
        if done.is_err() && self.stop == Stop::NotCanonical {
            self.stop = Stop::Exception(SS0);
        }
        done
    }

    /// Writes `S` bytes at this offset on the stack.
    #[inline(always)]
    pub fn stack_store<const S: u8>(&mut self, offset: u64, value: u64) -> Done {
        let address = self.on_stack(offset);
        let done = self.store::<S>(address, value);
        match done {
            Ok(()) => Ok(()),
            Err(raised) => self.stack_fault(Err(raised)),
        }
    }

    /// Reads `S` bytes at this offset on the stack.
    #[inline(always)]
    pub fn stack_load<const S: u8>(&mut self, offset: u64) -> Done<u64> {
        let address = self.on_stack(offset);
        let done = self.load::<S>(address);
        match done {
            Ok(value) => Ok(value),
            Err(raised) => self.stack_fault(Err(raised)),
        }
    }

    /// Pushes `S` bytes.
    #[inline(always)]
    pub fn push<const S: u8>(&mut self, value: u64) -> Done {
        let sp = self.sp().wrapping_sub(u64::from(S));
        self.stack_store::<S>(sp, value)?;
        self.set_sp(sp);
        Ok(())
    }

    /// Pops `S` bytes.
    #[inline(always)]
    pub fn pop<const S: u8>(&mut self) -> Done<u64> {
        let sp = self.sp();
        let value = self.stack_load::<S>(sp)?;
        self.set_sp(sp.wrapping_add(u64::from(S)));
        Ok(value)
    }
}

fn push<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = R::read::<S>(cpu, op)?;
    cpu.push::<S>(value)?;
    Ok(Flow::Next)
}

/// A segment register's selector, in a slot of `S` bytes.
fn push_segment<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let selector = u64::from(cpu.segments[usize::from(op.dst)].selector);
    cpu.push::<S>(selector)?;
    Ok(Flow::Next)
}

/// PUSH.
pub fn pick_push(form: &Form) -> Handler {
    let register = form.instruction.op0_register();
    match (register.is_segment_register(), form.memory()) {
        (true, _) => by_wide_size!(form.slot(), S => push_segment::<S>),
        (false, true) => by_wide_size!(form.slot(), S => push::<S, Mem>),
        (false, false) if register.is_gpr() => by_wide_size!(form.slot(), S => push::<S, Dst>),
        (false, false) => by_wide_size!(form.slot(), S => push::<S, Imm>),
    }
}

fn pop<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let old = cpu.r[gpr::SP];
    let value = cpu.pop::<S>()?;
    // An address that uses RSP uses the new one.
    let written = D::write::<S>(cpu, op, value);
    if written.is_err() {
        cpu.r[gpr::SP] = old;
    }
    written?;
    Ok(Flow::Next)
}

/// POP, segment registers aside.
pub fn pick_pop(form: &Form) -> Handler {
    match (
        form.instruction.op0_register().is_segment_register(),
        form.memory(),
    ) {
        (true, _) => by_wide_size!(form.slot(), S => crate::segments::pop_segment::<S>),
        (false, true) => by_wide_size!(form.slot(), S => pop::<S, Mem>),
        (false, false) => by_wide_size!(form.slot(), S => pop::<S, Dst>),
    }
}

/// All general registers, EAX first; ESP as it was before.
fn push_all<const S: u8>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let sp = cpu.sp();
    let lowest = sp.wrapping_sub(8 * u64::from(S));
    for number in 0..8 {
        let at = sp.wrapping_sub((u64::from(number) + 1) * u64::from(S));
        let value = cpu.get::<S>(number);
        cpu.stack_store::<S>(at, value)?;
    }
    cpu.set_sp(lowest);
    Ok(Flow::Next)
}

/// PUSHA.
pub fn pick_pusha(form: &Form) -> Handler {
    match form.instruction.code() {
        iced_x86::Code::Pushaw => push_all::<2>,
        _ => push_all::<4>,
    }
}

/// All of them but ESP. Where a read faults, the registers that were read before it are written already, as on
/// Intel's processors. ESP is not, so that the instruction can begin again.
fn pop_all<const S: u8>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let sp = cpu.sp();
    for (index, number) in (0..8).rev().enumerate() {
        let value = cpu.stack_load::<S>(sp.wrapping_add(index as u64 * u64::from(S)))?;
        if usize::from(number) != gpr::SP {
            cpu.set::<S>(number, value);
        }
    }
    cpu.set_sp(sp.wrapping_add(8 * u64::from(S)));
    Ok(Flow::Next)
}

/// POPA.
pub fn pick_popa(form: &Form) -> Handler {
    match form.instruction.code() {
        iced_x86::Code::Popaw => pop_all::<2>,
        _ => pop_all::<4>,
    }
}

fn push_flags<const S: u8>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let flags = cpu.rflags() & !(RF | VM);
    cpu.push::<S>(flags)?;
    Ok(Flow::Next)
}

/// PUSHF.
pub fn pick_pushf(form: &Form) -> Handler {
    by_wide_size!(form.slot(), S => push_flags::<S>)
}

/// Which flags POPF and IRET may change, at this privilege.
pub fn writable_flags(cpu: &Cpu) -> u64 {
    let iopl = ((cpu.system_flags & IOPL) >> 12) as u8;
    let always = STATUS | TF | DF | NT | AC | ID;
    let interrupt = if cpu.cpl <= iopl { IF } else { 0 };
    let privilege = if cpu.cpl == 0 { IOPL } else { 0 };
    always | interrupt | privilege
}

fn pop_flags<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = cpu.pop::<S>()?;
    let upper = if S == 2 { 0xffff } else { u64::MAX };
    let writable = writable_flags(cpu) & upper;
    cpu.change_rflags(value, writable);
    cpu.system_flags &= !RF;
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// POPF.
pub fn pick_popf(form: &Form) -> Handler {
    by_wide_size!(form.slot(), S => pop_flags::<S>)
}

fn leave<const S: u8>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let frame = match cpu.mode {
        Mode::Long => cpu.r[gpr::BP],
        Mode::Compat32 => mask::<4>(cpu.r[gpr::BP]),
    };
    let value = cpu.stack_load::<S>(frame)?;
    cpu.set_sp(frame.wrapping_add(u64::from(S)));
    cpu.set::<S>(gpr::BP as u8, value);
    Ok(Flow::Next)
}

/// LEAVE.
pub fn pick_leave(form: &Form) -> Handler {
    use iced_x86::Code;
    match form.instruction.code() {
        Code::Leavew => leave::<2>,
        Code::Leaved => leave::<4>,
        _ => leave::<8>,
    }
}

/// The first immediate is the size of the locals, the second, in the displacement, the level of nesting.
fn enter<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let slot = u64::from(S);
    let level = op.disp & 31;
    let mut sp = cpu.sp().wrapping_sub(slot);
    let mut frame = cpu.r[gpr::BP];
    cpu.stack_store::<S>(sp, mask::<S>(frame))?;
    let top = sp;
    for _ in 1..level {
        frame = frame.wrapping_sub(slot);
        let value = cpu.stack_load::<S>(frame)?;
        sp = sp.wrapping_sub(slot);
        cpu.stack_store::<S>(sp, value)?;
    }
    if level > 0 {
        sp = sp.wrapping_sub(slot);
        cpu.stack_store::<S>(sp, mask::<S>(top))?;
    }
    let end = sp.wrapping_sub(op.imm & 0xffff);
    // The new top must be writable, although nothing is written there.
    let probe = cpu.on_stack(match cpu.mode {
        Mode::Long => end,
        Mode::Compat32 => mask::<4>(end),
    });
    let probed = cpu.span(probe, usize::from(S), crate::paging::Access::Write);
    cpu.stack_fault(probed)?;
    cpu.set::<S>(gpr::BP as u8, top);
    cpu.set_sp(end);
    Ok(Flow::Next)
}

/// ENTER.
pub fn pick_enter(form: &Form) -> Handler {
    use iced_x86::Code;
    match form.instruction.code() {
        Code::Enterw_imm16_imm8 => enter::<2>,
        Code::Enterd_imm16_imm8 => enter::<4>,
        _ => enter::<8>,
    }
}

/// Refuses a user what only the supervisor may do.
pub fn supervisor(cpu: &mut Cpu) -> Done {
    match cpu.cpl {
        0 => Ok(()),
        _ => cpu.except(GP0),
    }
}
