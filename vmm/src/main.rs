//! The command `lockstep`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockstep::main(lockstep::Program::plain())
}
