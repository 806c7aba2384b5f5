//! What an instruction becomes when it is decoded, and what its handler returns.

use crate::state::Cpu;

/// The register slot that always reads as zero: no base, no index.
pub const ZERO: u8 = 16;
/// Set in a register operand that is AH, CH, DH or BH; the rest is the number of AX, CX, DX or BX.
pub const HIGH: u8 = 0x20;

/// Runs one instruction.
pub type Handler = fn(&mut Cpu, &Op) -> Done<Flow>;

/// The instruction did not complete, and changed nothing but [`Cpu::stop`], which says why.
#[derive(Debug)]
pub struct Raised;

/// What a handler, and a function that it calls, returns.
pub type Done<T = ()> = Result<T, Raised>;

/// Where an instruction that completed leaves the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// At the next instruction of the block.
    Next,
    /// At [`Cpu::rip`], which it has set.
    Branch,
    /// The same, and what blocks were decoded for may have changed: mode, privilege, mapping.
    Leave,
}

/// A decoded instruction. Its operands are where the handler expects them, by the rules of `decode`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Op {
    /// What to do.
    pub run: Handler,
    /// Immediate, extended to 64 bits as the form says; a near branch's target.
    pub imm: u64,
    /// Displacement, with RIP already added where the operand is relative to it.
    pub disp: u64,
    /// Address of the next instruction.
    pub next: u64,
    /// First register operand.
    pub dst: u8,
    /// Second register operand.
    pub src: u8,
    /// Base register of the memory operand, or [`ZERO`].
    pub base: u8,
    /// Index register, or [`ZERO`].
    pub index: u8,
    /// How far the index is shifted.
    pub scale: u8,
    /// Bytes of the instruction.
    pub len: u8,
    /// What the address needs beyond base, index and displacement: 0, or bits of [`special`].
    pub special: u8,
    /// Bits of [`aux`].
    pub aux: u8,
}

/// Bits of [`Op::special`].
pub mod special {
    /// The segment register.
    pub const SEGMENT: u8 = 7;
    /// Its base is added.
    pub const BASED: u8 = 8;
    /// The address is cut to 32 bits before that.
    pub const ADDRESS32: u8 = 16;
    /// It is cut to 16 bits.
    pub const ADDRESS16: u8 = 32;
}

/// Bits of [`Op::aux`].
pub mod aux {
    /// The memory operand is relative to SS: an address that is not canonical is #SS, not #GP.
    pub const STACK: u8 = 0x80;
    /// REP or REPE.
    pub const REP: u8 = 0x40;
    /// REPNE.
    pub const REPNE: u8 = 0x20;
    /// MOV to SS, or POP SS: no single-step trap follows it.
    pub const QUIET: u8 = 0x10;
}

impl Op {
    /// Address of the instruction itself.
    pub fn rip(&self) -> u64 {
        self.next.wrapping_sub(u64::from(self.len))
    }
}

impl Cpu {
    /// The memory operand's linear address.
    #[inline(always)]
    pub fn address(&self, op: &Op) -> u64 {
        let index = self.r[usize::from(op.index & 31)] << (op.scale & 3);
        let address = self.r[usize::from(op.base & 31)]
            .wrapping_add(index)
            .wrapping_add(op.disp);
        match op.special {
            0 => address,
            special => self.special_address(address, special),
        }
    }

    /// The linear address so many bytes behind the memory operand's first, cut as that is.
    pub fn address_behind(&self, op: &Op, bytes: u64) -> u64 {
        self.address(&Op {
            disp: op.disp.wrapping_add(bytes),
            ..*op
        })
    }

    /// The memory operand's address within its segment, as LEA gives it.
    pub fn offset(&self, op: &Op) -> u64 {
        let index = self.r[usize::from(op.index & 31)] << (op.scale & 3);
        let address = self.r[usize::from(op.base & 31)]
            .wrapping_add(index)
            .wrapping_add(op.disp);
        cut(address, op.special)
    }

    #[cold]
    fn special_address(&self, address: u64, special: u8) -> u64 {
        let address = cut(address, special);
        match special & special::BASED {
            0 => address,
            _ => self.based(special & special::SEGMENT, address),
        }
    }

    /// A register that holds an address or a count, as the address size has it.
    #[inline(always)]
    pub fn pointer(&self, op: &Op, register: usize) -> u64 {
        cut(self.r[register], op.special)
    }

    /// Sets it, like any register of that size.
    #[inline(always)]
    pub fn set_pointer(&mut self, op: &Op, register: usize, value: u64) {
        let old = self.r[register];
        self.r[register] = match op.special & special::ADDRESS16 {
            0 => cut(value, op.special),
            _ => old & !0xffff | value & 0xffff,
        };
    }
}

/// An address, cut to the address size.
#[inline(always)]
fn cut(address: u64, special: u8) -> u64 {
    match special & (special::ADDRESS32 | special::ADDRESS16) {
        0 => address,
        special::ADDRESS32 => address & 0xffff_ffff,
        _ => address & 0xffff,
    }
}
