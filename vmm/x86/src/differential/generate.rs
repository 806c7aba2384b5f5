//! Random code from iced's table of instructions, and random registers that make it meet memory.

use super::layout;
use super::native::{Fx, Registers};
use iced_x86::{
    Code, Encoder, Instruction, MemoryOperand, Mnemonic, OpCodeOperandKind as Kind, Register,
};

/// A generator of numbers that are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number as arithmetic likes and dislikes them.
    pub fn value(&mut self) -> u64 {
        const EDGES: [u64; 14] = [
            0,
            1,
            2,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000_0000_0000,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.pick(&EDGES),
            1 => self.below(64),
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    /// Two single or one double-precision number, or two of them by halves, as arithmetic likes and
    /// dislikes them.
    pub fn float_bits(&mut self) -> u64 {
        match self.below(8) {
            0 => self.value(),
            1..5 => u64::from(self.single()) | u64::from(self.single()) << 32,
            _ => self.double(),
        }
    }

    fn single(&mut self) -> u32 {
        let sign = (self.next() as u32) & 1 << 31;
        let exponent = self.exponent(0xff) as u32;
        let mask = self.pick(&[0, 1, 0x40_0000, 0x40_0001, 0x7f_ffff, 0x7f_f000, 0x7f_ffff]);
        let significand = match self.below(6) {
            0 => 0x7f_ffff,
            1 => 0x7f_ff00,
            _ => self.next() as u32,
        };
        sign | exponent << 23 | significand & mask
    }

    fn double(&mut self) -> u64 {
        let sign = self.next() & 1 << 63;
        let exponent = self.exponent(0x7ff);
        let all = (1 << 52) - 1;
        let mask = self.pick(&[0, 1, 1 << 51, 1 << 51 | 1, all, all << 23, all << 29, all]);
        let significand = match self.below(6) {
            0 => all,
            1 => all << 24,
            _ => self.next(),
        };
        sign | exponent << 52 | significand & mask & all
    }

    /// An exponent: often of denormal, infinite or small whole numbers, near the edges or near another
    /// precision's.
    fn exponent(&mut self, most: u64) -> u64 {
        let one = most / 2;
        match self.below(10) {
            0 => 0,
            1 => most,
            2 => self.below(26),
            3 => most - self.below(4),
            4 => one - 160 % one + self.below(60),
            5 => one + self.below(70),
            6 if most > 0xff => one + 120 + self.below(12),
            6 | 7 => one - 4 + self.below(8),
            _ => self.below(most + 1),
        }
    }
}

/// What a register holds when the code begins, as far as the generator knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Anything,
    Pointer,
    Small,
}

/// A piece of code and the registers that it begins with.
#[derive(Clone, Debug)]
pub struct Case {
    /// The instructions. A branch goes behind the next one.
    pub code: Vec<Instruction>,
    /// General registers.
    pub r: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// x87 and SSE registers.
    pub fx: Fx,
}

/// Makes cases.
#[derive(Debug)]
pub struct Generator {
    /// Where the numbers come from.
    pub random: Random,
    holds: [Holds; 16],
    /// What the registers hold when the code begins.
    values: [u64; 16],
    /// Registers that the code so far has written to.
    written: [bool; 16],
}

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

impl Generator {
    /// One that makes the same cases for the same seed.
    pub fn new(seed: u64) -> Generator {
        Generator {
            random: Random(seed),
            holds: [Holds::Anything; 16],
            values: [0; 16],
            written: [false; 16],
        }
    }

    /// A case of `len` instructions of these forms.
    pub fn case(&mut self, forms: &[Code], len: usize) -> Case {
        let r = self.registers();
        self.values = r;
        self.written = [false; 16];
        let mut code = Vec::new();
        while code.len() < len {
            let form = self.random.pick(forms);
            let restored = |i: &Instruction| i.code() == Code::Fxrstor64_m512byte;
            if form == Code::Fxsave64_m512byte && code.iter().any(restored) {
                // It would tell how wide the host's addresses are.
                continue;
            }
            self.prepare(form, &mut code);
            // Some operands cannot be encoded together: AH with a register that needs REX.
            code.push(self.encodable(form));
        }
        Case {
            code,
            r,
            rflags: self.flags(),
            fx: self.vectors(),
        }
    }

