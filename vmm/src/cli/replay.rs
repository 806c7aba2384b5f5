//! `lockstep replay`: runs a recording again and compares everything.

use super::cpus::CpuChoice;
use super::{CliError, Status};
use clap::Args;
use ft_protocol::log::{Counts, EndReason, Header, HostPrint, LogError, LogStart, Position, Tail};
use lockstep_backends::console::{ConsoleChoice, ConsoleOutput, Hurry};
use lockstep_backends::live::Direct;
use lockstep_debug::{Ending, MOST_BYTES, Session};
use lockstep_machine::drive::drive;
use lockstep_machine::{DriveError, Machine, Parts, suits};
use lockstep_out as out;
use lockstep_replay::dir::LogFile;
use lockstep_replay::follow::Followed;
use lockstep_replay::{Checkpoint, FollowError, Follower, LogDir};
use lockstep_vcpu::CpuBackend;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Arguments of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The directory that was given to --record.
    pub dir: PathBuf,
    /// The CPU: this host's KVM, the one in software, or of the kind that recorded it, if that can be used.
    #[arg(long, value_name = "kvm|soft|auto", value_enum, default_value = "auto")]
    pub cpu: CpuChoice,
    /// Stop at this exit; with COUNT, in the computation that follows, where the machine has counted so much.
    #[arg(long, value_name = "EXIT[:COUNT]", conflicts_with = "gdb")]
    until: Option<Until>,
    /// Let gdb debug the recording, forwards and backwards: it connects to this address, or is at standard
    /// input and output (-).
    #[arg(long, value_name = "ADDR|-")]
    pub gdb: Option<String>,
    /// Memory for gdb's way back, MiB: with more of it, long ways back take less time.
    #[arg(long, value_name = "MIB", default_value_t = (MOST_BYTES >> 20) as u64, requires = "gdb")]
    pub gdb_memory: u64,
    /// Do not print what the guest printed: check it and give the verdict on standard output.
    #[arg(long, conflicts_with = "gdb")]
    verify: bool,
    /// Give the verdict as one JSON object on standard output, and nothing else there.
    #[arg(long, conflicts_with = "gdb")]
    json: bool,
}

/// The result of a replay.
struct Verdict {
    start: LogStart,
    position: Position,
    followed: Followed,
    tail: Option<Tail>,
    /// The digests of the machine's parts where it stopped.
    parts: Option<Parts>,
}

/// Runs it.
pub fn run(args: ReplayArgs) -> Result<Status, CliError> {
    if let Some(at) = &args.gdb {
        return super::debug::serve(&args, at);
    }
    if let Some(Until {
        exit,
        count: Some(count),
    }) = args.until
    {
        return inside(&args, exit, count);
    }
    let until = args.until.map(|until| until.exit);
    let Opened {
        log,
        start,
        mut machine,
        ..
    } = open(&args.dir, args.cpu, until)?;
    let quiet = args.verify || args.json;
    let direct = console(quiet)?;
    let mut follower = Follower::new(log, direct, until).after_outputs(start.outputs);
    let driven = drive(&mut machine, &mut follower);
    let position = machine.position();
    let followed = follower.followed();
    let (mut log, _) = follower.into_parts();
    // Nothing may follow the end; the reader reports it otherwise.
    let driven = driven.and_then(|driven| match followed.end {
        Some(_) => match log.next_with_offset() {
            Ok(_) => Ok(driven),
            Err(error) => Err(DriveError::Edge(FollowError::Log(error))),
        },
        None => Ok(driven),
    });
    if let Err(error) = driven {
        let diverged = matches!(error, DriveError::Edge(FollowError::Diverged(_)));
        let parts = diverged.then(|| machine.parts()).transpose()?;
        return Err(explain(error, position, parts, &args));
    }
    let verdict = Verdict {
        start,
        position,
        followed,
        tail: until.is_none_or(|u| position.exit < u).then(|| log.tail()),
        parts: until.map(|_| machine.parts()).transpose()?,
    };
    print(verdict, &args, quiet).map_err(|e| CliError::unprinted(&e))?;
    Ok(Status::Done)
}

