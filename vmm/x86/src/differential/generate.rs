//! Random code from iced's table of instructions, and random registers that make it meet memory.

use super::assemble::{AIM, can_be_encoded};
use super::layout;
use super::native::{Fx, Registers};
use super::random::Random;
use crate::flags::{AF, CF, OF, PF, SF, ZF};
use crate::state::Mode;
use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

/// What a register holds when the code begins, as far as the generator knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Any number.
    Anything,
    /// The address of data.
    Pointer,
    /// A number that is good for an index.
    Small,
}

/// A piece of code and the registers that it begins with.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the instructions mean.
    pub mode: Mode,
    /// The instructions. A branch goes behind the next one.
    pub code: Vec<Instruction>,
    /// General registers.
    pub r: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// x87 and SSE registers.
    pub fx: Fx,
}

/// Numbers that registers mostly hold, as making one takes longer than choosing one.
#[derive(Debug)]
pub struct Pool {
    floats: Vec<u64>,
    extended: Vec<u128>,
}

impl Pool {
    /// Always the same one.
    pub fn new() -> Pool {
        let mut random = Random(7);
        Pool {
            floats: (0..8192).map(|_| random.float_bits()).collect(),
            extended: (0..4096).map(|_| super::x87::number(&mut random)).collect(),
        }
    }
}

/// Makes cases.
#[derive(Debug)]
pub struct Generator<'a> {
    /// Where the numbers come from.
    pub random: Random,
    pool: &'a Pool,
    /// What the code means.
    pub mode: Mode,
    /// Are flags that the manual leaves undefined kept from what follows?
    masked: bool,
    /// What the registers hold when the code begins, in kind.
    pub holds: [Holds; 16],
    /// The same as numbers.
    pub values: [u64; 16],
    /// Registers that the code so far has written to.
    pub written: [bool; 16],
}

