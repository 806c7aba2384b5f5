//! Transfers to another code segment: far jumps, calls and returns, IRET, SYSCALL and SYSRET.
//!
//! Call gates and task gates are not there: a far transfer to one is #GP.

use crate::branch;
use crate::exception::{GP0, UD, vector};
use crate::flags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VM};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::by_wide_size;
use crate::paging::canonical;
use crate::segments::{Descriptor, null_segment};
use crate::stack::supervisor;
use crate::state::{Cpu, Mode, gpr, mask, seg};
use crate::system::msr_slot;
use iced_x86::Code;
use lockstep_vcpu::state::{Attributes, Segment};

impl Cpu {
    /// The code segment that a selector names, for a jump or a call at the same privilege.
    fn code_segment(&mut self, selector: u16) -> Done<Descriptor> {
        if selector & !3 == 0 {
            return self.except(GP0);
        }
        let descriptor = self.needed_descriptor(selector, vector::GP)?;
        let (dpl, rpl) = (descriptor.dpl(), descriptor.rpl());
        let reachable = match descriptor.conforms() {
            true => dpl <= self.cpl,
            false => dpl == self.cpl && rpl <= self.cpl,
        };
        self.sound_code(descriptor, reachable)
    }

    /// The code segment that a selector on the stack names, for a return to it.
    fn return_segment(&mut self, selector: u16) -> Done<Descriptor> {
        if selector & !3 == 0 {
            return self.except(GP0);
        }
        let descriptor = self.needed_descriptor(selector, vector::GP)?;
        let (dpl, rpl) = (descriptor.dpl(), descriptor.rpl());
        let reachable = rpl >= self.cpl
            && match descriptor.conforms() {
                true => dpl <= rpl,
                false => dpl == rpl,
            };
        self.sound_code(descriptor, reachable)
    }

    fn sound_code(&mut self, mut descriptor: Descriptor, reachable: bool) -> Done<Descriptor> {
        let both = descriptor.is_long() && descriptor.is_32_bit();
        if !descriptor.is_code() || both || !reachable {
            return self.except(descriptor.fault(vector::GP));
        }
        if !descriptor.present() {
            return self.except(descriptor.fault(vector::NP));
        }
        self.mark_descriptor(&mut descriptor, 1)?;
        Ok(descriptor)
    }

    /// Checks where control goes in such a segment.
    fn far_target(&mut self, descriptor: &Descriptor, rip: u64) -> Done<u64> {
        match descriptor.is_long() {
            true if !canonical(rip) => self.except(GP0),
            true => Ok(rip),
            false => Ok(mask::<4>(rip)),
        }
    }

    /// Control goes there, at this privilege.
    fn enter_code(&mut self, descriptor: &Descriptor, rip: u64, cpl: u8) -> Done {
        let mut segment = descriptor.segment();
        segment.selector = segment.selector & !3 | u16::from(cpl);
        let old = std::mem::replace(&mut self.segments[usize::from(seg::CS)], segment);
        if let Err(raised) = self.set_mode() {
            self.segments[usize::from(seg::CS)] = old;
            return Err(raised);
        }
        self.rip = rip;
        self.set_cpl(cpl);
        Ok(())
    }

    /// After a return to a lower privilege: what it may not see is taken from the segment registers. Their
    /// bases stay, as 64-bit code uses those of FS and GS with any selector.
    fn hide_segments(&mut self) {
        for register in [seg::ES, seg::DS, seg::FS, seg::GS] {
            let segment = &mut self.segments[usize::from(register)];
            let a = segment.attributes;
            let conforms = a.s == 1 && a.type_ & 12 == 12;
            if a.present != 0 && a.dpl < self.cpl && !conforms {
                *segment = Segment {
                    base: segment.base,
                    ..null_segment(0)
                };
            }
        }
    }
}

/// A far pointer in memory: an offset of `S` bytes, then the selector.
fn pointer<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<(u64, u16)> {
    let address = cpu.address(op);
    let mut bytes = [0; 10];
    let len = usize::from(S) + 2;
    cpu.load_bytes(address, &mut bytes[..len])?;
    let selector = u16::from_le_bytes([bytes[len - 2], bytes[len - 1]]);
    bytes[len - 2..].fill(0);
    let offset = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    Ok((offset, selector))
}

fn jump_to(cpu: &mut Cpu, (offset, selector): (u64, u16)) -> Done<Flow> {
    let descriptor = cpu.code_segment(selector)?;
    let rip = cpu.far_target(&descriptor, offset)?;
    let cpl = cpu.cpl;
    cpu.enter_code(&descriptor, rip, cpl)?;
    Ok(Flow::Leave)
}

