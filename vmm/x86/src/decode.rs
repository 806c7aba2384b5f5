//! From an instruction to an [`Op`].

use crate::form::Form;
use crate::forms;
use crate::op::{HIGH, Op, ZERO, aux, special};
use crate::state::Mode;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// The op that does what the instruction says. What this processor does not have becomes #UD.
pub fn decode(instruction: &Instruction, mode: Mode) -> Op {
    let form = Form { instruction, mode };
    let mut op = Op {
        run: forms::handler(&form),
        imm: 0,
        disp: 0,
        next: instruction.next_ip(),
        dst: ZERO,
        src: ZERO,
        base: ZERO,
        index: ZERO,
        scale: 0,
        len: instruction.len() as u8,
        special: 0,
        aux: 0,
    };
    for index in 0..instruction.op_count() {
        operand(&mut op, &form, index);
    }
    op.special |= counted(instruction.code());
    if instruction.has_rep_prefix() {
        op.aux |= aux::REP;
    }
    if instruction.has_repne_prefix() {
        op.aux |= aux::REPNE;
    }
    if loads_ss(instruction) {
        op.aux |= aux::QUIET;
    }
    op
}

/// MOV to SS, and POP SS.
fn loads_ss(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
        && instruction.op0_register() == Register::SS
}

fn operand(op: &mut Op, form: &Form, index: u32) {
    let instruction = form.instruction;
    match instruction.op_kind(index) {
        OpKind::Register => {
            let register = instruction.op_register(index);
            let number = number(register);
            match index {
                0 => op.dst = number,
                1 => op.src = number,
                // SHLD and SHRD find CL by themselves. Only MASKMOVDQU and MASKMOVQ have three, the first of
                // which is memory.
                _ if register == Register::CL => {}
                _ => op.dst = number,
            }
        }
        OpKind::Memory => memory(op, form),
        OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI => {
            segment(op, form);
            op.special |= narrowed(instruction.op_kind(index));
        }
        OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => {
            segment(op, form);
            op.base = 7;
            op.special |= narrowed(instruction.op_kind(index));
        }
        OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => {
            op.special |= narrowed(instruction.op_kind(index));
        }
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            op.imm = instruction.near_branch_target();
        }
        OpKind::FarBranch16 => {
            op.imm = u64::from(instruction.far_branch16());
            op.disp = u64::from(instruction.far_branch_selector());
        }
        OpKind::FarBranch32 => {
            op.imm = u64::from(instruction.far_branch32());
            op.disp = u64::from(instruction.far_branch_selector());
        }
        // Only ENTER has two here, and no memory operand.
        OpKind::Immediate8_2nd => op.disp = u64::from(instruction.immediate8_2nd()),
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => op.imm = instruction.immediate(index),
    }
}

/// The address size of a string instruction's operand.
fn narrowed(kind: OpKind) -> u8 {
    match kind {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => special::ADDRESS16,
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => special::ADDRESS32,
        _ => 0,
    }
}

/// In 64-bit mode only FS and GS have a base.
fn segment(op: &mut Op, form: &Form) {
    let register = form.instruction.memory_segment();
    let based = match form.mode {
        Mode::Long => matches!(register, Register::FS | Register::GS),
        Mode::Compat32 => true,
    };
    if based {
        op.special |= special::BASED | register.number() as u8 & special::SEGMENT;
    }
    if register == Register::SS {
        op.aux |= aux::STACK;
    }
}

fn memory(op: &mut Op, form: &Form) {
    let instruction = form.instruction;
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    op.disp = instruction.memory_displacement64();
    // A displacement relative to RIP comes with RIP added.
    if !matches!(base, Register::RIP | Register::EIP) {
        op.base = number(base);
    }
    op.index = number(index);
    op.scale = instruction.memory_index_scale().trailing_zeros() as u8;
    segment(op, form);
    // By a register, or by the displacement where there is none.
    let size = match (base.size(), index.size()) {
        (0, 0) => instruction.memory_displ_size() as usize,
        (0, size) | (size, _) => size,
    };
    op.special |= match size {
        2 => special::ADDRESS16,
        4 => special::ADDRESS32,
        _ => 0,
    };
}

/// The size of the count of LOOP and JCXZ.
fn counted(code: Code) -> u8 {
    match code {
        Code::Loop_rel8_64_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loopne_rel8_64_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Jecxz_rel8_64
        | Code::Jecxz_rel8_32 => special::ADDRESS32,
        Code::Loop_rel8_32_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_32_CX
        | Code::Jcxz_rel8_32 => special::ADDRESS16,
        _ => 0,
    }
}

/// A register's number as an operand.
fn number(register: Register) -> u8 {
    match register {
        Register::None => ZERO,
        Register::AH => HIGH,
        Register::CH => HIGH | 1,
        Register::DH => HIGH | 2,
        Register::BH => HIGH | 3,
        _ => register.full_register().number() as u8,
    }
}
