//! `lockstep log`: prints the contents of a recording.

mod diff;
mod export;
mod link;

use super::{CliError, Status};
use clap::{Args, Subcommand};
use ft_protocol::log::{Counts, Entry, Event, Header, LogError, LogStart, Position, Tail};
use link::{Holds, Link};
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
    Stat(StatArgs),
    /// Every entry, a line each.
    Show(LogArgs),
    /// Where two recordings part, in words.
    Diff(diff::DiffArgs),
    /// For other tools: JSON, a timeline, the guest's frames.
    Export(export::ExportArgs),
}

/// Arguments of `log stat`.
#[derive(Args, Debug)]
pub struct StatArgs {
    #[command(flatten)]
    log: LogArgs,
    /// How long outputs would wait for a backup behind a link with this delay in one direction, milliseconds,
    /// and this rate, Mbit/s.
    #[arg(long, value_name = "MS,MBIT")]
    link: Option<Link>,
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
        LogCommand::Stat(args) => stat(&args).map(|()| Status::Done),
        LogCommand::Show(args) => show(&args).map(|()| Status::Done),
        LogCommand::Diff(args) => diff::run(&args),
        LogCommand::Export(args) => export::run(&args),
    };
    match done {
        // `lockstep log show | head` is not a failure.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Status::Done),
        Err(Failure::Output(e)) => Err(CliError::unprinted(&e)),
        Err(Failure::Log(error)) => Err(error),
        Ok(status) => Ok(status),
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
    /// Entries of each kind, and their bytes in the file.
    counts: BTreeMap<&'static str, (u64, u64)>,
    bytes: u64,
    /// How long outputs would wait: median, 99 of 100, longest; milliseconds.
    holds: Option<[f64; 3]>,
    /// The last position.
    at: Position,
    guest_ns: u64,
    tail: String,
}

fn stat(args: &StatArgs) -> Result<(), Failure> {
    let (args, link) = (&args.log, args.link);
    let stat = Stat::read(&args.dir, link)?;
    let out = &mut out::results();
    if args.json {
        writeln!(out, "{}", stat.json())?;
    } else {
        stat.tell(out)?;
    }
    Ok(out.flush()?)
}

impl Stat {
    fn read(dir: &Path, link: Option<Link>) -> Result<Stat, Failure> {
        let mut holds = link.map(Holds::new);
        let mut log = LogDir::open(dir).log().map_err(Described)?;
        let (header, start) = (log.header().clone(), log.start());
        let mut stat = Stat {
            header,
            start,
            entries: 0,
            counts: BTreeMap::new(),
            bytes: 0,
            holds: None,
            at: start.at,
            guest_ns: 0,
            tail: String::new(),
        };
        while let Some((_, offset, entry)) = log.next_with_offset().map_err(Described)? {
            stat.entries += 1;
            let bytes = log.place().offset() - offset;
            stat.bytes += bytes;
            let (count, sum) = stat.counts.entry(kind(&entry.event)).or_default();
            (*count, *sum) = (*count + 1, *sum + bytes);
            if let Event::Clock { ns } = entry.event {
                stat.guest_ns = ns;
            }
            if let Some(holds) = &mut holds {
                let is_output = matches!(entry.event, Event::Output(_));
                holds.entry(stat.guest_ns, bytes, is_output);
            }
            stat.at = entry.at;
        }
        stat.tail = tail(log.tail());
        stat.holds = holds.and_then(Holds::told);
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
        object["bytes"] = json!(self.bytes);
        let counts = self.counts.iter();
        object["kinds"] = counts
            .clone()
            .map(|(kind, it)| (kind.to_string(), json!(it.0)))
            .collect();
        object["kind_bytes"] = counts
            .map(|(kind, it)| (kind.to_string(), json!(it.1)))
            .collect();
        if let Some([median, p99, most]) = self.holds {
            object["hold_ms"] = json!({"median": median, "p99": p99, "most": most});
        }
        object["tail"] = json!(self.tail);
        object
    }

    /// So much, and how much that is in a second of guest time.
    fn per_second(&self, sum: u64) -> String {
        match self.guest_ns {
            0 => sum.to_string(),
            ns => format!("{sum}, {:.0} a second", sum as f64 * 1e9 / ns as f64),
        }
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
        for (kind, (count, _)) in &self.counts {
            writeln!(out, "  {kind:<14} {count}")?;
        }
        writeln!(out, "bytes      {}", self.per_second(self.bytes))?;
        for (kind, (_, bytes)) in &self.counts {
            writeln!(out, "  {kind:<14} {}", self.per_second(*bytes))?;
        }
        if let Some([median, p99, most]) = self.holds {
            writeln!(
                out,
                "holds      median {median:.3} ms, 99 of 100 {p99:.3} ms, longest {most:.3} ms"
            )?;
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

/// What must be equal for two logs to have the same meaning, in words.
fn header_words(header: &Header) -> Vec<(&'static str, String)> {
    let machine = &header.machine;
    vec![
        ("VM", header.vm.clone()),
        (
            "guest",
            format!("{} (hash {:032x})", header.guest.name, header.guest.hash),
        ),
        ("memory", format!("{} MiB", machine.mem_mib)),
        (
            "CPU",
            format!("{:?} that counts {:?}", machine.cpu, machine.counts),
        ),
        ("quantum", machine.quantum.to_string()),
        ("seed", format!("{:016x}", machine.seed)),
        ("wall clock at boot", format!("{} ns", machine.wall_ns)),
        ("devices", format!("{:?}", machine.devices)),
        (
            "host",
            format!(
                "{}, exit fingerprint {:016x}",
                header.host.cpu, header.host.exits
            ),
        ),
    ]
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

fn entry_json(seq: u64, offset: u64, entry: &Entry) -> Value {
    let Entry { at, check, event } = entry;
    let check = check.map(|c| json!({"rip": c.rip, "regs": c.regs}));
    json!({
        "seq": seq, "offset": offset, "at": at.exit, "edges": at.edges, "kind": kind(event),
        "detail": detail(event), "check": check,
    })
}

fn show(args: &LogArgs) -> Result<(), Failure> {
    let mut log = LogDir::open(&args.dir).log().map_err(Described)?;
    let mut out = out::results();
    while let Some((seq, offset, entry)) = log.next_with_offset().map_err(Described)? {
        let Entry { at, check, event } = &entry;
        let (kind, detail) = (kind(event), detail(event));
        if args.json {
            writeln!(out, "{}", entry_json(seq, offset, &entry))?;
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
