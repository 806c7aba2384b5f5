//! Instructions that stand around one, so that it does something and what follows runs.

use super::assemble::AIM;
use super::generate::Generator;
use crate::flags::{AF, CF, OF, PF, SF, ZF};
use crate::state::Mode;
use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

impl Generator<'_> {
    /// Instructions in front that make one of this form do something.
    pub fn prepare(&mut self, form: Code, code: &mut Vec<Instruction>) {
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
            _ if restores_flags(form) => {
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
        if repeatable(form) && !self.random.one_in(12) {
            let count = self.random.below(40) as i64;
            code.push(with(Code::Mov_r32_imm32, Register::ECX, count));
        }
        // They are pointers that the code may have spoilt.
        for register in pointers(form) {
            if self.random.one_in(2) {
                self.risky = self.random.one_in(4);
                let at = self.pointer();
                code.push(match self.mode {
                    Mode::Long => with(Code::Mov_r64_imm64, *register, at as i64),
                    Mode::Compat32 => {
                        let half = Register::EAX + register.number() as u32;
                        with(Code::Mov_r32_imm32, half, at as i32 as i64)
                    }
                });
            }
        }
    }

    /// Clears these flags: what is undefined goes no further, and what is not is still compared.
    pub fn clear_flags(&self, flags: u64, code: &mut Vec<Instruction>) {
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
    pub fn aimed(&mut self, form: Code, code: &mut Vec<Instruction>) {
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

    fn stack_register(&self) -> Register {
        match self.mode {
            Mode::Long => Register::RSP,
            Mode::Compat32 => Register::ESP,
        }
    }
}

/// The flags that the instruction leaves undefined, as RFLAGS has them.
pub fn undefined(instruction: &Instruction) -> u64 {
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

/// The registers that hold its operands' addresses, though no operand names them.
fn pointers(form: Code) -> &'static [Register] {
    use Mnemonic as M;
    match form.mnemonic() {
        M::Maskmovdqu | M::Maskmovq => &[Register::RDI],
        M::Xlatb => &[Register::RBX],
        M::Leave => &[Register::RBP],
        _ if repeatable(form) => &[Register::RSI, Register::RDI],
        _ => &[],
    }
}

fn needs_help(form: Code) -> bool {
    use Mnemonic as M;
    let divides = matches!(form.mnemonic(), M::Div | M::Idiv);
    divides || restores_flags(form) || !pointers(form).is_empty()
}

fn restores_flags(form: Code) -> bool {
    use Mnemonic as M;
    matches!(form.mnemonic(), M::Popf | M::Popfd | M::Popfq)
}
