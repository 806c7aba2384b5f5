//! x87 instructions.
//!
//! Arithmetic, comparison and conversion run on the host's own unit under the guest's control word, in
//! [`host`]. The stack, with its faults, is kept here.
//!
//! # The last instruction
//! Each x87 instruction but those for control leaves its address as the last one's. Opcode and operand's
//! address are those of the last instruction that raised an exception which is not masked. Selectors are
//! zero. Intel's processors of today do it so.
//!
//! # What differs from one processor to the next, and what this one does
//! - F2XM1, FCOS, FPATAN, FPTAN, FSIN, FSINCOS, FYL2X and FYL2XP1 are computed in software, to less than 0.51
//!   units in the last place: see [`transcendental`].
//! - FPREM and FPREM1 do as much in one instruction as Intel's do: see [`remainder`].
//! - An exception that is pending while CR0.NE is clear stops the machine at the next instruction that waits:
//!   it would interrupt by a wire that this machine does not have.

mod arithmetic;
mod compare;
mod control;
pub mod forms;
mod functions;
mod host;
mod load;
mod memory;
mod number;
mod remainder;
mod round;
mod stack;
mod store;
#[cfg(test)]
mod tests;
mod transcendental;
mod wide;