/// Where the guest's text goes: to standard output, unless that is for the verdict.
pub fn console(quiet: bool) -> Result<Direct, CliError> {
    let console = match quiet {
        true => ConsoleChoice::None,
        false => ConsoleChoice::Stdio,
    };
    let console = ConsoleOutput::open(&console)
        .map_err(|e| CliError::failed(format!("cannot write to standard output ({e})")))?;
    let hurry =
        Hurry::new().map_err(|e| CliError::failed(format!("cannot make an eventfd ({e})")))?;
    Ok(Direct::new(None, console, hurry))
}

/// Stops between two exits, which only the software CPU can do exactly.
fn inside(args: &ReplayArgs, exit: u64, count: u64) -> Result<Status, CliError> {
    if args.cpu == CpuChoice::Kvm {
        return Err(CliError::refused(
            "KVM cannot stop between two exits: leave --cpu out, or give --until an exit alone",
        ));
    }
    let opened = open(&args.dir, CpuChoice::Soft, Some(exit))?;
    let start = opened.start;
    let quiet = args.verify || args.json;
    let outlet = Box::new(console(quiet)?);
    let Opened {
        log,
        backend,
        machine,
        ..
    } = opened;
    let mut session = Session::new(backend, log, machine, outlet, MOST_BYTES)?;
    session.seek_position(exit, Some(count), &mut || false)?;
    let parts = Some(session.parts()?);
    if let Some(Ending::Broken { why, diverged }) = session.ended() {
        let status = match diverged {
            true => Status::Diverged,
            false => Status::Failed,
        };
        return Err(fail(status, why.clone(), session.position(), parts, args));
    }
    let verdict = Verdict {
        start,
        position: session.position(),
        followed: session.followed(),
        tail: session.ended().and_then(|ending| match ending {
            Ending::Cut => Some(Tail::Open),
            Ending::Ended(_) | Ending::Broken { .. } => None,
        }),
        parts,
    };
    print(verdict, args, quiet).map_err(|e| CliError::unprinted(&e))?;
    Ok(Status::Done)
}

/// `--until`.
#[derive(Clone, Copy, Debug)]
struct Until {
    exit: u64,
    count: Option<u64>,
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Until, String> {
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("`{text}` is no number"))
        };
        let (exit, count) = match text.split_once(':') {
            Some((exit, count)) => (exit, Some(number(count)?)),
            None => (text, None),
        };
        Ok(Until {
            exit: number(exit)?,
            count,
        })
    }
}

/// A recording, and the machine with which it begins.
pub struct Opened {
    pub log: LogFile,
    pub start: LogStart,
    pub backend: &'static dyn CpuBackend,
    pub machine: Machine,
}

/// Opens a recording that is to be replayed on this CPU, up to exit `until`.
pub fn open(dir: &Path, cpu: CpuChoice, until: Option<u64>) -> Result<Opened, CliError> {
    let dir = LogDir::open(dir);
    let log = dir.log()?;
    let header = log.header().clone();
    if let Some(why) = header.machine.refusal("the log's machine") {
        return Err(CliError::refused(why));
    }
    let (backend, host) = cpu.replaying(&header)?;
    check_host(&header, &host)?;
    let image = dir.image(&header)?;
    suits(backend, &header.machine, &image)?;
    let start = log.start();
    let checkpoint = dir.checkpoint(&log)?;
    let first = start.at.exit + u64::from(checkpoint.as_ref().is_some_and(Checkpoint::left));
    if let Some(until) = until.filter(|until| *until < first) {
        return Err(CliError::refused(format!(
            "this recording begins at position {}, after exit {until}; choose --until from {first} on",
            start.at
        )));
    }
    let machine = match checkpoint {
        Some(checkpoint) => checkpoint.restore(backend, &header.machine)?,
        None => Machine::new(backend, &header.machine, &image)?,
    };
    Ok(Opened {
        log,
        start,
        backend,
        machine,
    })
}

