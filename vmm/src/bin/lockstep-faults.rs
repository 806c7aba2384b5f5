//! The command `lockstep`, whose members can have faults planted, and the drills that plant them. Members
//! of either program make a pair. Not for production.

use clap::{Arg, ArgMatches, Command, value_parser};
use lockstep::Program;
use lockstep_faults::Cut;
use lockstep_ft::cuts::Cuts;
use std::process::ExitCode;

/// The commands that run a member.
const MEMBERS: [&str; 3] = ["primary", "backup", "member"];
const CUT: &str = "cut";

fn main() -> ExitCode {
    lockstep::main(Program {
        extend,
        cuts,
        drills: &lockstep_drill::PLANTING,
    })
}

fn extend(command: Command) -> Command {
    let cut = Arg::new(CUT)
        .long(CUT)
        .value_name("POINT[:N]")
        .value_parser(value_parser!(Cut))
        .help("Kill this member at a step of the protocol, or plant another fault there");
    MEMBERS.into_iter().fold(command, |command, member| {
        command.mut_subcommand(member, |member| member.arg(cut.clone()))
    })
}

fn cuts(matches: &ArgMatches) -> Cuts {
    let member = matches.subcommand().map(|(_, member)| member);
    // Other commands do not know the option.
    let cut = member.and_then(|member| member.try_get_one::<Cut>(CUT).ok().flatten());
    cut.map_or_else(Cuts::default, |cut| cut.plant())
}