    /// x87 and XMM registers, and MXCSR.
    fn vectors(&mut self) -> Fx {
        let mut fx = Registers::NEW.fx;
        super::x87::fill(&mut self.random, &mut fx.0);
        for part in fx.0[160..416].chunks_exact_mut(8) {
            part.copy_from_slice(&self.random.float_bits().to_le_bytes());
        }
        // Mostly all is masked: code ends at an exception that is not. Flags are often clear, to be set.
        let masks = match self.random.below(8) {
            0 => self.random.next() as u32 & 0x1f80,
            1 => 0x1f80 & !(1 << (7 + self.random.below(6))),
            _ => 0x1f80,
        };
        let flags = if self.random.one_in(3) {
            self.random.next() as u32 & 0x3f
        } else {
            0
        };
        // The rounding mode, FTZ and DAZ.
        let modes = match self.random.below(3) {
            0 => 0,
            _ => self.random.next() as u32 & 0xe040,
        };
        fx.0[24..28].copy_from_slice(&(masks | flags | modes).to_le_bytes());
        fx
    }

    fn flags(&mut self) -> u64 {
        let direction = if self.random.one_in(10) { 0x400 } else { 0 };
        self.random.next() & 0x8d5 | direction | 0x202
    }

    /// Decides what each register holds, and fills them.
    fn registers(&mut self) -> [u64; 16] {
        for number in 0..16 {
            self.holds[number] = match self.random.below(20) {
                _ if number == 4 => Holds::Pointer,
                0..9 => Holds::Pointer,
                9..14 => Holds::Small,
                _ => Holds::Anything,
            };
        }
        self.fill()
    }

    fn fill(&mut self) -> [u64; 16] {
        std::array::from_fn(|number| match self.holds[number] {
            Holds::Pointer if number == 4 => self.stack_pointer(),
            Holds::Pointer => self.pointer(),
            Holds::Small => self.random.below(200),
            Holds::Anything => self.random.value(),
        })
    }

    /// Other registers and flags for the code of the last case.
    pub fn vary(&mut self, case: &mut Case) {
        case.r = self.fill();
        case.rflags = self.flags();
        case.fx = self.vectors();
    }

    fn stack_pointer(&mut self) -> u64 {
        let middle = layout::STACK.at + layout::STACK.len as u64 / 2;
        match self.random.below(12) {
            0 => layout::STACK.at + self.random.below(64),
            1 => middle + self.random.below(64),
            _ => middle & !0xf,
        }
    }

    /// An address in the data, now and then near the edge of a page, of what is writable or of all.
    fn pointer(&mut self) -> u64 {
        let data = layout::DATA;
        match self.random.below(20) {
            0 => data.at + 0x1000 - self.random.below(24),
            1 => data.at + data.len as u64 - self.random.below(24),
            2 => layout::CONSTANT.at + self.random.below(4096),
            3 => layout::CONSTANT.at + 4096 - self.random.below(24),
            4 => data.at.wrapping_sub(self.random.below(24)),
            5 => 1 << 47 | self.random.next() >> 1,
            _ => data.at + 0x400 + self.random.below(0x1400),
        }
    }

    /// A register to write to: rarely one that is of use as an address.
    fn target(&mut self) -> usize {
        loop {
            let number = self.random.below(16) as usize;
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
            false => self.random.below(16) as usize,
        };
        if written {
            self.written[number] = true;
        }
        match size {
            1 if number < 4 && self.random.one_in(3) => gpr(number + 16, 1),
            _ => gpr(number, size),
        }
    }

    /// A register that still holds this, if there is one.
    fn holding(&mut self, what: Holds) -> Option<usize> {
        let numbers: Vec<usize> = (0..16)
            .filter(|n| self.holds[*n] == what && !self.written[*n])
            .collect();
        match numbers.is_empty() {
            true => None,
            false => Some(self.random.pick(&numbers)),
        }
    }

