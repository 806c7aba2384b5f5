//! Operands, as types: a handler that is generic over them is compiled for each combination.
//!
//! `decode` puts them where these types look: [`Dst`] is the first register operand, [`Src`] the second,
//! [`Mem`] the memory operand, [`Imm`] the immediate.

use crate::memory::Place;
use crate::op::{Done, Op};
use crate::state::{Cpu, mask};

/// What can be read.
pub trait Value {
    /// Is it part of the instruction?
    const FIXED: bool = false;
    /// Reads `S` bytes of it.
    fn read<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<u64>;
}

/// What can also be written.
pub trait Target: Value {
    /// Is it a register?
    const REGISTER: bool;
    /// Where it is.
    type Place: Copy;
    /// Writes `S` bytes without reading them.
    fn write<const S: u8>(cpu: &mut Cpu, op: &Op, value: u64) -> Done;
    /// Finds it, to be read and written; a fault is a write's.
    fn open<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Self::Place>;
    /// What is there.
    fn peek<const S: u8>(cpu: &Cpu, place: Self::Place) -> u64;
    /// Writes there, which does not fail.
    fn poke<const S: u8>(cpu: &mut Cpu, place: Self::Place, value: u64);
}

/// The first register operand.
#[derive(Debug)]
pub struct Dst;
/// The second one.
#[derive(Debug)]
pub struct Src;
/// The memory operand.
#[derive(Debug)]
pub struct Mem;
/// The immediate.
#[derive(Debug)]
pub struct Imm;
/// CL.
#[derive(Debug)]
pub struct Cl;

impl Value for Imm {
    const FIXED: bool = true;

    #[inline(always)]
    fn read<const S: u8>(_: &mut Cpu, op: &Op) -> Done<u64> {
        Ok(mask::<S>(op.imm))
    }
}

impl Value for Cl {
    #[inline(always)]
    fn read<const S: u8>(cpu: &mut Cpu, _: &Op) -> Done<u64> {
        Ok(cpu.r[crate::state::gpr::CX] & 0xff)
    }
}

impl Value for Mem {
    #[inline(always)]
    fn read<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
        let address = cpu.address(op);
        cpu.load::<S>(address)
    }
}

impl Target for Mem {
    const REGISTER: bool = false;
    type Place = Place;

    #[inline(always)]
    fn write<const S: u8>(cpu: &mut Cpu, op: &Op, value: u64) -> Done {
        let address = cpu.address(op);
        cpu.store::<S>(address, value)
    }

    #[inline(always)]
    fn open<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Place> {
        let address = cpu.address(op);
        cpu.open::<S>(address)
    }

    #[inline(always)]
    fn peek<const S: u8>(cpu: &Cpu, place: Place) -> u64 {
        cpu.peek::<S>(place)
    }

    #[inline(always)]
    fn poke<const S: u8>(cpu: &mut Cpu, place: Place, value: u64) {
        cpu.poke::<S>(place, value);
    }
}

macro_rules! register {
    ($operand:ty, $field:ident) => {
        impl Value for $operand {
            #[inline(always)]
            fn read<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
                Ok(cpu.get::<S>(op.$field))
            }
        }

        impl Target for $operand {
            const REGISTER: bool = true;
            type Place = u8;

            #[inline(always)]
            fn write<const S: u8>(cpu: &mut Cpu, op: &Op, value: u64) -> Done {
                cpu.set::<S>(op.$field, value);
                Ok(())
            }

            #[inline(always)]
            fn open<const S: u8>(_: &mut Cpu, op: &Op) -> Done<u8> {
                Ok(op.$field)
            }

            #[inline(always)]
            fn peek<const S: u8>(cpu: &Cpu, place: u8) -> u64 {
                cpu.get::<S>(place)
            }

            #[inline(always)]
            fn poke<const S: u8>(cpu: &mut Cpu, place: u8, value: u64) {
                cpu.set::<S>(place, value);
            }
        }
    };
}
register!(Dst, dst);
register!(Src, src);

/// Which operands a form has, without an immediate that only some handlers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Two registers.
    RegReg,
    /// A register and memory.
    RegMem,
    /// Memory and a register.
    MemReg,
    /// A register and an immediate.
    RegImm,
    /// Memory and an immediate.
    MemImm,
}

/// The expression with `$size` as a constant.
macro_rules! by_size {
    ($size:expr, $S:ident => $body:expr) => {
        match $size {
            1 => {
                const $S: u8 = 1;
                $body
            }
            wide => $crate::operand::by_wide_size!(wide, $S => $body),
        }
    };
}
pub(crate) use by_size;

/// The same without single bytes.
macro_rules! by_wide_size {
    ($size:expr, $S:ident => $body:expr) => {
        match $size {
            2 => {
                const $S: u8 = 2;
                $body
            }
            4 => {
                const $S: u8 = 4;
                $body
            }
            8 => {
                const $S: u8 = 8;
                $body
            }
            other => unreachable!("an operand of {other} bytes"),
        }
    };
}
pub(crate) use by_wide_size;

/// The expression with the operands of `$shape` as types.
macro_rules! by_shape {
    ($shape:expr, $D:ident, $R:ident => $body:expr) => {
        match $shape {
            $crate::operand::Shape::RegReg => {
                type $D = $crate::operand::Dst;
                type $R = $crate::operand::Src;
                $body
            }
            $crate::operand::Shape::RegMem => {
                type $D = $crate::operand::Dst;
                type $R = $crate::operand::Mem;
                $body
            }
            $crate::operand::Shape::MemReg => {
                type $D = $crate::operand::Mem;
                type $R = $crate::operand::Src;
                $body
            }
            $crate::operand::Shape::RegImm => {
                type $D = $crate::operand::Dst;
                type $R = $crate::operand::Imm;
                $body
            }
            $crate::operand::Shape::MemImm => {
                type $D = $crate::operand::Mem;
                type $R = $crate::operand::Imm;
                $body
            }
        }
    };
}
pub(crate) use by_shape;

/// The expression with the one operand as a type: the first register or memory.
macro_rules! by_target {
    ($memory:expr, $D:ident => $body:expr) => {
        match $memory {
            false => {
                type $D = $crate::operand::Dst;
                $body
            }
            true => {
                type $D = $crate::operand::Mem;
                $body
            }
        }
    };
}
pub(crate) use by_target;
