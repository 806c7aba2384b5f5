//! The drill's verdict: what it prints, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::verdict::{Failover, Tally};

/// Most findings of failed runs in the text; the report's file has all of them.
const SHOWN_LIMIT: usize = 20;

/// Percentiles of a duration over all runs, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Quantiles {
    /// The percentiles of `durations` in nanoseconds, by nearest rank; `None` if there are none.
    pub(super) fn of(durations: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<u64> = durations.into_iter().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        let at = |percent| sorted.get(rank(percent)).map(|&ns| milliseconds(ns));
        Some(Self {
            p50: at(50)?,
            p99: at(99)?,
            max: at(100)?,
        })
    }
}

/// Milliseconds, rounded to the microsecond.
fn milliseconds(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

/// One run's result.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RunResult {
    pub(super) run: u32,
    /// A drill with `--seed` and this value repeats this run as its first run.
    pub(super) seed: u64,
    pub(super) dir: PathBuf,
    #[serde(flatten)]
    pub(super) tally: Tally,
    #[serde(flatten, serialize_with = "failover_ms")]
    pub(super) failover: Option<Failover>,
    #[serde(rename = "client_ms", serialize_with = "ns_as_ms")]
    pub(super) longest_gap_ns: Option<u64>,
    /// The longest silence that a member reported of its peer, if it was long enough for a report.
    #[serde(rename = "silence_ms", serialize_with = "ns_as_ms")]
    pub(super) silence_ns: Option<u64>,
    /// How long the machine was stopped to be copied.
    #[serde(rename = "pause_ms", serialize_with = "ns_as_ms")]
    pub(super) pause_ns: Option<u64>,
    /// The legs of a chain of failovers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) legs: Vec<LegResult>,
    /// The members that went on alone, once for each time.
    pub(super) live: Vec<&'static str>,
    pub(super) split_brains: u64,
    pub(super) divergences: u64,
    /// Why the run failed; empty if it passed.
    pub(super) violations: Vec<String>,
    /// The recorded logs that exist.
    pub(super) logs: Vec<PathBuf>,
}

/// One leg of a chain.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LegResult {
    pub(super) survivor: &'static str,
    #[serde(flatten, serialize_with = "failover_ms")]
    pub(super) failover: Option<Failover>,
    #[serde(rename = "client_ms", serialize_with = "ns_as_ms")]
    pub(super) longest_gap_ns: Option<u64>,
    #[serde(rename = "pause_ms", serialize_with = "ns_as_ms")]
    pub(super) pause_ns: Option<u64>,
    pub(super) memory_kib: u64,
    pub(super) open_files: u64,
}

/// A resource that the survivors of a chain used: by the first, by the last, and the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Growth {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) max: u64,
}

impl Growth {
    /// `None` without a chain.
    fn of(legs: &[&LegResult], what: fn(&LegResult) -> u64) -> Option<Self> {
        Some(Self {
            first: legs.first().map(|leg| what(leg))?,
            last: legs.last().map(|leg| what(leg))?,
            max: legs.iter().map(|leg| what(leg)).max()?,
        })
    }
}

fn ns_as_ms<S: serde::Serializer>(ns: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
    ns.map(milliseconds).serialize(out)
}

fn failover_ms<S: serde::Serializer>(took: &Option<Failover>, out: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Milliseconds {
        vmm_ms: Option<f64>,
        detect_ms: Option<f64>,
        catch_up_ms: Option<f64>,
        arbitrate_ms: Option<f64>,
        go_live_ms: Option<f64>,
    }
    let part = |of: fn(&Failover) -> u64| took.as_ref().map(|f| milliseconds(of(f)));
    Milliseconds {
        vmm_ms: part(|f| f.vmm),
        detect_ms: part(|f| f.detect),
        catch_up_ms: part(|f| f.catch_up),
        arbitrate_ms: part(|f| f.arbitrate),
        go_live_ms: part(|f| f.go_live),
    }
    .serialize(out)
}

