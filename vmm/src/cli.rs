//! The command line: `docs/operations.md`.

mod arbiter;
mod bench;
mod control;
mod cpus;
mod debug;
mod doctor;
mod error;
mod guest;
mod log;
mod member;
mod options;
mod pair;
mod replay;
mod role;
mod run;
mod status;
mod storage;
mod tools;

pub use error::{CliError, Status};

use crate::Program;
use clap::error::ErrorKind as Misuse;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ft_protocol::wire::Request;
use lockstep_ft::cuts::Cuts;
use lockstep_out as out;
use lockstep_signals as signals;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Keeps a VM alive when its host dies: a primary and a backup run it in lockstep.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a guest, unprotected; record it if asked to.
    Run(run::RunArgs),
    /// Run a recording again and check everything that the guest does.
    Replay(replay::ReplayArgs),
    /// Open a recording in gdb, which goes through it forwards and backwards.
    Debug(debug::DebugArgs),
    /// Run a guest as the primary of a pair.
    Primary(member::PrimaryArgs),
    /// Protect a primary: follow it, and go live if it dies.
    Backup(member::BackupArgs),
    /// Run half of a pair, as the arbiter says: a supervisor may restart it blindly on both hosts.
    Member(role::RoleArgs),
    /// Run both halves of a pair on this machine, as two processes.
    Pair(pair::PairArgs),
    /// End a VM cleanly, on both sides.
    Stop(control::ControlArgs),
    /// Hand a VM over to its backup, on purpose and without a timeout.
    Switchover(control::ControlArgs),
    /// Tell how the members on this host stand.
    Status(status::StatusArgs),
    /// Fail on purpose: real processes, a real client, a verdict.
    Drill(lockstep_drill::DrillArgs),
    /// Measure what this host can and cannot do.
    Doctor(doctor::DoctorArgs),
    /// Measure how fast this host runs guests.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Look into an arbiter, and mend it.
    #[command(subcommand)]
    Arbiter(arbiter::ArbiterCommand),
    /// Look into a recording.
    #[command(subcommand)]
    Log(log::LogCommand),
}

/// Wrong usage gives one sentence and status 2. A request for help is not an error, unless the help
/// cannot be printed.
fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print().and_then(|()| std::io::stdout().flush()) {
            // `lockstep --help | head` is not a failure.
            Err(e) if e.kind() != ErrorKind::BrokenPipe => failed(CliError::unprinted(&e)),
            Ok(()) | Err(_) => ExitCode::SUCCESS,
        };
    }
    if error.kind() == Misuse::DisplayHelpOnMissingArgumentOrSubcommand {
        let help = error.render();
        match std::io::stderr().is_terminal() {
            true => out::say(help.ansi().to_string().trim_end()),
            false => out::say(help.to_string().trim_end()),
        }
        return Status::Refused.into();
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let first: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    let sentence = first.join(" ");
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
    out::tell(format_args!("{sentence}; see --help"));
    Status::Refused.into()
}

/// Runs the command that the process was started with, as this program.
pub fn main(program: Program) -> ExitCode {
    out::abort_on_panic();
    out::end(run_command(program))
}

/// The command, and what is planted into the member that it runs.
fn parse(program: Program) -> Result<(Cli, Cuts), clap::Error> {
    let mut command = (program.extend)(Cli::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let cuts = (program.cuts)(&matches);
    let cli = Cli::from_arg_matches_mut(&mut matches);
    Ok((cli.map_err(|error| error.format(&mut command))?, cuts))
}

fn run_command(program: Program) -> ExitCode {
    let (cli, cuts) = match parse(program) {
        Ok(parsed) => parsed,
        Err(error) => return misused(&error),
    };
    if let Err(e) = signals::survive_file_limit() {
        return failed(CliError::failed(format!("cannot set up a signal ({e})")));
    }
    tracing_subscriber::fmt()
        .with_writer(out::Log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(
            EnvFilter::try_from_env("LOCKSTEP_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Debug(args) => debug::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Log(command) => log::run(command),
        Command::Arbiter(command) => arbiter::run(command),
        Command::Primary(args) => member::run_primary(args, cuts),
        Command::Backup(args) => member::run_backup(args, cuts),
        Command::Member(args) => role::run(args, cuts),
        Command::Stop(args) => control::run(&args, Request::Stop),
        Command::Switchover(args) => control::run(&args, Request::Switchover),
        Command::Status(args) => status::run(&args),
        Command::Pair(args) => return pair::run(args).unwrap_or_else(failed),
        Command::Drill(args) => drill(&args, program.drills),
    };
    done.map_or_else(failed, ExitCode::from)
}

/// A drill that was held and did not pass has said why.
fn drill(
    args: &lockstep_drill::DrillArgs,
    planting: &'static [lockstep_drill::Scenario],
) -> Result<Status, CliError> {
    Ok(match lockstep_drill::run(args, planting)? {
        true => Status::Done,
        false => Status::Failed,
    })
}

/// Reports the error, and returns its status.
fn failed(error: CliError) -> ExitCode {
    out::tell(&error);
    error.status.into()
}
