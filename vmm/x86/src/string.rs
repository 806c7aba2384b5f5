//! String instructions.
//!
//! With a REP prefix each iteration is a step of its own. The budget may end between two iterations. A fault
//! leaves the registers as the iterations before it left them. In both cases RIP stays at the instruction,
//! and the flags are those from before it (SDM vol. 2B, REP).

use crate::flags::{DF, Flags};
use crate::form::Form;
use crate::integer::alu::{Binary, Cmp};
use crate::io_ports;
use crate::op::{Done, Flow, Handler, Op, aux, special};
use crate::operand::by_size;
use crate::state::{Cpu, gpr, seg};

/// One iteration.
pub trait StringOp {
    /// Does REPE or REPNE look at ZF?
    const COMPARES: bool = false;
    /// Refuses the instruction to a guest that may not do it, even where it repeats zero times.
    fn allowed<const S: u8>(_: &mut Cpu) -> Done {
        Ok(())
    }
    /// Does one iteration. If it fails, no register has changed.
    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done;
}

/// MOVS.
#[derive(Debug)]
pub struct Movs;
/// STOS.
#[derive(Debug)]
pub struct Stos;
/// LODS.
#[derive(Debug)]
pub struct Lods;
/// SCAS.
#[derive(Debug)]
pub struct Scas;
/// CMPS.
#[derive(Debug)]
pub struct Cmps;
/// INS.
#[derive(Debug)]
pub struct Ins;
/// OUTS.
#[derive(Debug)]
pub struct Outs;

/// The linear address of what RSI points at, in the segment that the instruction names.
#[inline(always)]
fn source(cpu: &Cpu, op: &Op) -> u64 {
    let offset = cpu.pointer(op, gpr::SI);
    match op.special & special::BASED {
        0 => offset,
        _ => cpu.based(op.special & special::SEGMENT, offset),
    }
}

/// The linear address of what RDI points at, in ES.
#[inline(always)]
fn target(cpu: &Cpu, op: &Op) -> u64 {
    let offset = cpu.pointer(op, gpr::DI);
    match op.special {
        0 => offset,
        _ => cpu.based(seg::ES, offset),
    }
}

/// Moves a pointer by one element, the way DF says.
#[inline(always)]
fn advance<const S: u8>(cpu: &mut Cpu, op: &Op, pointer: usize) {
    let step = match cpu.system_flags & DF {
        0 => u64::from(S),
        _ => u64::from(S).wrapping_neg(),
    };
    let moved = cpu.pointer(op, pointer).wrapping_add(step);
    cpu.set_pointer(op, pointer, moved);
}

impl StringOp for Movs {
    #[inline(always)]
    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done {
        let value = cpu.load::<S>(source(cpu, op))?;
        cpu.store::<S>(target(cpu, op), value)?;
        advance::<S>(cpu, op, gpr::SI);
        advance::<S>(cpu, op, gpr::DI);
        Ok(())
    }
}

impl StringOp for Stos {
    #[inline(always)]
    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done {
        let value = cpu.get::<S>(gpr::AX as u8);
        cpu.store::<S>(target(cpu, op), value)?;
        advance::<S>(cpu, op, gpr::DI);
        Ok(())
    }
}

impl StringOp for Lods {
    #[inline(always)]
    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done {
        let value = cpu.load::<S>(source(cpu, op))?;
        cpu.set::<S>(gpr::AX as u8, value);
        advance::<S>(cpu, op, gpr::SI);
        Ok(())
    }
}

#[inline(always)]
fn compared<const S: u8>(flags: Flags, a: u64, b: u64) -> Flags {
    Cmp::apply::<S>(flags, a, b).1
}

impl StringOp for Scas {
    const COMPARES: bool = true;

    #[inline(always)]
    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done {
        let there = cpu.load::<S>(target(cpu, op))?;
        cpu.flags = compared::<S>(cpu.flags, cpu.get::<S>(gpr::AX as u8), there);
        advance::<S>(cpu, op, gpr::DI);
        Ok(())
    }
}

impl StringOp for Cmps {
    const COMPARES: bool = true;

    #[inline(always)]
    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done {
        // Where both fault, it is the second operand's fault.
        let b = cpu.load::<S>(target(cpu, op))?;
        let a = cpu.load::<S>(source(cpu, op))?;
        cpu.flags = compared::<S>(cpu.flags, a, b);
        advance::<S>(cpu, op, gpr::SI);
        advance::<S>(cpu, op, gpr::DI);
        Ok(())
    }
}

impl StringOp for Ins {
    fn allowed<const S: u8>(cpu: &mut Cpu) -> Done {
        io_ports::allowed(cpu, cpu.r[gpr::DX] as u16, S)
    }

    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done {
        let port = cpu.r[gpr::DX] as u16;
        // Where it goes must be writable before the device is asked.
        let address = target(cpu, op);
        let place = cpu.open::<S>(address)?;
        let value = io_ports::input(cpu, port, S)?;
        cpu.poke::<S>(place, value);
        advance::<S>(cpu, op, gpr::DI);
        Ok(())
    }
}

impl StringOp for Outs {
    fn allowed<const S: u8>(cpu: &mut Cpu) -> Done {
        io_ports::allowed(cpu, cpu.r[gpr::DX] as u16, S)
    }

    fn once<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done {
        let port = cpu.r[gpr::DX] as u16;
        let value = cpu.load::<S>(source(cpu, op))?;
        io_ports::output(cpu, port, value, S)?;
        advance::<S>(cpu, op, gpr::SI);
        Ok(())
    }
}

fn once<K: StringOp, const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    K::allowed::<S>(cpu)?;
    K::once::<S>(cpu, op)?;
    Ok(Flow::Next)
}

/// The first iteration's step was paid with the block's.
fn repeat<K: StringOp, const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    K::allowed::<S>(cpu)?;
    let mut count = cpu.pointer(op, gpr::CX);
    if count == 0 {
        // With a 32-bit counter the register is written all the same.
        cpu.set_pointer(op, gpr::CX, 0);
        return Ok(Flow::Next);
    }
    let while_equal = op.aux & aux::REP != 0;
    let before = cpu.flags;
    loop {
        if let Err(raised) = K::once::<S>(cpu, op) {
            cpu.flags = before;
            return Err(raised);
        }
        count -= 1;
        cpu.set_pointer(op, gpr::CX, count);
        if count == 0 || K::COMPARES && cpu.flags.zero() != while_equal {
            return Ok(Flow::Next);
        }
        if cpu.budget == 0 || cpu.io.alone {
            // Whether it goes on from here, or faults, does not depend on where the budget ended.
            cpu.flags = before;
            cpu.rip = op.rip();
            return Ok(Flow::Branch);
        }
        cpu.budget -= 1;
    }
}

/// The handler of a string instruction on elements of this size.
pub fn pick<K: StringOp>(form: &Form) -> Handler {
    let instruction = form.instruction;
    let size = instruction.memory_size().size();
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    match repeats {
        false => by_size!(size, S => once::<K, S>),
        true => by_size!(size, S => repeat::<K, S>),
    }
}