impl RunResult {
    pub(super) fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

/// One line about a run, to show progress.
impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.passed() {
            return write!(f, "FAILED: {}", self.violations[0]);
        }
        write!(f, "ok, {} answers", self.tally.acked)?;
        if let Some(took) = &self.failover {
            write!(f, ", live after {:.1} ms", milliseconds(took.vmm))?;
        }
        if !self.legs.is_empty() {
            write!(f, ", {} failovers one after the other", self.legs.len())?;
        }
        if let Some(pause) = self.pause_ns {
            write!(f, ", stopped for {:.1} ms", milliseconds(pause))?;
        }
        if let Some(gap) = self.longest_gap_ns {
            write!(f, ", the client waited {:.1} ms", milliseconds(gap))?;
        }
        Ok(())
    }
}

/// A scenario's verdict over all its runs: the object that `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) scenario: &'static str,
    pub(super) runs: usize,
    pub(super) failed_runs: usize,
    #[serde(flatten)]
    pub(super) tally: Tally,
    pub(super) vmm_ms: Option<Quantiles>,
    pub(super) detect_ms: Option<Quantiles>,
    pub(super) catch_up_ms: Option<Quantiles>,
    pub(super) arbitrate_ms: Option<Quantiles>,
    pub(super) go_live_ms: Option<Quantiles>,
    pub(super) client_ms: Option<Quantiles>,
    /// How long the machine was stopped to be copied.
    pub(super) pause_ms: Option<Quantiles>,
    /// The longest silence that a member reported in any run, if it was long enough for a report.
    pub(super) silence_ms: Option<f64>,
    /// Resident memory of a chain's survivors, KiB, and their open files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) survivors_kib: Option<Growth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) survivors_files: Option<Growth>,
    /// How often a member went on alone.
    pub(super) failovers: usize,
    /// The same, by member.
    pub(super) live: BTreeMap<&'static str, usize>,
    pub(super) split_brains: u64,
    pub(super) divergences: u64,
    pub(super) seed: u64,
    pub(super) report: PathBuf,
    /// Each failed run's findings.
    pub(super) violations: Vec<String>,
}

/// The object that `--json` prints for all scenarios.
#[derive(Debug, Serialize)]
pub(super) struct AllReports<'a> {
    pub(super) scenario: &'static str,
    pub(super) scenarios: Vec<&'a Report>,
}

/// The content of a scenario's file in the report directory.
#[derive(Debug, Serialize)]
pub(super) struct KeptReport<'a> {
    pub(super) verdict: &'a Report,
    pub(super) runs: &'a [RunResult],
}