fn jump_by_memory<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let target = pointer::<S>(cpu, op)?;
    jump_to(cpu, target)
}

fn jump_by_immediate(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    jump_to(cpu, (op.imm, op.disp as u16))
}

/// JMP, near and far.
pub fn jmp(form: &Form) -> Handler {
    match form.instruction.code() {
        Code::Jmp_m1616 => jump_by_memory::<2>,
        Code::Jmp_m1632 => jump_by_memory::<4>,
        Code::Jmp_m1664 => jump_by_memory::<8>,
        Code::Jmp_ptr1616 | Code::Jmp_ptr1632 => jump_by_immediate,
        _ => branch::jmp(form),
    }
}

fn call_to<const S: u8>(cpu: &mut Cpu, op: &Op, target: (u64, u16)) -> Done<Flow> {
    let descriptor = cpu.code_segment(target.1)?;
    let rip = cpu.far_target(&descriptor, target.0)?;
    let slot = u64::from(S);
    let sp = cpu.sp();
    let selector = u64::from(cpu.segments[usize::from(seg::CS)].selector);
    cpu.stack_store::<S>(sp.wrapping_sub(slot), selector)?;
    cpu.stack_store::<S>(sp.wrapping_sub(2 * slot), mask::<S>(op.next))?;
    let cpl = cpu.cpl;
    cpu.enter_code(&descriptor, rip, cpl)?;
    cpu.set_sp(sp.wrapping_sub(2 * slot));
    Ok(Flow::Leave)
}

fn call_by_memory<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let target = pointer::<S>(cpu, op)?;
    call_to::<S>(cpu, op, target)
}

fn call_by_immediate<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    call_to::<S>(cpu, op, (op.imm, op.disp as u16))
}

/// CALL, near and far.
pub fn call(form: &Form) -> Handler {
    match form.instruction.code() {
        Code::Call_m1616 => call_by_memory::<2>,
        Code::Call_m1632 => call_by_memory::<4>,
        Code::Call_m1664 => call_by_memory::<8>,
        Code::Call_ptr1616 => call_by_immediate::<2>,
        Code::Call_ptr1632 => call_by_immediate::<4>,
        _ => branch::pick_call(form),
    }
}

/// Reads slot `index` above the stack pointer.
fn slot<const S: u8>(cpu: &mut Cpu, index: u64) -> Done<u64> {
    let at = cpu.sp().wrapping_add(index * u64::from(S));
    cpu.stack_load::<S>(at)
}

/// The stack after a return to this privilege in this code segment.
fn returned_stack(cpu: &mut Cpu, code: &Descriptor, selector: u16) -> Done<Segment> {
    let cpl = code.rpl();
    match selector & !3 {
        0 if code.is_long() && cpl != 3 && selector & 3 == u16::from(cpl) => {
            let mut null = null_segment(selector);
            null.attributes.dpl = cpl;
            Ok(null)
        }
        0 => cpu.except(GP0),
        _ => cpu.stack_segment(selector, cpl),
    }
}

/// The immediate is what is taken from the stack beyond the return address.
fn far_return<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let (rip, selector) = (slot::<S>(cpu, 0)?, slot::<S>(cpu, 1)? as u16);
    let descriptor = cpu.return_segment(selector)?;
    let rip = cpu.far_target(&descriptor, rip)?;
    let extra = op.imm & 0xffff;
    let after = cpu.sp().wrapping_add(2 * u64::from(S)).wrapping_add(extra);
    if descriptor.rpl() == cpu.cpl {
        let cpl = cpu.cpl;
        cpu.enter_code(&descriptor, rip, cpl)?;
        cpu.set_sp(after);
        return Ok(Flow::Leave);
    }
    let sp = cpu.stack_load::<S>(after)?;
    let selector = cpu.stack_load::<S>(after.wrapping_add(u64::from(S)))? as u16;
    let stack = returned_stack(cpu, &descriptor, selector)?;
    cpu.enter_code(&descriptor, rip, descriptor.rpl())?;
    cpu.segments[usize::from(seg::SS)] = stack;
    cpu.set_sp(sp.wrapping_add(extra));
    cpu.hide_segments();
    Ok(Flow::Leave)
}

/// RETF.
pub fn retf(form: &Form) -> Handler {
    match form.instruction.code() {
        Code::Retfw | Code::Retfw_imm16 => far_return::<2>,
        Code::Retfd | Code::Retfd_imm16 => far_return::<4>,
        _ => far_return::<8>,
    }
}