/// Positions that the guest counts mean the same only where the fingerprint is the same; those that the
/// software CPU counts mean the same on every host.
fn check_host(header: &Header, host: &HostPrint) -> Result<(), CliError> {
    if header.machine.counts == Counts::Instructions {
        return Ok(());
    }
    if host.exits != header.host.exits {
        return Err(CliError::refused(format!(
            "the CPU here makes other exits than the one that the log was recorded on (fingerprint {:016x}, the log's {:016x}); replay it on a host of that kind, with the version of lockstep that recorded it",
            host.exits, header.host.exits
        )));
    }
    if host.cpu != header.host.cpu {
        tracing::warn!(
            "recorded on another CPU ({}, here {})",
            header.host.cpu,
            host.cpu
        );
    }
    Ok(())
}

fn explain(
    error: DriveError<FollowError>,
    position: Position,
    parts: Option<Parts>,
    args: &ReplayArgs,
) -> CliError {
    let what = match &error {
        DriveError::Edge(FollowError::Log(LogError::Damaged { .. })) => {
            format!("the replay stopped after position {position}: {error}")
        }
        _ => error.to_string(),
    };
    fail(CliError::from(error).status, what, position, parts, args)
}

/// The error, when its verdict is printed.
fn fail(
    status: Status,
    what: String,
    position: Position,
    parts: Option<Parts>,
    args: &ReplayArgs,
) -> CliError {
    let printed = if args.json {
        let diverged = status == Status::Diverged;
        let verdict = json!({"ok": false, "position": position.exit, "edges": position.edges, "diverged": diverged, "error": what});
        out::print(with_parts(verdict, parts))
    } else {
        parts.map_or(Ok(()), |parts| tell(&parts, args.verify))
    };
    match printed {
        Ok(()) => CliError::with(status, what),
        // The status still gives the verdict.
        Err(e) => CliError::with(
            status,
            format!("{what}; and it {}", CliError::unprinted(&e)),
        ),
    }
}

/// Prints to standard output if the verdict belongs there, else to standard error.
fn tell(text: &dyn Display, is_result: bool) -> io::Result<()> {
    match is_result {
        true => out::print(text),
        false => {
            out::say(text);
            Ok(())
        }
    }
}

/// The verdict, with the digests of the machine's parts if there are any.
fn with_parts(mut verdict: Value, parts: Option<Parts>) -> Value {
    if let Some(parts) = parts {
        verdict["parts"] = json!(parts);
    }
    verdict
}

fn print(verdict: Verdict, args: &ReplayArgs, quiet: bool) -> io::Result<()> {
    let f = &verdict.followed;
    let ending = ending(&verdict);
    if args.json {
        let digest = f.end.map(|end| end.digest.to_string());
        let told = json!({
            "ok": true,
            "from": verdict.start.at.exit,
            "position": verdict.position.exit,
            "edges": verdict.position.edges,
            "entries": f.entries,
            "outputs": f.outputs_checked,
            "interrupts": f.interrupts,
            "digests": f.digests,
            "go_lives": f.go_lives,
            "cut": matches!(verdict.tail, Some(Tail::Open | Tail::Cut { .. })),
            "end": ending,
            "digest": digest,
        });
        return out::print(with_parts(told, verdict.parts));
    }
    let from = match verdict.start {
        start if start == LogStart::default() => String::new(),
        start => format!(" from position {}", start.at),
    };
    let text = format!(
        "replayed {} entries{from} to position {}: {} outputs, {} interrupts and {} digests equal; {ending}",
        f.entries, verdict.position, f.outputs_checked, f.interrupts, f.digests
    );
    match quiet {
        true => out::print(text),
        false => tell(&format_args!("lockstep: {text}"), false),
    }
}

fn ending(verdict: &Verdict) -> String {
    match (verdict.followed.end, verdict.tail) {
        (Some(end), _) => {
            let how = match end.reason {
                EndReason::Exited { status } => format!("the guest ended with status {status}"),
                EndReason::Dead => "the guest died".into(),
                EndReason::Stopped => "the machine was stopped".into(),
                EndReason::Reset => "the guest reset its machine".into(),
            };
            format!("{how}, digest {}", end.digest)
        }
        (None, None) => "stopped there as asked".into(),
        (None, Some(Tail::Cut { offset })) => format!("the log was cut at byte {offset}"),
        (None, Some(_)) => "the log was cut: it has no end entry".into(),
    }
}
