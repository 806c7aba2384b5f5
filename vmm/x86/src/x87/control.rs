//! The control and status words, and the whole state in memory.
//!
//! The environment has two layouts, of 14 and of 28 bytes, by the operand size; in 64-bit mode too it holds
//! 32 bits of each address at most. Segment selectors are zero, as on processors that say so in CPUID.

use super::memory::kind;
use super::number::tag;
use crate::exception::NM;
use crate::form::Form;
use crate::fpu::Fpu;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Mem, Target, Value, by_target};
use crate::paging::Access;
use crate::state::Cpu;
use iced_x86::MemorySize;

/// Bytes of the longest environment.
const LONGEST: usize = 28;
/// CR0.MP and CR0.TS.
const MP_TS: u64 = 0xa;
/// A register in memory.
const REGISTER: usize = 10;

/// The tag word as the environment has it.
fn tags(fpu: &Fpu) -> u16 {
    (0..8).fold(0, |tags, place| {
        let tag = match fpu.full >> place & 1 {
            0 => 3,
            _ => tag(fpu.st[place]),
        };
        tags | tag << (2 * place)
    })
}

/// Which registers such a tag word calls full.
fn full(tags: u16) -> u8 {
    (0..8).fold(0, |full, place| {
        full | u8::from(tags >> (2 * place) & 3 != 3) << place
    })
}

/// The environment, in `len` bytes.
fn environment(fpu: &Fpu, len: usize) -> [u8; LONGEST] {
    let mut bytes = [0; LONGEST];
    let words = [
        u32::from(fpu.fcw),
        u32::from(fpu.fsw),
        u32::from(tags(fpu)),
        fpu.ip as u32,
        u32::from(fpu.opcode) << 16,
        fpu.dp as u32,
        0xffff_0000,
    ];
    for (index, word) in words.into_iter().enumerate() {
        if len == LONGEST {
            let word = if index < 3 { word | 0xffff_0000 } else { word };
            bytes[4 * index..4 * index + 4].copy_from_slice(&word.to_le_bytes());
        } else {
            bytes[2 * index..2 * index + 2].copy_from_slice(&word.to_le_bytes()[..2]);
        }
    }
    bytes
}

/// Takes over an environment. The registers stay.
fn set_environment(fpu: &mut Fpu, bytes: &[u8]) {
    let long = bytes.len() == LONGEST;
    let word = |index: usize| match long {
        true => u32::from_le_bytes([0, 1, 2, 3].map(|n| bytes[4 * index + n])),
        false => u32::from(u16::from_le_bytes([0, 1].map(|n| bytes[2 * index + n]))),
    };
    fpu.fsw = word(1) as u16;
    fpu.full = full(word(2) as u16);
    fpu.ip = u64::from(word(3));
    fpu.opcode = if long {
        (word(4) >> 16) as u16 & 0x7ff
    } else {
        0
    };
    fpu.dp = u64::from(word(5));
    fpu.set_control(word(0) as u16);
}

/// The rest as FNINIT has it; what the registers hold stays.
fn initialise(fpu: &mut Fpu) {
    let fresh = Fpu::default();
    (fpu.fcw, fpu.fsw, fpu.full) = (fresh.fcw, fresh.fsw, fresh.full);
    (fpu.opcode, fpu.ip, fpu.dp) = (fresh.opcode, fresh.ip, fresh.dp);
}

/// Where an area of `len` bytes lies. Its first word and its last byte are looked at before the rest.
fn area(cpu: &mut Cpu, op: &Op, len: usize, access: Access) -> Done<u64> {
    let address = cpu.address(op);
    let word = if matches!(len, 14 | 94) { 2 } else { 4 };
    cpu.span(address, word, access)?;
    cpu.span(address.wrapping_add(len as u64 - 1), 1, access)?;
    Ok(address)
}

fn store_environment<const LEN: usize>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_x87()?;
    let bytes = environment(&cpu.fpu, LEN);
    let address = area(cpu, op, LEN, Access::Write)?;
    cpu.store_bytes(address, &bytes[..LEN])?;
    let all_masked = cpu.fpu.fcw | 0x3f;
    cpu.fpu.set_control(all_masked);
    Ok(Flow::Next)
}

