//! Integer instructions that go on to the next one.

pub mod alu;
pub mod bits;
pub mod decimal;
pub mod moves;
pub mod muldiv;
pub mod shift;
