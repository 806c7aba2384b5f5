//! `lockstep bench`: how fast this host runs guests.

use super::cpus::{CpuChoice, for_guest};
use super::guest::LinuxArgs;
use super::options::DEFAULT_QUANTUM_INSTRUCTIONS;
use super::{CliError, Status};
use clap::{Args, Subcommand};
use ft_protocol::log::{Counts, End, MachineConfig, MachineDigest};
use lockstep_devices::Output;
use lockstep_kvm::Kvm;
use lockstep_loader::Image;
use lockstep_machine::made_up::MadeUpTime;
use lockstep_machine::{Machine, Moment, Next, Sink, Source, View, drive};
use lockstep_out as out;
use lockstep_vcpu::CpuBackend;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::convert::Infallible;
use std::fmt::Write;

/// Memory of the measured machine, MiB.
const MEM_MIB: u32 = 64;
/// Made-up time between two positions, nanoseconds: the kernels do not look at it.
const STEP_NS: u64 = 1000;

/// How often each is run: the best counts.
const ROUNDS: usize = 3;

/// Longer lines are cut: none of those that count is.
const LONGEST_LINE: usize = 200;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Instructions a second of the CPU in software, kernel by kernel, beside this host's KVM.
    Cpu(CpuArgs),
}

/// Arguments of `bench cpu`.
#[derive(Args, Debug)]
pub struct CpuArgs {
    /// The guest with the kernels: one that ships, or an ELF file (tests/bench/kernels.c is one).
    #[arg(default_value = "mips")]
    guest: String,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// A kernel's run.
#[derive(Clone, Debug)]
struct Run {
    name: String,
    /// What it computed.
    value: String,
    steps: u64,
    ns: u64,
}

/// Runs it.
pub fn run(command: &BenchCommand) -> Result<Status, CliError> {
    let BenchCommand::Cpu(args) = command;
    let image = LinuxArgs::default().load(&args.guest)?;
    let (soft, counts) = for_guest(CpuChoice::Soft.cpus(), &image)?;
    let [ours, undivided] = soft_runs(soft, counts, &image)?;
    if ours.is_empty() {
        return Err(CliError::failed(format_args!(
            "{} has no kernels: it never printed that one begins and what it gives; see tests/bench/kernels.c",
            args.guest
        )));
    }
    let native = match Kvm.available() {
        Ok(()) => kernels(&Kvm, Counts::BranchEdges, 0, &image),
        Err(why) => Err(CliError::failed(why)),
    };
    // Not every KVM runs every guest at its CPL 0.
    let native = native.unwrap_or_else(|why| {
        out::tell(format_args!("nothing runs beside the software CPU: {why}"));
        Vec::new()
    });
    if let Some((ours, theirs)) = ours.iter().zip(&native).find(|(a, b)| a.value != b.value) {
        return Err(CliError::failed(format_args!(
            "{} gives {} on the software CPU and {} on KVM",
            ours.name, ours.value, theirs.value
        )));
    }
    let told = match args.json {
        true => as_json(&ours, &undivided, &native),
        false => as_text(&ours, &undivided, &native),
    };
    out::print(told).map_err(|e| CliError::unprinted(&e))?;
    Ok(Status::Done)
}

/// The best of some runs of each kernel: at the default quantum, and without one. In turns, so that neither is
/// always the first.
fn soft_runs(
    soft: &dyn CpuBackend,
    counts: Counts,
    image: &Image,
) -> Result<[Vec<Run>; 2], CliError> {
    let quanta = [DEFAULT_QUANTUM_INSTRUCTIONS, 0];
    let mut best = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (best, quantum) in best.iter_mut().zip(quanta) {
            let runs = kernels(soft, counts, quantum, image)?;
            if best.is_empty() {
                *best = runs;
                continue;
            }
            for (best, run) in best.iter_mut().zip(runs) {
                best.ns = best.ns.min(run.ns);
            }
        }
    }
    Ok(best)
}

/// Runs the guest, and takes what its lines tell.
fn kernels(
    backend: &dyn CpuBackend,
    counts: Counts,
    quantum: u64,
    image: &Image,
) -> Result<Vec<Run>, CliError> {
    let config = MachineConfig {
        quantum,
        ..MachineConfig::new(MEM_MIB).on(backend.kind(), counts)
    };
    let mut machine = Machine::new(backend, &config, image)?;
    let mut timing = Timing {
        runs: Vec::new(),
        began: None,
        line: Vec::new(),
        time: MadeUpTime::new(STEP_NS),
    };
    match drive(&mut machine, &mut timing) {
        Ok(_) => Ok(timing.runs),
        Err(lockstep_machine::DriveError::Machine(error)) => Err(error.into()),
        Err(lockstep_machine::DriveError::Edge(never)) => match never {},
    }
}