fn load_environment<const LEN: usize>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let mut bytes = [0; LEN];
    let address = area(cpu, op, LEN, Access::Read)?;
    cpu.load_bytes(address, &mut bytes)?;
    set_environment(&mut cpu.fpu, &bytes);
    Ok(Flow::Next)
}

fn save<const LEN: usize>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_x87()?;
    let mut bytes = environment(&cpu.fpu, LEN)[..LEN].to_vec();
    for index in 0..8 {
        bytes.extend(&cpu.fpu.value(index).to_le_bytes()[..REGISTER]);
    }
    let address = area(cpu, op, bytes.len(), Access::Write)?;
    cpu.store_bytes(address, &bytes)?;
    initialise(&mut cpu.fpu);
    Ok(Flow::Next)
}

fn restore<const LEN: usize>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let mut bytes = [0; LONGEST + 8 * REGISTER];
    let bytes = &mut bytes[..LEN + 8 * REGISTER];
    let address = area(cpu, op, bytes.len(), Access::Read)?;
    cpu.load_bytes(address, bytes)?;
    let (environment, registers) = bytes.split_at(LEN);
    set_environment(&mut cpu.fpu, environment);
    for (index, register) in registers.chunks(REGISTER).enumerate() {
        let mut value = [0; 16];
        value[..REGISTER].copy_from_slice(register);
        let place = cpu.fpu.place(index as u8);
        cpu.fpu.st[place] = u128::from_le_bytes(value);
    }
    Ok(Flow::Next)
}

/// FNSTENV.
pub fn pick_store_environment(form: &Form) -> Handler {
    match kind(form) {
        MemorySize::FpuEnv14 => store_environment::<14>,
        _ => store_environment::<28>,
    }
}

/// FLDENV.
pub fn pick_load_environment(form: &Form) -> Handler {
    match kind(form) {
        MemorySize::FpuEnv14 => load_environment::<14>,
        _ => load_environment::<28>,
    }
}

/// FNSAVE.
pub fn pick_save(form: &Form) -> Handler {
    match kind(form) {
        MemorySize::FpuState94 => save::<14>,
        _ => save::<28>,
    }
}

/// FRSTOR.
pub fn pick_restore(form: &Form) -> Handler {
    match kind(form) {
        MemorySize::FpuState94 => restore::<14>,
        _ => restore::<28>,
    }
}

fn load_control(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let value = Mem::read::<2>(cpu, op)?;
    cpu.fpu.set_control(value as u16);
    Ok(Flow::Next)
}

/// FLDCW.
pub fn pick_load_control(_: &Form) -> Handler {
    load_control
}

fn store_control(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_x87()?;
    let value = u64::from(cpu.fpu.fcw);
    Mem::write::<2>(cpu, op, value)?;
    Ok(Flow::Next)
}

/// FNSTCW.
pub fn pick_store_control(_: &Form) -> Handler {
    store_control
}

fn store_status<D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.may_use_x87()?;
    let value = u64::from(cpu.fpu.fsw);
    D::write::<2>(cpu, op, value)?;
    Ok(Flow::Next)
}

/// FNSTSW.
pub fn pick_store_status(form: &Form) -> Handler {
    by_target!(form.memory(), D => store_status::<D>)
}

fn clear(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.may_use_x87()?;
    cpu.fpu.fsw &= 0x7f00;
    Ok(Flow::Next)
}

/// FNCLEX.
pub fn pick_clear(_: &Form) -> Handler {
    clear
}

fn init(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.may_use_x87()?;
    initialise(&mut cpu.fpu);
    Ok(Flow::Next)
}

/// FNINIT.
pub fn pick_init(_: &Form) -> Handler {
    init
}

fn nothing(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    cpu.end_x87(op, 0, 0, 0);
    Ok(Flow::Next)
}

/// FNOP.
pub fn pick_nop(_: &Form) -> Handler {
    nothing
}

/// FNENI, FNDISI and FNSETPM: since the 387 they do nothing.
pub fn pick_nothing(_: &Form) -> Handler {
    |cpu, _| {
        cpu.may_use_x87()?;
        Ok(Flow::Next)
    }
}

fn wait(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    if cpu.control.cr0 & MP_TS == MP_TS {
        return cpu.except(NM);
    }
    cpu.take_pending()?;
    Ok(Flow::Next)
}

/// WAIT.
pub fn pick_wait(_: &Form) -> Handler {
    wait
}