    fn memory(&mut self) -> MemoryOperand {
        let narrow = self.random.one_in(12);
        let size = if narrow { 4 } else { 8 };
        let absolute = layout::DATA.at + self.random.below(0x1800);
        let base = self.holding(Holds::Pointer);
        let Some(base) = base.filter(|_| !self.random.one_in(10)) else {
            let base = if self.random.one_in(2) {
                Register::RIP
            } else {
                Register::None
            };
            return MemoryOperand::with_base_displ_size(base, absolute as i64, 8);
        };
        let index = self.holding(Holds::Small).filter(|n| *n != 4);
        let index = index.filter(|_| self.random.one_in(2));
        let displacement = match self.random.below(3) {
            0 => 0,
            1 => self.random.below(256) as i64 - 128,
            _ => self.random.below(1024) as i64 - 512,
        };
        MemoryOperand::new(
            gpr(base, size),
            index.map_or(Register::None, |n| gpr(n, size)),
            self.random.pick(&[1, 2, 4, 8]),
            displacement,
            if displacement == 0 { 0 } else { 1 },
            false,
            Register::None,
        )
    }

    /// Instructions in front that make one of this form do something.
    fn prepare(&mut self, form: Code, code: &mut Vec<Instruction>) {
        if !needs_help(form) {
            return;
        }
        // A branch goes behind the next instruction: not behind one of these.
        code.push(Instruction::with(Code::Nopd));
        let with = |code, register, value: i64| {
            Instruction::with2(code, register, value).expect("the operands fit")
        };
        match form.mnemonic() {
            Mnemonic::Div | Mnemonic::Idiv if !self.random.one_in(4) => {
                let high = self.random.below(3) as i64;
                code.push(with(Code::Mov_r32_imm32, Register::EDX, high));
                if self.random.one_in(2) {
                    let low = self.random.below(256) as i64;
                    code.push(with(Code::Mov_r16_imm16, Register::AX, low));
                }
            }
            Mnemonic::Popf | Mnemonic::Popfq => {
                // No trap flag, and no alignment check: see the module's documentation.
                let mask = Instruction::with2(
                    Code::And_rm32_imm32,
                    MemoryOperand::with_base(Register::RSP),
                    !0x0004_0100i32,
                );
                code.push(mask.expect("the operands fit"));
            }
            _ => {}
        }
        let repeatable = repeatable(form);
        if repeatable && !self.random.one_in(12) {
            let count = self.random.below(40) as i64;
            code.push(with(Code::Mov_r32_imm32, Register::ECX, count));
        }
        // Both are pointers that the code may have spoilt.
        if repeatable {
            for register in [Register::RSI, Register::RDI] {
                if self.random.one_in(2) {
                    let at = self.pointer();
                    code.push(with(Code::Mov_r64_imm64, register, at as i64));
                }
            }
        }
    }

    fn encodable(&mut self, form: Code) -> Instruction {
        loop {
            let instruction = self.instruction(form);
            if can_be_encoded(&instruction) {
                return instruction;
            }
        }
    }

    fn instruction(&mut self, form: Code) -> Instruction {
        let info = form.op_code();
        let mut instruction = Instruction::default();
        instruction.set_code(form);
        let first_is_written =
            form.mnemonic() != Mnemonic::Cmp && form.mnemonic() != Mnemonic::Test;
        for (index, kind) in info.op_kinds().iter().enumerate() {
            self.operand(
                &mut instruction,
                index as u32,
                *kind,
                index == 0 && first_is_written,
            );
        }
        self.prefixes(&mut instruction);
        instruction
    }

    fn prefixes(&mut self, instruction: &mut Instruction) {
        let info = instruction.code().op_code();
        let (rep, repne) = (info.can_use_rep_prefix(), info.can_use_repne_prefix());
        match self.random.below(3) {
            0 if rep => instruction.set_has_rep_prefix(true),
            1 if repne => instruction.set_has_repne_prefix(true),
            1 if rep => instruction.set_has_rep_prefix(true),
            _ => {}
        }
        let in_memory =
            instruction.op_count() > 0 && instruction.op0_kind() == iced_x86::OpKind::Memory;
        if info.can_use_lock_prefix() && in_memory && self.random.one_in(4) {
            instruction.set_has_lock_prefix(true);
        }
    }

