//! `lockstep log`: prints the contents of a recording.

use super::{CliError, Status};
use clap::{Args, Subcommand};
use ft_protocol::log::{Counts, Entry, Event, Header, LogError, LogStart, Position, Tail};
use lockstep_out as out;
use lockstep_replay::LogDir;
use lockstep_replay::words::{detail, kind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
        // `lockstep log show | head` is not a failure.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Status::Done),
        Err(Failure::Output(e)) => Err(CliError::unprinted(&e)),
        Err(Failure::Log(error)) => Err(error),
        Ok(()) => Ok(Status::Done),
    }
}

enum Failure {
    Log(CliError),
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
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

/// What a log holds, in sum.
struct Stat {
    header: Header,
    start: LogStart,
    entries: u64,
    /// Entries of each kind.
    counts: BTreeMap<&'static str, u64>,
    /// The last position.
    at: Position,
    guest_ns: u64,
    tail: String,
}

fn stat(args: &LogArgs) -> Result<(), Failure> {
    let stat = Stat::read(&args.dir)?;
    let out = &mut out::results();
    if args.json {
        writeln!(out, "{}", stat.json())?;
    } else {
        stat.tell(out)?;
    }
    Ok(out.flush()?)
}

impl Stat {
    fn read(dir: &Path) -> Result<Stat, Failure> {
        let mut log = LogDir::open(dir).log().map_err(Described)?;
        let (header, start) = (log.header().clone(), log.start());
        let mut stat = Stat {
            header,
            start,
            entries: 0,
            counts: BTreeMap::new(),
            at: start.at,
            guest_ns: 0,
            tail: String::new(),
        };
        while let Some((_, _, entry)) = log.next_with_offset().map_err(Described)? {
            stat.entries += 1;
            *stat.counts.entry(kind(&entry.event)).or_default() += 1;
            if let Event::Clock { ns } = entry.event {
                stat.guest_ns = ns;
            }
            stat.at = entry.at;
        }
        stat.tail = tail(log.tail());
        Ok(stat)
    }

    fn json(&self) -> Value {
        let (mut object, start) = (header_json(&self.header), self.start);
        object["start"] = json!({
            "seq": start.seq, "outputs": start.outputs, "at": start.at.exit, "edges": start.at.edges,
        });
        object["entries"] = json!(self.entries);
        object["positions"] = json!(self.at.exit);
        object["edges"] = json!(self.at.edges);
        object["guest_ns"] = json!(self.guest_ns);
        object["kinds"] = json!(self.counts);
        object["tail"] = json!(self.tail);
        object
    }

    fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        let (header, start) = (&self.header, self.start);
        let (m, guest) = (&header.machine, &header.guest);
        writeln!(out, "vm         {}", header.vm)?;
        writeln!(out, "guest      {} (hash {:032x})", guest.name, guest.hash)?;
        let (mem, quantum, seed) = (m.mem_mib, m.quantum, m.seed);
        let counted = match m.counts {
            Counts::BranchEdges => "edges",
            Counts::Instructions => "instructions",
        };
        writeln!(
            out,
            "machine    {mem} MiB, quantum {quantum} {counted}, seed {seed:016x}"
        )?;
        if let Some(net) = m.net() {
            let ([a, b, c, d], len, mac) = (net.ip, net.prefix_len, mac_text(net.mac));
            writeln!(out, "network    {a}.{b}.{c}.{d}/{len}, MAC {mac}")?;
        }
        let (cpu, exits) = (&header.host.cpu, header.host.exits);
        writeln!(out, "host       {cpu}, exit fingerprint {exits:016x}")?;
        if start != LogStart::default() {
            let LogStart { seq, outputs, at } = start;
            writeln!(
                out,
                "begins     at position {at}, after entry {seq} and output {outputs}"
            )?;
        }
        writeln!(
            out,
            "positions  {}, {counted} {}",
            self.at.exit, self.at.edges
        )?;
        let (s, ns) = (self.guest_ns / 1_000_000_000, self.guest_ns % 1_000_000_000);
        writeln!(out, "guest time {s}.{ns:09} s")?;
        writeln!(out, "entries    {}", self.entries)?;
        for (kind, count) in &self.counts {
            writeln!(out, "  {kind:<14} {count}")?;
        }
        writeln!(out, "tail       {}", self.tail)
    }
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
