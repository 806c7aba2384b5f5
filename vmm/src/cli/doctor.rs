//! `lockstep doctor`: measures what this host can and cannot do.

mod bridges;

use super::{CliError, Status};
use clap::Args;
use lockstep_kvm::Kvm;
use lockstep_machine::fingerprint::{SelfTest, self_test};
use lockstep_out as out;
use lockstep_vcpu::CpuBackend;
use lockstep_x86::Soft;
use perf_event::Builder;
use perf_event::events::Hardware;
use serde_json::json;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::time::Instant;

/// How often the counted loop is run. Exact means that all runs have the same count.
const COUNTER_RUNS: usize = 100;
/// Rounds of that loop: some milliseconds, so that interrupts land in it.
const COUNTER_ROUNDS: u64 = 3_000_000;

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// One finding.
struct Finding {
    name: &'static str,
    /// `None` for a note, on which nothing depends.
    good: Option<bool>,
    what: String,
}

/// Runs it.
pub fn run(args: &DoctorArgs) -> Result<Status, CliError> {
    let findings = [
        Finding {
            name: "cpu",
            good: None,
            what: Kvm.host_cpu(),
        },
        kvm(),
        self_tested("software_cpu", &Soft),
        network(),
        bridges::bridges(),
        branch_counter(),
    ];
    let good = findings.iter().all(|f| f.good != Some(false));
    let told = if args.json {
        let object: serde_json::Map<_, _> = findings
            .iter()
            .map(|f| (f.name.into(), json!({"good": f.good, "what": f.what})))
            .collect();
        json!({"good": good, "findings": object}).to_string()
    } else {
        findings.each_ref().map(describe).join("\n")
    };
    out::print(told).map_err(|e| CliError::unprinted(&e))?;
    Ok(match good {
        true => Status::Done,
        false => Status::Refused,
    })
}

/// A finding as text.
fn describe(finding: &Finding) -> String {
    let mark = match finding.good {
        Some(true) => "good",
        Some(false) => "BAD",
        None => "note",
    };
    format!("{mark:<5} {:<15} {}", finding.name, finding.what)
}

/// KVM, if it is there. Without it guests run in software.
fn kvm() -> Finding {
    match Kvm.available() {
        Ok(()) => self_tested("kvm", &Kvm),
        Err(why) => Finding {
            name: "kvm",
            good: None,
            what: format!("{why}: guests run on the software CPU"),
        },
    }
}

/// Runs the self-test guest twice: both runs must succeed and be equal.
fn self_tested(name: &'static str, backend: &dyn CpuBackend) -> Finding {
    let start = Instant::now();
    let first = self_test(backend);
    let took = start.elapsed();
    let (good, what) = match (first, self_test(backend)) {
        (Ok(a), Ok(b)) if a == b => {
            let SelfTest { exits, positions } = a;
            let each = took.as_nanos() / u128::from(positions.max(1));
            let what = format!(
                "exit fingerprint {exits:016x}, twice the same over {positions} exits, {each} ns each with what lies between them"
            );
            (true, what)
        }
        (Ok(_), Ok(_)) => (
            false,
            "two runs of the self-test guest differ: no replay can be trusted here".into(),
        ),
        (Err(e), _) | (_, Err(e)) => (false, e.to_string()),
    };
    Finding {
        name,
        good: Some(good),
        what,
    }
}

fn network() -> Finding {
    let opened = File::options().read(true).write(true).open("/dev/net/tun");
    let (good, what) = match opened {
        Ok(_) => (Some(true), "/dev/net/tun can be opened".into()),
        Err(e) => {
            let what = format!("/dev/net/tun cannot be opened ({e}): guests run without a network");
            (None, what)
        }
    };
    Finding {
        name: "network",
        good,
        what,
    }
}

/// Counts the branches of the same loop again and again, with the host's interrupts on.
///
/// Lockstep uses no such counter yet: positions come from exits and from the guests' own
/// instrumentation. This says whether a later version could use one.
fn branch_counter() -> Finding {
    let what = match count_branches() {
        Ok(counts) => {
            let (least, most) = (counts.iter().min(), counts.iter().max());
            match (least, most) {
                (Some(least), Some(most)) if least == most && *least > 0 => {
                    format!("exact: {least} branches in each of {COUNTER_RUNS} runs")
                }
                (Some(least), Some(most)) => {
                    format!("not exact: {least} to {most} branches in {COUNTER_RUNS} equal runs")
                }
                _ => "did not count".into(),
            }
        }
        Err(e) => format!("none that perf_event_open gives ({e}); not needed"),
    };
    Finding {
        name: "branch_counter",
        good: None,
        what,
    }
}

fn count_branches() -> io::Result<Vec<u64>> {
    let mut counter = Builder::new(Hardware::BRANCH_INSTRUCTIONS)
        .exclude_kernel(true)
        .exclude_hv(true)
        .pinned(true)
        .build()?;
    let mut counts = Vec::with_capacity(COUNTER_RUNS);
    for _ in 0..COUNTER_RUNS {
        counter.reset()?;
        counter.enable()?;
        let mut x = 1u64;
        for round in 0..COUNTER_ROUNDS {
            x = black_box(x)
                .wrapping_mul(6364136223846793005)
                .wrapping_add(round);
        }
        black_box(x);
        counter.disable()?;
        counts.push(counter.read()?);
    }
    Ok(counts)
}