    #[rustfmt::skip]
    fn operand(&mut self, instruction: &mut Instruction, index: u32, kind: Kind, written: bool) {
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
                instruction.set_memory_displ_size(8);
                instruction.set_memory_displacement64(at);
            }
            Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => register(instruction, self.any_register(1, written)),
            Kind::r16_or_mem | Kind::r16_reg | Kind::r16_opcode | Kind::r16_rm => register(instruction, self.any_register(2, written)),
            Kind::r32_or_mem | Kind::r32_reg | Kind::r32_opcode | Kind::r32_rm => register(instruction, self.any_register(4, written)),
            Kind::r64_or_mem | Kind::r64_reg | Kind::r64_opcode | Kind::r64_rm => register(instruction, self.any_register(8, written)),
            Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => register(instruction, Register::MM0 + self.random.below(8) as u32),
            Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => register(instruction, Register::XMM0 + self.random.below(16) as u32),
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
            Kind::seg_rSI => instruction.set_op_kind(index, OpKind::MemorySegRSI),
            Kind::es_rDI => instruction.set_op_kind(index, OpKind::MemoryESRDI),
            Kind::seg_rDI => instruction.set_op_kind(index, OpKind::MemorySegRDI),
            Kind::seg_rBX_al => {
                instruction.set_op_kind(index, OpKind::Memory);
                instruction.set_memory_base(Register::RBX);
                instruction.set_memory_index(Register::AL);
            }
            Kind::br64_1 | Kind::br64_4 => { instruction.set_op_kind(index, OpKind::NearBranch64); instruction.set_near_branch64(0); }
            other => unreachable!("{:?} has an operand {other:?}", instruction.code()),
        }
    }

    /// The same, mostly on 16 bytes.
    fn aligned_memory(&mut self) -> MemoryOperand {
        let operand = self.memory();
        let start = match names().iter().position(|name| *name == operand.base) {
            Some(base) => self.values[base],
            None if operand.base == Register::RIP || operand.base == Register::None => 0,
            None => return operand,
        };
        let at = start.wrapping_add(operand.displacement as u64);
        let displacement = operand.displacement - (at % 16) as i64;
        match self.random.one_in(8) {
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

fn repeatable(form: Code) -> bool {
    let info = form.op_code();
    info.can_use_rep_prefix() || info.can_use_repne_prefix()
}

fn needs_help(form: Code) -> bool {
    use Mnemonic as M;
    let mnemonic = form.mnemonic();
    repeatable(form) || matches!(mnemonic, M::Div | M::Idiv | M::Popf | M::Popfq)
}

/// Can it be encoded? Some operands go with no other.
fn can_be_encoded(instruction: &Instruction) -> bool {
    let at = layout::CODE.at;
    Encoder::new(64).encode(&aimed(instruction, at), at).is_ok()
}

/// The bytes of the whole, from `at` on, and where each instruction begins. A branch goes behind the next
/// instruction, or to the end.
pub fn assemble(code: &[Instruction], at: u64) -> (Vec<u8>, Vec<u64>) {
    let mut encoder = Encoder::new(64);
    let mut starts = vec![at];
    for instruction in code {
        let here = starts[starts.len() - 1];
        let len = encoder.encode(&aimed(instruction, here), here);
        starts.push(here + len.expect("it was encoded before") as u64);
    }
    let mut bytes = encoder.take_buffer();
    for (index, instruction) in code.iter().enumerate().filter(|(_, i)| is_near(i)) {
        let target = starts[(index + 2).min(code.len())];
        let len = encoder.encode(&aimed(instruction, target), starts[index]);
        assert_eq!(
            starts[index] + len.expect("it is near") as u64,
            starts[index + 1]
        );
        let from = (starts[index] - at) as usize;
        let again = encoder.take_buffer();
        bytes[from..from + again.len()].copy_from_slice(&again);
    }
    (bytes, starts)
}

fn is_near(instruction: &Instruction) -> bool {
    instruction
        .op_kinds()
        .any(|kind| kind == iced_x86::OpKind::NearBranch64)
}

/// The instruction, with that target if it is a near branch.
fn aimed(instruction: &Instruction, target: u64) -> Instruction {
    let mut instruction = *instruction;
    if is_near(&instruction) {
        instruction.set_near_branch64(target);
    }
    instruction
}

/// All registers of 64 bits, by number.
pub fn names() -> [Register; 16] {
    REGISTERS_64
}
