//! The registers and operands of SSE and MMX instructions, as types.

use crate::exception::{Exception, GP0, vector};
use crate::form::Form;
use crate::op::{Done, Op};
use crate::operand::{Imm, Mem, Src};
use crate::state::Cpu;

/// FSW.ES: an x87 exception waits to be delivered.
const PENDING: u16 = 1 << 7;
/// FSW.TOP.
const TOP: u16 = 7 << 11;

/// A set of registers.
pub trait Bank {
    /// Bytes of a register.
    const BYTES: u8;
    /// Refuses the instruction where the guest may not use them.
    fn enter(cpu: &mut Cpu) -> Done;
    /// After an instruction that used them.
    fn used(cpu: &mut Cpu);
    /// Reads a register.
    fn get(cpu: &Cpu, register: u8) -> u128;
    /// Writes one.
    fn set(cpu: &mut Cpu, register: u8, value: u128);
}

/// XMM registers.
#[derive(Debug)]
pub struct Xmm;
/// MMX registers, for those of their instructions that came with SSE.
#[derive(Debug)]
pub struct Mm;

impl Bank for Xmm {
    const BYTES: u8 = 16;

    #[inline(always)]
    fn enter(cpu: &mut Cpu) -> Done {
        cpu.may_use_sse()
    }

    #[inline(always)]
    fn used(_: &mut Cpu) {}

    #[inline(always)]
    fn get(cpu: &Cpu, register: u8) -> u128 {
        cpu.fpu.xmm[usize::from(register & 15)]
    }

    #[inline(always)]
    fn set(cpu: &mut Cpu, register: u8, value: u128) {
        cpu.fpu.xmm[usize::from(register & 15)] = value;
    }
}

impl Bank for Mm {
    const BYTES: u8 = 8;

    fn enter(cpu: &mut Cpu) -> Done {
        cpu.may_use_mmx()
    }

    fn used(cpu: &mut Cpu) {
        cpu.fpu.take_for_mmx();
    }

    fn get(cpu: &Cpu, register: u8) -> u128 {
        cpu.fpu.st[usize::from(register & 7)] & u128::from(u64::MAX)
    }

    fn set(cpu: &mut Cpu, register: u8, value: u128) {
        let low = value & u128::from(u64::MAX);
        cpu.fpu.st[usize::from(register & 7)] = 0xffff << 64 | low;
    }
}

/// What can be read of such an instruction's operands.
pub trait Source {
    /// At least the lowest `bytes` of it. Of memory 16 are to be aligned.
    fn wide<B: Bank>(cpu: &mut Cpu, op: &Op, bytes: u8) -> Done<u128>;
}

impl Source for Src {
    #[inline(always)]
    fn wide<B: Bank>(cpu: &mut Cpu, op: &Op, _: u8) -> Done<u128> {
        Ok(B::get(cpu, op.src))
    }
}

impl Source for Imm {
    #[inline(always)]
    fn wide<B: Bank>(_: &mut Cpu, op: &Op, _: u8) -> Done<u128> {
        Ok(u128::from(op.imm))
    }
}

impl Source for Mem {
    #[inline(always)]
    fn wide<B: Bank>(cpu: &mut Cpu, op: &Op, bytes: u8) -> Done<u128> {
        let address = cpu.address(op);
        match bytes {
            4 => cpu.load::<4>(address).map(u128::from),
            8 => cpu.load::<8>(address).map(u128::from),
            _ => {
                cpu.aligned(address)?;
                cpu.load128(address)
            }
        }
    }
}

impl Cpu {
    /// Refuses an operand of 16 bytes that does not lie on 16 bytes.
    #[inline(always)]
    pub fn aligned(&mut self, address: u64) -> Done {
        match address % 16 {
            0 => Ok(()),
            _ => self.except(GP0),
        }
    }

    /// Refuses MMX instructions where the guest has not turned them on, another task's registers are there,
    /// or an x87 exception waits.
    pub fn may_use_mmx(&mut self) -> Done {
        // CR0.EM.
        if self.control.cr0 & 1 << 2 != 0 {
            return self.except(crate::exception::UD);
        }
        self.may_use_x87()?;
        match self.fpu.fsw & PENDING {
            0 => Ok(()),
            _ => self.except(Exception::fault(vector::MF)),
        }
    }
}

impl crate::fpu::Fpu {
    /// An MMX instruction makes the x87 registers look full, and the first of them the top.
    pub fn take_for_mmx(&mut self) {
        self.fsw &= !TOP;
        self.full = 0xff;
    }
}

/// Is a register operand an MMX register?
pub fn on_mmx(form: &Form) -> bool {
    let instruction = form.instruction;
    (0..instruction.op_count()).any(|index| instruction.op_register(index).is_mm())
}

/// The expression with the registers and the source as types.
macro_rules! by_bank {
    ($form:expr, $B:ident, $R:ident => $body:expr) => {{
        use $crate::sse::operand::{Mm, Xmm, on_mmx};
        match (on_mmx($form), $form.memory()) {
            (false, false) => {
                type $B = Xmm;
                type $R = $crate::operand::Src;
                $body
            }
            (false, true) => {
                type $B = Xmm;
                type $R = $crate::operand::Mem;
                $body
            }
            (true, false) => {
                type $B = Mm;
                type $R = $crate::operand::Src;
                $body
            }
            (true, true) => {
                type $B = Mm;
                type $R = $crate::operand::Mem;
                $body
            }
        }
    }};
}
pub(crate) use by_bank;

/// The expression with the source, a register or memory, as a type.
macro_rules! by_source {
    ($form:expr, $R:ident => $body:expr) => {
        match $form.memory() {
            false => {
                type $R = $crate::operand::Src;
                $body
            }
            true => {
                type $R = $crate::operand::Mem;
                $body
            }
        }
    };
}
pub(crate) use by_source;
