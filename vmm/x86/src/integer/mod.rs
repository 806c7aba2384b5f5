//! Integer instructions that do not branch.

pub mod alu;
pub mod bits;
pub mod decimal;
pub mod moves;
pub mod muldiv;
pub mod shift;
