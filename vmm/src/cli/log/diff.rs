//! `lockstep log diff`: where two recordings part, in words.

use super::{Described, Failure, header_words};
use crate::cli::{CliError, Status};
use clap::Args;
use ft_protocol::log::{Entry, Event};
use lockstep_out as out;
use lockstep_replay::LogDir;
use lockstep_replay::dir::LogFile;
use lockstep_replay::words::{detail, kind};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `log diff`.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// A recording.
    a: PathBuf,
    /// The other one.
    b: PathBuf,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// A recording that is read entry by entry.
struct Side {
    log: LogFile,
    next: Option<(u64, Entry)>,
}

impl Side {
    fn open(dir: &Path) -> Result<Side, Failure> {
        let log = LogDir::open(dir).log().map_err(Described)?;
        let mut side = Side { log, next: None };
        side.step()?;
        Ok(side)
    }

    fn step(&mut self) -> Result<Option<(u64, Entry)>, Failure> {
        let next = self.log.next_with_offset().map_err(Described)?;
        let next = next.map(|(seq, _, entry)| (seq, entry));
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Skips what the other one does not have, as it began later.
    fn skip_to(&mut self, seq: u64) -> Result<(), Failure> {
        while self.next.as_ref().is_some_and(|(at, _)| *at < seq) {
            self.step()?;
        }
        Ok(())
    }
}

/// Compares entry by entry. The status is 1 if the recordings differ.
pub fn run(args: &DiffArgs) -> Result<Status, Failure> {
    let (mut a, mut b) = (Side::open(&args.a)?, Side::open(&args.b)?);
    let headers = headers(&a, &b);
    let first = a.log.start().seq.max(b.log.start().seq) + 1;
    a.skip_to(first)?;
    b.skip_to(first)?;
    let mut equal = 0u64;
    let parted = loop {
        match (a.step()?, b.step()?) {
            (Some((seq, left)), Some((_, right))) if left != right => {
                break Some((seq, Some(left), Some(right)));
            }
            (Some(_), Some(_)) => equal += 1,
            (None, None) => break None,
            (left, right) => {
                let seq = first + equal;
                break Some((seq, left.map(|it| it.1), right.map(|it| it.1)));
            }
        }
    };
    let mut words = headers.clone();
    if let Some((seq, left, right)) = &parted {
        words.extend(differences(*seq, left.as_ref(), right.as_ref()));
    }
    let status = match words.is_empty() {
        true => Status::Done,
        false => Status::Failed,
    };
    let out = &mut out::results();
    if args.json {
        let seq = parted.as_ref().map(|(seq, ..)| seq);
        let told = json!({"equal": words.is_empty(), "entries": equal, "first": seq, "differences": words});
        writeln!(out, "{told}")?;
    } else {
        writeln!(out, "{equal} entries are equal, from entry {first} on")?;
        for line in words {
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(status)
}

fn headers(a: &Side, b: &Side) -> Vec<String> {
    let (a, b) = (header_words(a.log.header()), header_words(b.log.header()));
    let pairs = a.into_iter().zip(b).filter(|(a, b)| a != b);
    pairs
        .map(|((name, a), (_, b))| format!("{name}: {a} here, {b} there"))
        .collect()
}

/// What differs between two entries of the same number.
fn differences(seq: u64, a: Option<&Entry>, b: Option<&Entry>) -> Vec<String> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (Some(a), None) => {
            return vec![format!(
                "entry {seq}: the other one ends before it; here {}",
                tell(a)
            )];
        }
        (None, Some(b)) => {
            return vec![format!(
                "entry {seq}: this one ends before it; there {}",
                tell(b)
            )];
        }
        (None, None) => return Vec::new(),
    };
    let mut words = vec![
        format!("entry {seq} is the first that differs:"),
        format!("  here  {}", tell(a)),
        format!("  there {}", tell(b)),
    ];
    if a.at.exit != b.at.exit {
        words.push(
            "  it came at another exit: the guests' paths, or what came to them, had parted before"
                .into(),
        );
    } else if a.at.edges != b.at.edges {
        words.push("  the guests took other paths to the same exit".into());
    } else if a.check != b.check {
        words.push("  the guests' registers differ at the same position".into());
    }
    if a.event != b.event {
        words.push(format!("  {}", why(&a.event, &b.event)));
    }
    words
}

fn why(a: &Event, b: &Event) -> &'static str {
    match (a, b) {
        (Event::Output(_), Event::Output(_)) => "the guests emitted something else",
        (Event::Digest(_), Event::Digest(_)) | (Event::End(_), Event::End(_)) => {
            "the machines differ in memory, CPU or devices"
        }
        _ if kind(a) == kind(b) => "something else came in",
        _ => "something of another kind happened",
    }
}

fn tell(entry: &Entry) -> String {
    let rip = entry.check.map_or_else(
        || "-".into(),
        |c| format!("RIP {:#x}, registers {:08x}", c.rip, c.regs),
    );
    format!(
        "@{} {} {} [{rip}]",
        entry.at,
        kind(&entry.event),
        detail(&entry.event)
    )
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Failure {
        Failure::Log(error)
    }
}