fn interrupt_return<const S: u8>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    if cpu.system_flags & NT != 0 {
        return cpu.except(GP0);
    }
    let (rip, selector) = (slot::<S>(cpu, 0)?, slot::<S>(cpu, 1)? as u16);
    let flags = slot::<S>(cpu, 2)?;
    let descriptor = cpu.return_segment(selector)?;
    let rip = cpu.far_target(&descriptor, rip)?;
    let outer = descriptor.rpl() > cpu.cpl;
    let stack = match cpu.mode == Mode::Long || outer {
        true => {
            let (sp, selector) = (slot::<S>(cpu, 3)?, slot::<S>(cpu, 4)? as u16);
            Some((sp, returned_stack(cpu, &descriptor, selector)?))
        }
        false => None,
    };
    let writable = returned_flags(cpu) & if S == 2 { 0xffff } else { u64::MAX };
    let after = cpu.sp().wrapping_add(3 * u64::from(S));
    cpu.enter_code(&descriptor, rip, descriptor.rpl())?;
    match stack {
        Some((sp, segment)) => {
            cpu.segments[usize::from(seg::SS)] = segment;
            cpu.set_sp(sp);
        }
        None => cpu.set_sp(after),
    }
    cpu.change_rflags(flags, writable);
    if outer {
        cpu.hide_segments();
    }
    Ok(Flow::Leave)
}

/// Which flags IRET may change, by the privilege that it comes from.
fn returned_flags(cpu: &Cpu) -> u64 {
    let iopl = ((cpu.system_flags & IOPL) >> 12) as u8;
    let interrupt = if cpu.cpl <= iopl { IF } else { 0 };
    let privilege = if cpu.cpl == 0 { IOPL } else { 0 };
    STATUS | TF | DF | NT | RF | AC | ID | interrupt | privilege
}

/// IRET.
pub fn iret(form: &Form) -> Handler {
    let size = match form.instruction.code() {
        Code::Iretw => 2,
        Code::Iretd => 4,
        _ => 8,
    };
    by_wide_size!(size, S => interrupt_return::<S>)
}

const EFER_SCE: u64 = 1;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const FMASK: u32 = 0xc000_0084;

fn msr(cpu: &Cpu, index: u32) -> u64 {
    cpu.msrs[msr_slot(index).expect("it is in the list")]
}

/// A flat segment, as SYSCALL and SYSRET make them without a look at the table.
fn flat(selector: u16, type_: u8, dpl: u8, long: bool) -> Segment {
    Segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        attributes: Attributes {
            type_,
            present: 1,
            dpl,
            db: u8::from(!long),
            s: 1,
            l: u8::from(long),
            g: 1,
            ..Attributes::default()
        },
    }
}

fn system_call(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    // In compatibility mode only some processors have it.
    if cpu.control.efer & EFER_SCE == 0 || cpu.mode != Mode::Long {
        return cpu.except(UD);
    }
    let selector = (msr(cpu, STAR) >> 32) as u16;
    let flags = cpu.rflags() & !RF;
    cpu.r[gpr::CX] = op.next;
    cpu.r[11] = flags;
    cpu.rip = msr(cpu, LSTAR);
    cpu.set_rflags(flags & !msr(cpu, FMASK));
    cpu.segments[usize::from(seg::CS)] = flat(selector & !3, 11, 0, true);
    cpu.segments[usize::from(seg::SS)] = flat((selector & !3).wrapping_add(8), 3, 0, false);
    cpu.set_cpl(0);
    Ok(Flow::Leave)
}

/// SYSCALL.
pub fn syscall(_: &Form) -> Handler {
    system_call
}

/// To 64-bit mode or to compatibility mode.
fn system_return<const LONG: bool>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    if cpu.control.efer & EFER_SCE == 0 || cpu.mode != Mode::Long {
        return cpu.except(UD);
    }
    supervisor(cpu)?;
    let target = cpu.r[gpr::CX];
    if LONG && !canonical(target) {
        return cpu.except(GP0);
    }
    let selector = (msr(cpu, STAR) >> 48) as u16;
    let code = if LONG {
        selector.wrapping_add(16)
    } else {
        selector
    };
    cpu.segments[usize::from(seg::CS)] = flat(code | 3, 11, 3, LONG);
    cpu.segments[usize::from(seg::SS)] = flat(selector.wrapping_add(8) | 3, 3, 3, false);
    cpu.rip = if LONG { target } else { mask::<4>(target) };
    cpu.set_rflags(cpu.r[11] & !(RF | VM));
    cpu.set_cpl(3);
    cpu.set_mode()?;
    Ok(Flow::Leave)
}

/// SYSRET.
pub fn sysret(form: &Form) -> Handler {
    match form.instruction.code() {
        Code::Sysretq => system_return::<true>,
        _ => system_return::<false>,
    }
}
