//! What choosing a handler needs to know of an instruction.

use crate::operand::Shape;
use crate::state::Mode;
use iced_x86::{Instruction, OpKind, Register};

/// An instruction, as the functions see it that choose its handler.
#[derive(Debug)]
pub struct Form<'a> {
    /// The instruction.
    pub instruction: &'a Instruction,
    /// The mode of the code that it is part of.
    pub mode: Mode,
}

impl Form<'_> {
    /// How many operands it has.
    pub fn operands(&self) -> u32 {
        self.instruction.op_count()
    }

    /// Is one of them memory, by base and index?
    pub fn memory(&self) -> bool {
        self.instruction
            .op_kinds()
            .any(|kind| kind == OpKind::Memory)
    }

    /// Bytes of operand `index`.
    pub fn size_of(&self, index: u32) -> u8 {
        let bytes = match self.instruction.op_kind(index) {
            OpKind::Register => self.instruction.op_register(index).size(),
            _ => self.instruction.memory_size().size(),
        };
        bytes as u8
    }

    /// Bytes of the first operand.
    pub fn size(&self) -> u8 {
        self.size_of(0)
    }

    /// Bytes of the second operand.
    pub fn source_size(&self) -> u8 {
        self.size_of(1)
    }

    /// What the first two operands are.
    pub fn shape(&self) -> Shape {
        let kinds = (self.instruction.op0_kind(), self.instruction.op1_kind());
        match kinds {
            (OpKind::Register, OpKind::Register) => Shape::RegReg,
            (OpKind::Register, OpKind::Memory) => Shape::RegMem,
            (OpKind::Memory, OpKind::Register) => Shape::MemReg,
            (OpKind::Register, _) => Shape::RegImm,
            (OpKind::Memory, _) => Shape::MemImm,
            other => unreachable!("operands {other:?} of {:?}", self.instruction.code()),
        }
    }

    /// Is its last operand CL?
    pub fn by_cl(&self) -> bool {
        let last = self.operands() - 1;
        self.instruction.op_kind(last) == OpKind::Register
            && self.instruction.op_register(last) == Register::CL
    }

    /// The condition, as the processor numbers it.
    pub fn condition(&self) -> u8 {
        // Iced's order is the processor's, after one that means none.
        self.instruction.condition_code() as u8 - 1
    }

    /// How far the stack moves, bytes, if it moves by one slot.
    pub fn slot(&self) -> u8 {
        self.instruction.stack_pointer_increment().unsigned_abs() as u8
    }
}
