//! The command line, for the programs that have it: `lockstep`, and `lockstep-faults`, which plants faults
//! for tests and drills.

mod cli;
mod program;

pub use cli::main;
pub use program::Program;
