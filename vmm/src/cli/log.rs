//! `lockstep log`: prints the contents of a recording.

use super::{CliError, Status};
use clap::{Args, Subcommand};
use ft_protocol::log::{Control, EndReason, Entry, Event, Header, LogError, LogStart, Tail};
use lockstep_out as out;
use lockstep_replay::LogDir;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Subcommands of `log`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// What it was made of, and how much of what it holds.
    Stat(LogArgs),
    /// Every entry, a line each.
    Show(LogArgs),
}

/// Arguments of every subcommand.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// The directory that was given to --record.
    dir: PathBuf,
    /// JSON on standard output: one object (stat), one object a line (show).
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(command: LogCommand) -> Result<Status, CliError> {
    let done = match command {
        LogCommand::Stat(args) => stat(&args),
        LogCommand::Show(args) => show(&args),
    };
    match done {
        // `lockstep log show | head` is no failure.
        Err(Failure::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(Status::Done),
        Err(Failure::Output(e)) => Err(CliError::unprinted(&e)),
        Err(Failure::Log(error)) => Err(error),
        Ok(()) => Ok(Status::Done),
    }
}

enum Failure {
    Log(CliError),
    Output(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl<E: Into<CliError>> From<Described<E>> for Failure {
    fn from(error: Described<E>) -> Failure {
        Failure::Log(error.0.into())
    }
}

/// Distinguishes errors of the log from those of standard output.
struct Described<E>(E);

impl From<LogError> for CliError {
    fn from(error: LogError) -> CliError {
        CliError::with(super::error::log_status(&error), error)
    }
}

fn stat(args: &LogArgs) -> Result<(), Failure> {
    let mut log = LogDir::open(&args.dir).log().map_err(Described)?;
    let (header, start) = (log.header().clone(), log.start());
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut entries, mut last, mut guest_ns) = (0u64, None, 0);
    while let Some((_, _, entry)) = log.next_with_offset().map_err(Described)? {
        entries += 1;
        *counts.entry(kind(&entry.event)).or_default() += 1;
        if let Event::Clock { ns } = entry.event {
            guest_ns = ns;
        }
        last = Some(entry);
    }
    let positions = last.as_ref().map_or(start.at, |entry| entry.at);
    let tail = tail(log.tail());
    let out = &mut out::results();
    if args.json {
        let mut object = header_json(&header);
        object["start"] = json!({
            "seq": start.seq, "outputs": start.outputs, "at": start.at.exit, "edges": start.at.edges,
        });
        object["entries"] = json!(entries);
        object["positions"] = json!(positions.exit);
        object["edges"] = json!(positions.edges);
        object["guest_ns"] = json!(guest_ns);
        object["kinds"] = json!(counts);
        object["tail"] = json!(tail);
        writeln!(out, "{object}")?;
        return Ok(out.flush()?);
    }
    let m = &header.machine;
    writeln!(out, "vm         {}", header.vm)?;
    writeln!(
        out,
        "guest      {} (hash {:032x})",
        header.guest.name, header.guest.hash
    )?;
    writeln!(
        out,
        "machine    {} MiB, quantum {} edges, seed {:016x}",
        m.mem_mib, m.quantum, m.seed
    )?;
    if let Some(net) = m.net() {
        let [a, b, c, d] = net.ip;
        writeln!(
            out,
            "network    {a}.{b}.{c}.{d}/{}, MAC {}",
            net.prefix_len,
            mac_text(net.mac)
        )?;
    }
    writeln!(
        out,
        "host       {}, exit fingerprint {:016x}",
        header.host.cpu, header.host.exits
    )?;
    if start != LogStart::default() {
        writeln!(
            out,
            "begins     at position {}, after entry {} and output {}",
            start.at, start.seq, start.outputs
        )?;
    }
    writeln!(
        out,
        "positions  {}, edges {}",
        positions.exit, positions.edges
    )?;
    writeln!(
        out,
        "guest time {}.{:09} s",
        guest_ns / 1_000_000_000,
        guest_ns % 1_000_000_000
    )?;
    writeln!(out, "entries    {entries}")?;
    for (kind, count) in counts {
        writeln!(out, "  {kind:<14} {count}")?;
    }
    writeln!(out, "tail       {tail}")?;
    Ok(out.flush()?)
}

fn header_json(header: &Header) -> Value {
    let m = &header.machine;
    json!({
        "vm": header.vm,
        "guest": header.guest.name,
        "guest_hash": format!("{:032x}", header.guest.hash),
        "mem_mib": m.mem_mib,
        "quantum": m.quantum,
        "mac": m.net().map(|net| mac_text(net.mac)),
        "cpu": header.host.cpu,
        "exit_fingerprint": format!("{:016x}", header.host.exits),
        "started_ns": header.started_ns,
    })
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn tail(tail: Tail) -> String {
    match tail {
        Tail::Ended => "ended".into(),
        Tail::Open => "cut: no end entry".into(),
        Tail::Cut { offset } => format!("cut at byte {offset}"),
    }
}

fn show(args: &LogArgs) -> Result<(), Failure> {
    let mut log = LogDir::open(&args.dir).log().map_err(Described)?;
    let mut out = out::results();
    while let Some((seq, offset, entry)) = log.next_with_offset().map_err(Described)? {
        let Entry { at, check, event } = &entry;
        let (kind, detail) = (kind(event), detail(event));
        if args.json {
            let check = check.map(|c| json!({"rip": c.rip, "regs": c.regs}));
            let line = json!({
                "seq": seq, "offset": offset, "at": at.exit, "edges": at.edges, "kind": kind, "detail": detail,
                "check": check,
            });
            writeln!(out, "{line}")?;
        } else {
            let at = at.to_string();
            let rip = check.map_or("-".into(), |c| format!("{:#x}", c.rip));
            writeln!(out, "{seq:>8} @{at:<22} {kind:<14} {detail}  [{rip}]")?;
        }
    }
    if !args.json {
        writeln!(out, "{}", tail(log.tail()))?;
    }
    out.flush()?;
    Ok(())
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Clock { .. } => "clock",
        Event::Frame { .. } => "frame",
        Event::ConsoleInput { .. } => "console-input",
        Event::Entropy { .. } => "entropy",
        Event::Time { .. } => "time",
        Event::Output(_) => "output",
        Event::Interrupt { .. } => "interrupt",
        Event::Progress => "progress",
        Event::Digest(_) => "digest",
        Event::Control(_) => "control",
        Event::End(_) => "end",
    }
}

fn detail(event: &Event) -> String {
    match event {
        Event::Clock { ns } | Event::Time { ns } => format!("{ns} ns"),
        Event::Frame { data } | Event::ConsoleInput { data } | Event::Entropy { data } => {
            format!("{} bytes", data.len())
        }
        Event::Output(mark) => format!(
            "#{} {:?} {} bytes, hash {:016x}",
            mark.number, mark.port, mark.len, mark.hash
        ),
        Event::Interrupt { vector } => format!("vector {vector:#x}"),
        Event::Progress => "nothing before".into(),
        Event::Digest(digest) => digest.to_string(),
        Event::Control(Control::GoLive { generation }) => {
            format!("went live in generation {generation}")
        }
        Event::End(end) => match end.reason {
            EndReason::Exited { status } => format!("status {status}, digest {}", end.digest),
            EndReason::Dead => format!("guest died, digest {}", end.digest),
            EndReason::Stopped => format!("stopped, digest {}", end.digest),
        },
    }
}
