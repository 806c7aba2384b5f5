//! Operands in memory.

use crate::form::Form;
use crate::op::{Done, Op};
use crate::state::Cpu;
use iced_x86::MemorySize;

/// An operand in memory that arithmetic takes.
pub trait Source {
    /// Where its operations stand in a table.
    const NUMBER: usize;
    /// Reads it.
    fn load(cpu: &mut Cpu, op: &Op) -> Done<u64>;
}

macro_rules! sources {
    ($($name:ident $number:literal $size:literal)*) => {$(
        /// A number in memory.
        #[derive(Debug)]
        pub struct $name;
        impl Source for $name {
            const NUMBER: usize = $number;
            fn load(cpu: &mut Cpu, op: &Op) -> Done<u64> {
                let address = cpu.address(op);
                cpu.load::<$size>(address)
            }
        }
    )*};
}
sources! {
    F32 0 4
    F64 1 8
    I16 2 2
    I32 3 4
}

/// Which number it is in memory.
pub fn kind(form: &Form) -> MemorySize {
    form.instruction.memory_size()
}

/// The expression with the operand in memory as a type.
macro_rules! by_source {
    ($form:expr, $S:ident => $body:expr) => {
        match $crate::x87::memory::kind($form) {
            iced_x86::MemorySize::Float32 => {
                type $S = F32;
                $body
            }
            iced_x86::MemorySize::Float64 => {
                type $S = F64;
                $body
            }
            iced_x86::MemorySize::Int16 => {
                type $S = I16;
                $body
            }
            iced_x86::MemorySize::Int32 => {
                type $S = I32;
                $body
            }
            other => unreachable!("{other:?} is no operand of arithmetic"),
        }
    };
}
pub(crate) use by_source;