impl Report {
    pub(super) fn new(scenario: &'static str, seed: u64, dir: &Path, runs: &[RunResult]) -> Self {
        let mut tally = Tally::default();
        for run in runs {
            tally.add(run.tally);
        }
        let mut live = BTreeMap::new();
        for name in runs.iter().flat_map(|run| &run.live) {
            *live.entry(*name).or_default() += 1;
        }
        let legs: Vec<&LegResult> = runs.iter().flat_map(|run| &run.legs).collect();
        let failovers = || {
            let single = runs.iter().filter_map(|run| run.failover.as_ref());
            single.chain(legs.iter().filter_map(|leg| leg.failover.as_ref()))
        };
        let failover = |part: fn(&Failover) -> u64| Quantiles::of(failovers().map(part));
        // The figures of a chain are those of its legs.
        let plain = || runs.iter().filter(|run| run.legs.is_empty());
        let gaps = plain().filter_map(|run| run.longest_gap_ns);
        let gaps = gaps.chain(legs.iter().filter_map(|leg| leg.longest_gap_ns));
        let pauses = plain().filter_map(|run| run.pause_ns);
        let pauses = pauses.chain(legs.iter().filter_map(|leg| leg.pause_ns));
        let finding = |run: &RunResult| {
            let number = run.run;
            let findings = run.violations.clone();
            findings
                .into_iter()
                .map(move |text| format!("run {number}: {text}"))
        };
        Self {
            scenario,
            runs: runs.len(),
            failed_runs: runs.iter().filter(|r| !r.passed()).count(),
            tally,
            vmm_ms: failover(|f| f.vmm),
            detect_ms: failover(|f| f.detect),
            catch_up_ms: failover(|f| f.catch_up),
            arbitrate_ms: failover(|f| f.arbitrate),
            go_live_ms: failover(|f| f.go_live),
            client_ms: Quantiles::of(gaps),
            pause_ms: Quantiles::of(pauses),
            silence_ms: runs
                .iter()
                .filter_map(|r| r.silence_ns)
                .max()
                .map(milliseconds),
            survivors_kib: Growth::of(&legs, |leg| leg.memory_kib),
            survivors_files: Growth::of(&legs, |leg| leg.open_files),
            failovers: live.values().sum(),
            live,
            split_brains: runs.iter().map(|r| r.split_brains).sum(),
            divergences: runs.iter().map(|r| r.divergences).sum(),
            seed,
            report: dir.to_owned(),
            violations: runs.iter().flat_map(finding).collect(),
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.failed_runs == 0
    }
}

/// The verdict as text.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.passed() { "passed" } else { "FAILED" };
        let good = self.runs - self.failed_runs;
        let (scenario, runs, seed) = (self.scenario, self.runs, self.seed);
        writeln!(
            f,
            "{scenario}: {word}, {good} of {runs} run(s) good, seed {seed}"
        )?;
        let tally = self.tally;
        writeln!(
            f,
            "  {} requests acknowledged: {} lost, {} repeated, {} reconnects; {} failovers, {} split brains, {} divergences",
            tally.acked,
            tally.lost,
            tally.repeated,
            tally.reconnects,
            self.failovers,
            self.split_brains,
            self.divergences
        )?;
        self.tell_times(f)?;
        if let (Some(memory), Some(files)) = (self.survivors_kib, self.survivors_files) {
            writeln!(
                f,
                "  the first survivor held {} KiB and {} files, the last {} KiB and {} files",
                memory.first, files.first, memory.last, files.last
            )?;
        }
        for text in self.violations.iter().take(SHOWN_LIMIT) {
            writeln!(f, "  {text}")?;
        }
        let more = self.violations.len().saturating_sub(SHOWN_LIMIT);
        if more > 0 {
            writeln!(f, "  and {more} more findings, in the report")?;
        }
        Ok(())
    }
}

impl Report {
    /// How long things took, as far as there were such things.
    fn tell_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs;
        if let Some(vmm) = self.vmm_ms {
            writeln!(f, "  from the kill until live: {}", spread(vmm, runs))?;
            let steps = [
                ("detect", self.detect_ms),
                ("catch up", self.catch_up_ms),
                ("arbitrate", self.arbitrate_ms),
                ("go live", self.go_live_ms),
            ];
            let steps = steps.map(|(name, took)| {
                let took = took.map_or("?".to_owned(), |q| format!("{:.1}", q.p50));
                format!("{name} {took} ms")
            });
            writeln!(f, "    {}", steps.join(", "))?;
        }
        if let Some(client) = self.client_ms {
            writeln!(
                f,
                "  the client's longest wait between two answers: {}",
                spread(client, runs)
            )?;
        }
        if let Some(pause) = self.pause_ms {
            writeln!(f, "  stopped to be copied: {}", spread(pause, runs))?;
        }
        if let Some(silence) = self.silence_ms {
            writeln!(
                f,
                "  the longest silence of a side that the other heard: {silence:.1} ms"
            )?;
        }
        Ok(())
    }
}

