//! Operands of random instructions.

use super::generate::{Generator, Holds};
use super::layout;
use crate::state::Mode;
use iced_x86::{Code, Instruction, MemoryOperand, OpCodeOperandKind as Kind, Register};

const REGISTERS_64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// Register `number` of `size` bytes.
fn gpr(number: usize, size: usize) -> Register {
    let bank = match size {
        1 => Register::AL,
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    match (size, number) {
        // AL to BL, then AH to BH, which numbers 16 to 19 stand for; then SPL to R15L.
        (1, 0..=3) => bank + number as u32,
        (1, 16..=19) => Register::AH + (number - 16) as u32,
        (1, _) => Register::SPL + (number - 4) as u32,
        _ => bank + number as u32,
    }
}

/// All registers of 64 bits, by number.
pub fn names() -> [Register; 16] {
    REGISTERS_64
}

impl Generator<'_> {
    /// How many general and XMM registers there are.
    fn registers_there(&self) -> u64 {
        self.by_mode(16, 8)
    }

    fn by_mode<T>(&self, long: T, compatible: T) -> T {
        match self.mode {
            Mode::Long => long,
            Mode::Compat32 => compatible,
        }
    }

    /// A register to write to: rarely one that is of use as an address.
    fn target(&mut self) -> usize {
        loop {
            let number = self.random.below(self.registers_there()) as usize;
            let useful = self.holds[number] != Holds::Anything;
            if number == 4 && !self.random.one_in(30) || useful && !self.random.one_in(6) {
                continue;
            }
            return number;
        }
    }

    fn any_register(&mut self, size: usize, written: bool) -> Register {
        let number = match written {
            true => self.target(),
            false => self.random.below(self.registers_there()) as usize,
        };
        if written {
            self.written[number] = true;
        }
        match size {
            1 if self.mode == Mode::Compat32 => gpr([0, 1, 2, 3, 16, 17, 18, 19][number], 1),
            1 if number < 4 && self.random.one_in(3) => gpr(number + 16, 1),
            _ => gpr(number, size),
        }
    }

    /// A register that still holds this, if there is one.
    fn holding(&mut self, what: Holds) -> Option<usize> {
        let holds = |n: &usize| self.holds[*n] == what && !self.written[*n];
        let many = (0..16).filter(holds).count() as u64;
        let chosen = self.random.next() % many.max(1);
        (0..16).filter(holds).nth(chosen as usize)
    }

    /// With an address of 16 bits, where nothing is mapped.
    fn narrowest_memory(&mut self) -> MemoryOperand {
        let (base, index) = self.random.pick(&[
            (Register::BX, Register::SI),
            (Register::BP, Register::DI),
            (Register::BX, Register::None),
        ]);
        let displacement = self.random.below(0x8000) as i64;
        MemoryOperand::new(base, index, 1, displacement, 2, false, Register::None)
    }

    fn memory(&mut self) -> MemoryOperand {
        if self.mode == Mode::Compat32 && self.random.one_in(40) {
            return self.narrowest_memory();
        }
        let narrow = self.mode == Mode::Compat32 || self.random.one_in(12);
        let size = if narrow { 4 } else { 8 };
        let absolute = layout::DATA.at + self.random.below(0x1800);
        let base = self.holding(Holds::Pointer);
        let Some(base) = base.filter(|_| !self.random.one_in(10)) else {
            let (base, size) = match self.mode {
                Mode::Compat32 => (Register::None, 4),
                Mode::Long if self.random.one_in(2) => (Register::RIP, 8),
                Mode::Long => (Register::None, 8),
            };
            return MemoryOperand::with_base_displ_size(base, absolute as i64, size);
        };
        let index = self.holding(Holds::Small).filter(|n| *n != 4);
        let index = index.filter(|_| self.random.one_in(2));
        let displacement = match self.random.below(3) {
            0 => 0,
            1 => self.random.below(256) as i64 - 128,
            _ => self.random.below(1024) as i64 - 512,
        };
        let by_gs = self.mode == Mode::Long && self.random.one_in(16);
        MemoryOperand::new(
            gpr(base, size),
            index.map_or(Register::None, |n| gpr(n, size)),
            self.random.pick(&[1, 2, 4, 8]),
            displacement,
            if displacement == 0 { 0 } else { 1 },
            false,
            if by_gs { Register::GS } else { Register::None },
        )
    }

    #[rustfmt::skip]
    pub fn operand(&mut self, instruction: &mut Instruction, index: u32, kind: Kind, written: bool) {
        use iced_x86::OpKind;
        let register = |instruction: &mut Instruction, register: Register| {
            instruction.set_op_kind(index, OpKind::Register);
            instruction.set_op_register(index, register);
        };
        match kind {
            Kind::r8_or_mem | Kind::r16_or_mem | Kind::r32_or_mem | Kind::r64_or_mem
                if self.random.one_in(2) => self.set_memory(instruction, index),
            Kind::mm_or_mem | Kind::xmm_or_mem if self.random.one_in(2) => self.set_memory(instruction, index),
            Kind::mem | Kind::mem_offs if kind == Kind::mem => self.set_memory(instruction, index),
            Kind::mem_offs => {
                let at = layout::DATA.at + self.random.below(0x1800);
                instruction.set_op_kind(index, OpKind::Memory);
                instruction.set_memory_displ_size(if self.mode == Mode::Long { 8 } else { 4 });
                instruction.set_memory_displacement64(at);
            }
            Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => register(instruction, self.any_register(1, written)),
            Kind::r16_or_mem | Kind::r16_reg | Kind::r16_opcode | Kind::r16_rm => register(instruction, self.any_register(2, written)),
            Kind::r32_or_mem | Kind::r32_reg | Kind::r32_opcode | Kind::r32_rm => register(instruction, self.any_register(4, written)),
            Kind::r64_or_mem | Kind::r64_reg | Kind::r64_opcode | Kind::r64_rm => register(instruction, self.any_register(8, written)),
            Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => register(instruction, Register::MM0 + self.random.below(8) as u32),
            Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => register(instruction, Register::XMM0 + self.random.below(self.registers_there()) as u32),
            Kind::st0 => register(instruction, Register::ST0),
            Kind::sti_opcode => register(instruction, Register::ST0 + self.random.below(8) as u32),
            Kind::cr_reg => register(instruction, Register::CR0),
            Kind::dr_reg => register(instruction, Register::DR0),
            Kind::al => register(instruction, Register::AL),
            Kind::cl => register(instruction, Register::CL),
            Kind::ax => register(instruction, Register::AX),
            Kind::dx => register(instruction, Register::DX),
            Kind::eax => register(instruction, Register::EAX),
            Kind::rax => register(instruction, Register::RAX),
            Kind::imm8 if index > 0 && instruction.op_kind(index - 1) == OpKind::Immediate16 => {
                instruction.set_op_kind(index, OpKind::Immediate8_2nd);
                // Frames nested deeper need more stack than there is.
                instruction.set_immediate8_2nd(self.random.below(4) as u8);
            }
            Kind::imm8 => { instruction.set_op_kind(index, OpKind::Immediate8); instruction.set_immediate8(self.random.value() as u8); }
            Kind::imm8_const_1 => { instruction.set_op_kind(index, OpKind::Immediate8); instruction.set_immediate8(1); }
            Kind::imm8sex16 => { instruction.set_op_kind(index, OpKind::Immediate8to16); instruction.set_immediate8to16(self.random.value() as i8 as i16); }
            Kind::imm8sex32 => { instruction.set_op_kind(index, OpKind::Immediate8to32); instruction.set_immediate8to32(self.random.value() as i8 as i32); }
            Kind::imm8sex64 => { instruction.set_op_kind(index, OpKind::Immediate8to64); instruction.set_immediate8to64(self.random.value() as i8 as i64); }
            Kind::imm16 => { instruction.set_op_kind(index, OpKind::Immediate16); instruction.set_immediate16(self.random.value() as u16 & self.random.pick(&[0xffff, 0xff, 0x1f])); }
            Kind::imm32 => { instruction.set_op_kind(index, OpKind::Immediate32); instruction.set_immediate32(self.random.value() as u32); }
            Kind::imm32sex64 => { instruction.set_op_kind(index, OpKind::Immediate32to64); instruction.set_immediate32to64(self.random.value() as i32 as i64); }
            Kind::imm64 => { instruction.set_op_kind(index, OpKind::Immediate64); instruction.set_immediate64(self.random.value()); }
            Kind::seg_rSI => instruction.set_op_kind(index, self.by_mode(OpKind::MemorySegRSI, OpKind::MemorySegESI)),
            Kind::es_rDI => instruction.set_op_kind(index, self.by_mode(OpKind::MemoryESRDI, OpKind::MemoryESEDI)),
            Kind::seg_rDI => instruction.set_op_kind(index, self.by_mode(OpKind::MemorySegRDI, OpKind::MemorySegEDI)),
            Kind::seg_rBX_al => {
                instruction.set_op_kind(index, OpKind::Memory);
                instruction.set_memory_base(self.by_mode(Register::RBX, Register::EBX));
                instruction.set_memory_index(Register::AL);
            }
            Kind::br32_1 | Kind::br32_4 => { instruction.set_op_kind(index, OpKind::NearBranch32); instruction.set_near_branch32(0); }
            Kind::br64_1 | Kind::br64_4 => { instruction.set_op_kind(index, OpKind::NearBranch64); instruction.set_near_branch64(0); }
            other => unreachable!("{:?} has an operand {other:?}", instruction.code()),
        }
    }

    /// The same, mostly on 16 bytes.
    fn aligned_memory(&mut self) -> MemoryOperand {
        let operand = self.memory();
        let base = operand.base;
        let start = match base.is_gpr32() || base.is_gpr64() {
            true => self.values[base.number()],
            false if base == Register::RIP || base == Register::None => 0,
            false => return operand,
        };
        let at = start.wrapping_add(operand.displacement as u64);
        let displacement = operand.displacement - (at % 16) as i64;
        match self.random.one_in(40) {
            true => operand,
            false => MemoryOperand {
                index: Register::None,
                scale: 1,
                displacement,
                displ_size: operand.displ_size.max(1),
                ..operand
            },
        }
    }

    fn set_memory(&mut self, instruction: &mut Instruction, index: u32) {
        let operand = match wide(instruction.code()) {
            true => self.aligned_memory(),
            false => self.memory(),
        };
        instruction.set_op_kind(index, iced_x86::OpKind::Memory);
        instruction.set_segment_prefix(operand.segment_prefix);
        instruction.set_memory_base(operand.base);
        instruction.set_memory_index(operand.index);
        instruction.set_memory_index_scale(operand.scale);
        instruction.set_memory_displ_size(operand.displ_size);
        instruction.set_memory_displacement64(operand.displacement as u64);
    }
}

/// Is its memory operand one of those that are to be aligned, or may be?
fn wide(form: Code) -> bool {
    matches!(form.op_code().memory_size().size(), 16 | 512)
}
