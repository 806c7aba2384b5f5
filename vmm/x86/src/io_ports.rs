//! IN and OUT.

use crate::exception::GP0;
use crate::flags::IOPL;
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::by_size;
use crate::state::{Cpu, gpr, seg};
use lockstep_vcpu::Exit;

/// Where the TSS says where its map of ports lies.
const MAP_BASE: u64 = 0x66;

/// Refuses ports that the current privilege may not reach.
pub fn allowed(cpu: &mut Cpu, port: u16, size: u8) -> Done {
    if u64::from(cpu.cpl) <= (cpu.system_flags & IOPL) >> 12 {
        return Ok(());
    }
    let task = cpu.segments[usize::from(seg::TR)];
    if task.attributes.present == 0 || u64::from(task.limit) < MAP_BASE + 1 {
        return cpu.except(GP0);
    }
    let mut map = [0; 2];
    cpu.system_read(task.base.wrapping_add(MAP_BASE), &mut map)?;
    // Two bytes are read, as a port of several bytes may need them.
    let at = u64::from(u16::from_le_bytes(map)) + u64::from(port / 8);
    if at + 1 > u64::from(task.limit) {
        return cpu.except(GP0);
    }
    cpu.system_read(task.base.wrapping_add(at), &mut map)?;
    let denied = u16::from_le_bytes(map) >> (port % 8) & ((1 << size) - 1);
    match denied {
        0 => Ok(()),
        _ => cpu.except(GP0),
    }
}

/// Reads from a port.
pub fn input(cpu: &mut Cpu, port: u16, size: u8) -> Done<u64> {
    let len = usize::from(size);
    let answer = cpu.ask(Exit::PioIn { port, len })?;
    Ok(u64::from_le_bytes(answer))
}

/// Writes to a port.
pub fn output(cpu: &mut Cpu, port: u16, value: u64, size: u8) -> Done {
    cpu.alone()?;
    let mut data = [0; 4];
    let len = usize::from(size);
    data[..len].copy_from_slice(&value.to_le_bytes()[..len]);
    cpu.tell(Exit::PioOut { port, data, len });
    Ok(())
}

/// The port: DX, or the immediate.
fn port<const BY_DX: bool>(cpu: &Cpu, op: &Op) -> u16 {
    match BY_DX {
        true => cpu.r[gpr::DX] as u16,
        false => op.imm as u16 & 0xff,
    }
}

fn port_in<const S: u8, const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let port = port::<BY_DX>(cpu, op);
    allowed(cpu, port, S)?;
    let value = input(cpu, port, S)?;
    cpu.set::<S>(gpr::AX as u8, value);
    Ok(Flow::Next)
}

fn port_out<const S: u8, const BY_DX: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let port = port::<BY_DX>(cpu, op);
    allowed(cpu, port, S)?;
    let value = cpu.get::<S>(gpr::AX as u8);
    output(cpu, port, value, S)?;
    Ok(Flow::Next)
}

fn by_dx(form: &Form, operand: u32) -> bool {
    form.instruction.op_kind(operand) == iced_x86::OpKind::Register
}

/// IN.
pub fn pick_in(form: &Form) -> Handler {
    match by_dx(form, 1) {
        true => by_size!(form.size(), S => port_in::<S, true>),
        false => by_size!(form.size(), S => port_in::<S, false>),
    }
}

/// OUT.
pub fn pick_out(form: &Form) -> Handler {
    match by_dx(form, 0) {
        true => by_size!(form.size_of(1), S => port_out::<S, true>),
        false => by_size!(form.size_of(1), S => port_out::<S, false>),
    }
}