/// A duration over all runs as text. A single run has no spread.
fn spread(of: Quantiles, runs: usize) -> String {
    if runs == 1 {
        format!("{:.1} ms", of.max)
    } else {
        format!(
            "{:.1} ms (median), {:.1} ms (99 %), {:.1} ms at worst",
            of.p50, of.p99, of.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u32, violations: &[&str]) -> RunResult {
        RunResult {
            run: number,
            seed: 5,
            dir: "/d".into(),
            tally: Tally {
                acked: 100,
                ..Tally::default()
            },
            failover: Some(Failover {
                vmm: 15_000_000 * u64::from(number),
                detect: 1_000_000,
                catch_up: 2_000_000,
                arbitrate: 3_000_000,
                go_live: 9_000_000,
            }),
            longest_gap_ns: Some(201_234_567),
            silence_ns: Some(90_000_000),
            pause_ns: None,
            legs: Vec::new(),
            live: vec!["backup"],
            split_brains: 0,
            divergences: 0,
            violations: violations.iter().map(|&v| v.to_owned()).collect(),
            logs: vec!["/d/backup".into()],
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred = Quantiles::of((1..=100).rev().map(|ms| ms * 1_000_000)).unwrap();
        assert_eq!((hundred.p50, hundred.p99, hundred.max), (50.0, 99.0, 100.0));
        let three = Quantiles::of([3_000_000, 1_000_000, 2_000_000]).unwrap();
        assert_eq!((three.p50, three.p99, three.max), (2.0, 3.0, 3.0));
        let one = Quantiles::of([1_234_567]).unwrap();
        assert_eq!((one.p50, one.p99, one.max), (1.235, 1.235, 1.235));
        assert_eq!(Quantiles::of([]), None);
    }

    #[test]
    fn json_has_the_fields_that_scripts_read() {
        let report = Report::new(
            "kill-primary",
            5,
            Path::new("/d"),
            &[run(1, &[]), run(2, &[])],
        );
        let json = serde_json::to_value(&report).unwrap();
        let expected = serde_json::json!({
            "scenario": "kill-primary", "runs": 2, "failed_runs": 0,
            "acked": 200, "lost": 0, "repeated": 0, "reconnects": 0,
            "vmm_ms": {"p50": 15.0, "p99": 30.0, "max": 30.0},
            "detect_ms": {"p50": 1.0, "p99": 1.0, "max": 1.0},
            "catch_up_ms": {"p50": 2.0, "p99": 2.0, "max": 2.0},
            "arbitrate_ms": {"p50": 3.0, "p99": 3.0, "max": 3.0},
            "go_live_ms": {"p50": 9.0, "p99": 9.0, "max": 9.0},
            "client_ms": {"p50": 201.235, "p99": 201.235, "max": 201.235},
            "pause_ms": null, "silence_ms": 90.0,
            "failovers": 2, "live": {"backup": 2},
            "split_brains": 0, "divergences": 0, "seed": 5, "report": "/d", "violations": [],
        });
        assert_eq!(json, expected);
        let single = serde_json::to_value(run(2, &["late"])).unwrap();
        assert_eq!(single["vmm_ms"], 30.0);
        assert_eq!(single["client_ms"], 201.235);
        assert_eq!(single["live"], serde_json::json!(["backup"]));
        assert_eq!(single["violations"][0], "late");
    }

    #[test]
    fn a_failed_run_fails_the_report_and_is_named() {
        let runs = [run(1, &[]), run(2, &["answer 5 came where 4 was due"])];
        let report = Report::new("kill-primary", 5, Path::new("/d"), &runs);
        assert!(!report.passed());
        assert_eq!(report.failed_runs, 1);
        let text = report.to_string();
        assert!(text.contains("FAILED, 1 of 2"), "{text}");
        assert!(
            text.contains("run 2: answer 5 came where 4 was due"),
            "{text}"
        );
    }

    #[test]
    fn a_report_without_a_failover_says_nothing_of_it() {
        let mut lame = run(1, &["the client never connected"]);
        lame.failover = None;
        lame.longest_gap_ns = None;
        let report = Report::new("kill-primary", 5, Path::new("/d"), &[lame.clone()]);
        assert!(!report.to_string().contains("until live"));
        assert!(serde_json::to_value(&report).unwrap()["vmm_ms"].is_null());
        assert!(serde_json::to_value(&lame).unwrap()["vmm_ms"].is_null());
    }
}