impl Generator<'_> {
    /// One that makes the same cases for the same seed.
    pub fn new(seed: u64, mode: Mode, masked: bool, pool: &Pool) -> Generator<'_> {
        Generator {
            random: Random(seed),
            pool,
            mode,
            masked,
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
            if goes_anywhere(form) {
                self.aimed(form, &mut code);
                continue;
            }
            self.prepare(form, &mut code);
            // Some operands cannot be encoded together: AH with a register that needs REX.
            let instruction = self.encodable(form);
            code.push(instruction);
            if self.masked && instruction.rflags_undefined() != 0 {
                self.clear_flags(undefined(&instruction), &mut code);
            }
        }
        Case {
            mode: self.mode,
            code,
            r,
            rflags: self.flags(),
            fx: self.vectors(),
        }
    }

    /// x87 and XMM registers, and MXCSR.
    fn vectors(&mut self) -> Fx {
        let mut fx = Registers::NEW.fx;
        super::x87::fill(&mut self.random, &self.pool.extended, &mut fx.0);
        for part in fx.0[160..416].chunks_exact_mut(8) {
            let value = match self.random.one_in(16) {
                true => self.random.float_bits(),
                false => self.random.pick(&self.pool.floats),
            };
            part.copy_from_slice(&value.to_le_bytes());
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
        let mxcsr = match self.random.below(4) {
            // As programs have it once a result was inexact: most arithmetic is quick then.
            0 => 0x1fa0 | flags,
            _ => masks | flags | modes,
        };
        fx.0[24..28].copy_from_slice(&mxcsr.to_le_bytes());
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
        let mode = self.mode;
        let narrow = |value: u64| match mode {
            Mode::Long => value,
            Mode::Compat32 => value & 0xffff_ffff,
        };
        std::array::from_fn(|number| match self.holds[number] {
            Holds::Pointer if number == 4 => self.stack_pointer(),
            Holds::Pointer => narrow(self.pointer()),
            Holds::Small => self.random.below(200),
            Holds::Anything => narrow(self.random.value()),
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
    pub fn pointer(&mut self) -> u64 {
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
            Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => {
                // No trap flag, and no alignment check: see the module's documentation.
                let mask = Instruction::with2(
                    Code::And_rm32_imm32,
                    MemoryOperand::with_base(self.stack_register()),
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
                    code.push(match self.mode {
                        Mode::Long => with(Code::Mov_r64_imm64, register, at as i64),
                        Mode::Compat32 => {
                            let half = Register::EAX + register.number() as u32;
                            with(Code::Mov_r32_imm32, half, at as i32 as i64)
                        }
                    });
                }
            }
        }
    }

    /// Clears these flags: what is undefined goes no further, and what is not is still compared.
    fn clear_flags(&self, flags: u64, code: &mut Vec<Instruction>) {
        let (push, pop) = match self.mode {
            Mode::Long => (Code::Pushfq, Code::Popfq),
            Mode::Compat32 => (Code::Pushfd, Code::Popfd),
        };
        let top = MemoryOperand::with_base(self.stack_register());
        let mask = Instruction::with2(Code::And_rm32_imm32, top, !(flags as i32));
        code.push(Instruction::with(push));
        code.push(mask.expect("the operands fit"));
        code.push(Instruction::with(pop));
    }

    /// A branch through a register, through memory or back to a caller, with what leads it behind itself.
    fn aimed(&mut self, form: Code, code: &mut Vec<Instruction>) {
        let (load, push, register) = match self.mode {
            Mode::Long => (Code::Mov_r64_imm64, Code::Push_r64, Register::RAX),
            Mode::Compat32 => (Code::Mov_r32_imm32, Code::Push_r32, Register::EAX),
        };
        let mut branch = self.encodable(form);
        let returns = form.mnemonic() == Mnemonic::Ret;
        let on_stack = returns || branch.op0_kind() == OpKind::Memory;
        if !returns && on_stack {
            let operand = MemoryOperand::with_base(self.stack_register());
            let made = Instruction::with1(form, operand);
            branch = made.expect("the operands fit");
        } else if !returns {
            branch.set_op0_register(register);
        }
        let aim = AIM + if on_stack { 3 } else { 2 };
        let made = Instruction::with2(load, register, aim);
        // A branch goes behind the next instruction: not behind one of these.
        code.extend([
            Instruction::with(Code::Nopd),
            made.expect("the operands fit"),
        ]);
        if on_stack {
            let made = Instruction::with1(push, register);
            code.push(made.expect("the operands fit"));
        }
        code.push(branch);
        self.written[0] = true;
    }

    fn encodable(&mut self, form: Code) -> Instruction {
        loop {
            let instruction = self.instruction(form);
            if can_be_encoded(&instruction, self.mode) {
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

    fn stack_register(&self) -> Register {
        match self.mode {
            Mode::Long => Register::RSP,
            Mode::Compat32 => Register::ESP,
        }
    }
}

/// Does it branch to where an operand says?
fn goes_anywhere(form: Code) -> bool {
    let indirect = matches!(form.mnemonic(), Mnemonic::Jmp | Mnemonic::Call);
    form.mnemonic() == Mnemonic::Ret || indirect && format!("{form:?}").contains("_rm")
}

/// The flags that the instruction leaves undefined, as RFLAGS has them.
fn undefined(instruction: &Instruction) -> u64 {
    use iced_x86::RflagsBits as Bits;
    let bits = [
        (Bits::CF, CF),
        (Bits::PF, PF),
        (Bits::AF, AF),
        (Bits::ZF, ZF),
        (Bits::SF, SF),
        (Bits::OF, OF),
    ];
    let undefined = instruction.rflags_undefined();
    let chosen = bits.iter().filter(|(bit, _)| undefined & bit != 0);
    chosen.map(|(_, flag)| flag).sum()
}

fn repeatable(form: Code) -> bool {
    let info = form.op_code();
    info.can_use_rep_prefix() || info.can_use_repne_prefix()
}

fn needs_help(form: Code) -> bool {
    use Mnemonic as M;
    let mnemonic = form.mnemonic();
    repeatable(form) || matches!(mnemonic, M::Div | M::Idiv | M::Popf | M::Popfd | M::Popfq)
}