/// A world without a clock that takes down when kernels begin and end.
struct Timing {
    runs: Vec<Run>,
    /// Processor time and steps when a kernel began.
    began: Option<(u64, u64)>,
    /// What the guest printed of a line so far.
    line: Vec<u8>,
    time: MadeUpTime,
}

impl Timing {
    /// The guest printed a line.
    fn printed(&mut self, moment: Moment, line: &str) {
        let now = processor_ns();
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), self.began) {
            (["mips:", _, "begins"], _) => self.began = Some((now, moment.at.edges)),
            (["mips:", name, "gives", value], Some((began, steps))) => self.runs.push(Run {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                steps: moment.at.edges - steps,
                ns: (now - began).max(1),
            }),
            _ => {}
        }
    }
}

impl Source for Timing {
    type Error = Infallible;

    fn next(&mut self, view: &View) -> Result<Next<'_>, Infallible> {
        Ok(self.time.next(view))
    }

    fn time(&mut self, _: Moment) -> Result<Option<u64>, Infallible> {
        Ok(Some(self.time.now_ns()))
    }
}

impl Sink for Timing {
    type Error = Infallible;

    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), Infallible> {
        for byte in &output.data {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.printed(moment, &String::from_utf8_lossy(&line));
                }
                byte if self.line.len() < LONGEST_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        Ok(())
    }

    fn leave(&mut self, _: Moment, _: Option<u8>) -> Result<(), Infallible> {
        Ok(())
    }

    fn digest(&mut self, _: Moment, _: MachineDigest) -> Result<(), Infallible> {
        Ok(())
    }

    fn end(&mut self, _: Moment, _: End) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Processor time of this thread, nanoseconds: what else runs on the host does not count.
fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Million instructions a second, for so many in so many nanoseconds.
fn mips(steps: u64, ns: u64) -> f64 {
    steps as f64 * 1e3 / ns as f64
}

/// The geometric mean.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(f64::ln).sum::<f64>() / count).exp()
}

/// How much longer the kernels of `without` took in `with`, percent.
fn cost(with: &[Run], without: &[Run]) -> f64 {
    let (mut longer, mut shorter) = (0, 0);
    for run in without {
        if let Some(other) = with.iter().find(|other| other.name == run.name) {
            (longer, shorter) = (longer + other.ns, shorter + run.ns);
        }
    }
    100.0 * (longer as f64 / shorter as f64 - 1.0)
}

fn as_text(ours: &[Run], undivided: &[Run], native: &[Run]) -> String {
    let mut text = format!(
        "{:<10} {:>12} {:>10} {:>10}\n",
        "kernel", "instructions", "MIPS", "KVM"
    );
    for (index, run) in ours.iter().enumerate() {
        let beside = native.get(index).map_or("-".to_owned(), |other| {
            format!("{:.0}", mips(run.steps, other.ns))
        });
        let (name, steps) = (&run.name, run.steps);
        let rate = mips(steps, run.ns);
        let _ = writeln!(text, "{name:<10} {steps:>12} {rate:>10.0} {beside:>10}");
    }
    let all = mean(ours.iter().map(|run| mips(run.steps, run.ns)));
    let _ = writeln!(text, "geometric mean {all:.0} MIPS");
    let cost = cost(ours, undivided);
    let _ = write!(
        text,
        "an exit every {DEFAULT_QUANTUM_INSTRUCTIONS} instructions costs {cost:.1} %"
    );
    text
}

fn as_json(ours: &[Run], undivided: &[Run], native: &[Run]) -> String {
    let kernels = ours.iter().enumerate().map(|(index, run)| {
        let beside = native.get(index).map(|other| mips(run.steps, other.ns));
        let mips = mips(run.steps, run.ns);
        json!({"name": run.name, "instructions": run.steps, "mips": mips, "kvm_mips": beside})
    });
    json!({
        "kernels": kernels.collect::<Vec<_>>(),
        "mean_mips": mean(ours.iter().map(|run| mips(run.steps, run.ns))),
        "quantum": DEFAULT_QUANTUM_INSTRUCTIONS,
        "quantum_cost_percent": cost(ours, undivided),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_means_and_costs_are_what_they_say() {
        assert!((mips(3_000_000, 1_000_000_000) - 3.0).abs() < 1e-9);
        assert!((mean([2.0, 8.0].into_iter()) - 4.0).abs() < 1e-9);
        let run = |name: &str, ns| Run {
            name: name.to_owned(),
            value: String::new(),
            steps: 1,
            ns,
        };
        // One kernel runs only where the CPU makes exits by itself.
        let with = [run("a", 110), run("b", 100), run("c", 70)];
        let without = [run("a", 100), run("b", 100)];
        assert!((cost(&with, &without) - 5.0).abs() < 1e-9);
    }
}
