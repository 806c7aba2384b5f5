//! Random code from iced's table of instructions, and random registers that make it meet memory.

use super::assemble::{can_be_encoded, encoder};
use super::layout;
use super::native::{Fx, Registers};
use super::prepare::undefined;
use super::random::Random;
use crate::state::Mode;
use iced_x86::{Code, Encoder, Instruction, Mnemonic, OpKind};

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

/// Numbers in a pool.
const FLOATS: usize = 8192;

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
            floats: (0..FLOATS).map(|_| random.float_bits()).collect(),
            extended: (0..4096).map(|_| super::x87::number(&mut random)).collect(),
        }
    }
}

/// Makes cases.
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
    /// Do pointers lead to where an access faults, now and then?
    pub risky: bool,
    encoder: Encoder,
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
            risky: false,
            encoder: encoder(mode),
        }
    }

    /// A case of `len` instructions of these forms.
    pub fn case(&mut self, forms: &[Code], len: usize) -> Case {
        let r = self.registers();
        self.values = r;
        self.written = [false; 16];
        let mut code = Vec::with_capacity(2 * len);
        while code.len() < len {
            let form = self.form(forms, code.len() + 1 == len);
            let restored = |i: &Instruction| i.code() == Code::Fxrstor64_m512byte;
            if form == Code::Fxsave64_m512byte && code.iter().any(restored) {
                // It would show how wide the host's addresses are.
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
            fx: self.vectors(Registers::NEW.fx, u32::MAX),
        }
    }

    /// One of these forms. What mostly faults ends the code, so it is mostly the last instruction.
    fn form(&mut self, forms: &[Code], last: bool) -> Code {
        let form = self.random.pick(forms);
        match mostly_faults(form) && !last && !self.random.one_in(16) {
            true => self.random.pick(forms),
            false => form,
        }
    }

    /// Fills x87 and XMM registers, those that a bit of `which` stands for, and their control registers.
    fn vectors(&mut self, mut fx: Fx, which: u32) -> Fx {
        super::x87::fill(
            &mut self.random,
            &self.pool.extended,
            &mut fx.0,
            which >> 16,
        );
        for (index, pair) in fx.0[160..416].chunks_exact_mut(16).enumerate() {
            if which >> index & 1 == 0 {
                continue;
            }
            let choice = self.random.next();
            for (part, choice) in pair.chunks_exact_mut(8).zip([choice, choice >> 32]) {
                let value = match choice % 16 {
                    0 => self.random.float_bits(),
                    _ => self.pool.floats[(choice >> 4) as usize % FLOATS],
                };
                part.copy_from_slice(&value.to_le_bytes());
            }
        }
        // Mostly all is masked: code ends at an exception that is not. Flags are often clear, to be set.
        let masks = match self.random.below(16) {
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
        self.risky = self.random.one_in(3);
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
        // The code was made for pointers that are aligned as the first ones were.
        for (number, value) in case.r.iter_mut().enumerate() {
            if self.holds[number] == Holds::Pointer && !self.random.one_in(32) {
                *value = *value & !0xf | self.values[number] & 0xf;
            }
        }
        case.rflags = self.flags();
        let half = self.random.next() as u32;
        case.fx = self.vectors(case.fx, half);
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
        let kind = self.random.below(20);
        match kind {
            0 => data.at + 0x1000 - self.random.below(24),
            1..6 if self.risky => self.risky_pointer(kind),
            _ => data.at + 0x400 + self.random.below(0x1400),
        }
    }

    /// An address at which some accesses fault.
    fn risky_pointer(&mut self, kind: u64) -> u64 {
        let data = layout::DATA;
        match kind {
            1 => data.at + data.len as u64 - self.random.below(24),
            2 => layout::CONSTANT.at + self.random.below(4096),
            3 => layout::CONSTANT.at + 4096 - self.random.below(24),
            4 => data.at.wrapping_sub(self.random.below(24)),
            _ => 1 << 47 | self.random.next() >> 1,
        }
    }

    pub fn encodable(&mut self, form: Code) -> Instruction {
        loop {
            let instruction = self.instruction(form);
            if can_be_encoded(&instruction, &mut self.encoder) {
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
        let in_memory = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
        if info.can_use_lock_prefix() && in_memory && self.random.one_in(4) {
            instruction.set_has_lock_prefix(true);
        }
    }
}

/// Does it mostly fault? Users may not run it, or loads from memory what few bytes there are good for.
fn mostly_faults(form: Code) -> bool {
    use Mnemonic as M;
    let mnemonic = form.mnemonic();
    form.is_privileged()
        || matches!(
            mnemonic,
            M::Ud2 | M::Int3 | M::Ldmxcsr | M::Fxrstor | M::Fxrstor64
        )
}

/// Does it branch to where an operand says?
fn goes_anywhere(form: Code) -> bool {
    let indirect = matches!(form.mnemonic(), Mnemonic::Jmp | Mnemonic::Call);
    form.mnemonic() == Mnemonic::Ret || indirect && format!("{form:?}").contains("_rm")
}
