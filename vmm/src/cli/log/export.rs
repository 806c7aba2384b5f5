//! `lockstep log export`: a recording for other tools.

use super::{Described, Failure, header_json};
use crate::cli::Status;
use crate::cli::cpus::CpuChoice;
use crate::cli::replay::{self, Opened};
use clap::{Args, ValueEnum};
use ft_protocol::log::{Entry, Event};
use lockstep_machine::drive;
use lockstep_out as out;
use lockstep_replay::LogDir;
use lockstep_replay::frames::{Direction, Frames};
use lockstep_replay::words::{detail, kind};
use serde_json::json;
use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON document: the header, and all entries.
    Json,
    /// A timeline in guest time, for Perfetto and chrome://tracing.
    ChromeTrace,
    /// The frames that the guest received and sent, for Wireshark. It replays the recording.
    Pcap,
}

/// Arguments of `log export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The directory that was given to --record.
    dir: PathBuf,
    /// What to make of it, on standard output.
    #[arg(long, value_enum)]
    format: Format,
    /// The CPU that replays it for its frames.
    #[arg(long, value_name = "kvm|soft|auto", value_enum, default_value = "auto")]
    cpu: CpuChoice,
}

/// Runs it.
pub fn run(args: &ExportArgs) -> Result<Status, Failure> {
    match args.format {
        Format::Json => document(args)?,
        Format::ChromeTrace => timeline(args)?,
        Format::Pcap => pcap(args)?,
    }
    Ok(Status::Done)
}

fn document(args: &ExportArgs) -> Result<(), Failure> {
    let mut log = LogDir::open(&args.dir).log().map_err(Described)?;
    let mut out = out::results();
    write!(
        out,
        "{{\"header\":{},\"entries\":[",
        header_json(log.header())
    )?;
    let mut comma = "\n";
    while let Some((seq, offset, entry)) = log.next_with_offset().map_err(Described)? {
        let line = super::entry_json(seq, offset, &entry);
        write!(out, "{comma}{line}")?;
        comma = ",\n";
    }
    writeln!(out, "\n]}}")?;
    Ok(out.flush()?)
}

/// The lanes of the timeline, in order.
const LANES: [&str; 4] = ["inputs", "outputs", "interrupts", "marks"];

fn lane(event: &Event) -> usize {
    match event {
        Event::Clock { .. }
        | Event::Frame { .. }
        | Event::ConsoleInput { .. }
        | Event::Entropy { .. }
        | Event::Time { .. } => 0,
        Event::Output(_) => 1,
        Event::Interrupt { .. } => 2,
        Event::Progress | Event::Digest(_) | Event::Control(_) | Event::End(_) => 3,
    }
}

/// Events at the guest time that the guest had then; what comes between two clock entries has the same.
fn timeline(args: &ExportArgs) -> Result<(), Failure> {
    let mut log = LogDir::open(&args.dir).log().map_err(Described)?;
    let mut out = out::results();
    let name =
        json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": log.header().vm}});
    write!(
        out,
        "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{name}"
    )?;
    for (lane, name) in LANES.into_iter().enumerate() {
        let line = json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": {"name": name}});
        write!(out, ",\n{line}")?;
    }
    let mut now_ns = 0;
    while let Some((seq, _, Entry { at, event, .. })) = log.next_with_offset().map_err(Described)? {
        if let Event::Clock { ns } | Event::Time { ns } = event {
            now_ns = ns;
        }
        let line = json!({
            "name": kind(&event), "ph": "i", "s": "t", "pid": 1, "tid": lane(&event),
            "ts": now_ns as f64 / 1000.0,
            "args": {"entry": seq, "position": at.to_string(), "detail": detail(&event)},
        });
        write!(out, ",\n{line}")?;
    }
    writeln!(out, "\n]}}")?;
    Ok(out.flush()?)
}

/// The format with nanoseconds, version 2.4, Ethernet.
const PCAP: [u32; 6] = [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, 65_535, 1];

fn pcap(args: &ExportArgs) -> Result<(), Failure> {
    let Opened {
        log,
        start,
        mut machine,
        ..
    } = replay::open(&args.dir, args.cpu, None)?;
    let wall_ns = log.header().machine.wall_ns;
    let out = RefCell::new(out::results());
    let header: Vec<u8> = PCAP.iter().flat_map(|word| word.to_le_bytes()).collect();
    out.borrow_mut().write_all(&header)?;
    let mut put = |_: Direction, now_ns: u64, frame: &[u8]| -> io::Result<()> {
        let ns = wall_ns.saturating_add(now_ns);
        let len = frame.len() as u32;
        let words = [
            (ns / 1_000_000_000) as u32,
            (ns % 1_000_000_000) as u32,
            len,
            len,
        ];
        let head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut out = out.borrow_mut();
        out.write_all(&head)?;
        out.write_all(frame)
    };
    let mut frames = Frames::new(log, start.outputs, &mut put);
    drive(&mut machine, &mut frames).map_err(|error| Failure::Log(error.into()))?;
    Ok(out.into_inner().flush()?)
}
