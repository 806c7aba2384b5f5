//! In what the programs with this command line differ.

use clap::{ArgMatches, Command};
use lockstep_drill::Scenario;
use lockstep_ft::cuts::Cuts;

/// What a program adds to the command line.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Adds its options.
    pub extend: fn(Command) -> Command,
    /// What these options plant into the member that was asked for.
    pub cuts: fn(&ArgMatches) -> Cuts,
    /// Drills that need them.
    pub drills: &'static [Scenario],
}

impl Program {
    /// `lockstep`, which adds nothing.
    pub fn plain() -> Program {
        Program {
            extend: |command| command,
            cuts: |_| Cuts::default(),
            drills: &[],
        }
    }
}
