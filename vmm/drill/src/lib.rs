//! Drills: failures made on purpose, on real processes and real KVM, each with a verdict.
//!
//! A scenario is a file with one [`Scenario`] constant, which is listed in [`SCENARIOS`]: `play` acts
//! on a [`stage::Stage`]; `check` judges what was seen, in addition to the checks that all scenarios
//! share.

mod busy;
mod churn;
mod client;
mod clock;
mod cut_points;
mod ends;
mod events;
mod guest;
mod hosts;
mod interrupt;
mod kill_both;
mod kill_computing;
mod kill_primary;
mod lane;
mod links;
mod members;
mod one_side;
mod quiet;
mod relay;
mod report;
mod seed;
mod slow_backup;
mod stage;
mod transfer;
mod verdict;
mod wire;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod samples;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_out as out;
use thiserror::Error;

pub use cut_points::SCENARIOS as PLANTING;
pub use guest::GuestError;
pub use lockstep_netns::NetworkError;
pub use members::MemberError;
pub use stage::RunError;

use busy::Busy;
use guest::Server;
use interrupt::Interrupts;
use report::{AllReports, KeptReport, LegResult, Report, RunResult};
use stage::{Cpu, Setting, Stage, make_private};
use verdict::{Failover, Leg, Observation, Tally};

/// Longest duration of `quiet`, minutes: a week.
const MINUTES_LIMIT: i64 = 7 * 24 * 60;
/// Most runs of a drill.
const RUNS_LIMIT: i64 = 10_000;

/// A kind of failure, and how the pair must react to it.
#[derive(Debug)]
pub struct Scenario {
    name: &'static str,
    /// One sentence for `drill list`.
    about: &'static str,
    /// Does a client count all the time?
    client: bool,
    /// Does the guest serve clients, so that `--guest` can name another? Others compute.
    served: bool,
    /// Does `--runs` give the number of legs of one run, and not the number of runs?
    chain: bool,
    /// Plays it once, with random moments from the stage.
    play: fn(&mut Stage) -> Result<(), RunError>,
    /// Violations in a run beyond those of [`verdict::common`]; empty if there are none.
    check: fn(&Observation) -> Vec<String>,
}

/// The scenarios that every program plays, in the order in which `all` plays them.
const SCENARIOS: &[Scenario] = &[
    kill_primary::SCENARIO,
    kill_computing::SCENARIO,
    one_side::KILL_BACKUP,
    one_side::HANG_PRIMARY,
    one_side::HANG_BACKUP,
    one_side::ARBITER_DOWN,
    slow_backup::SCENARIO,
    quiet::SCENARIO,
    kill_both::SCENARIO,
    links::POWER_OFF,
    links::PARTITION,
    links::PARTITION_PRIMARY_MUTE,
    links::PARTITION_BACKUP_MUTE,
    links::HEARTBEAT_LOSS_ONLY,
    links::SLOW_LINK,
    transfer::JOIN,
    transfer::KILL_JOINER,
    transfer::KILL_SOURCE,
    relay::SCENARIO,
    one_side::LEAVE,
    one_side::STOP,
    one_side::SWITCHOVER,
];

/// Cause failures on purpose, and check that the guest outlives them
#[derive(Debug, clap::Args)]
pub struct DrillArgs {
    /// The scenario to play, `all` of them, or `list` to describe them. Those that plant faults inside a
    /// member are in `lockstep-faults drill`, which plays these too
    scenario: String,
    /// How often to play it; of a chain, how many failovers it has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=RUNS_LIMIT))]
    runs: u32,
    /// Repeats the random moments of an earlier drill
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Where to keep logs and results [default: ./lockstep-drill-TIME-PID]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Whether backups keep what their TAPs get, so that a request which dies with the primary is
    /// answered at once
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    shadow: String,
    /// The guest that serves the client: kv, linux (what guests/linux/make made), or a Linux kernel of
    /// one's own
    #[arg(long, value_name = "kv|linux|KERNEL", default_value = guest::KV)]
    guest: String,
    /// The initrd of a kernel of one's own, in which a Redis serves
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The CPU of all members: this host's KVM, the one in software, or KVM where it can be used
    #[arg(long, value_name = "kvm|soft|auto", value_enum, default_value = "auto")]
    cpu: Cpu,
    /// Memory of the pair's machine, MiB
    #[arg(long, value_name = "MIB")]
    mem: Option<u32>,
    /// Processes beside it that compute for nothing, all the while
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=busy::LIMIT))]
    busy: u32,
    /// How long the drill `quiet` lasts [default: 5 seconds]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=MINUTES_LIMIT))]
    minutes: Option<u32>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Why a drill could not be held. A drill that was held and failed is not an error.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum DrillError {
    #[error("there is no drill '{name}': choose one of {known}, 'all' or 'list'{elsewhere}")]
    UnknownScenario {
        name: String,
        known: String,
        /// Where more are.
        elsewhere: String,
    },
    #[error(
        "this host has no /dev/kvm: load KVM's module for its processor (modprobe kvm_intel or kvm_amd), and inside a virtual machine enable nested virtualisation, or use --cpu soft"
    )]
    NoKvm,
    #[error(
        "/dev/kvm cannot be used by this user ({0}): add the user to the group that owns it (usually 'kvm'), run the drill as root, or use --cpu soft"
    )]
    KvmDenied(io::Error),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error("the drill '{0}' has a guest of its own, which computes: hold it without --guest")]
    OwnGuest(&'static str),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Host(RunError),
    #[error("the report directory {path} cannot be made: {source}; name a new one with --report", path = path.display())]
    ReportDir { path: PathBuf, source: io::Error },
    #[error("the signal handlers cannot be set up: {0}; see to limits on threads and open files")]
    Signals(io::Error),
    #[error("no process can be started to be busy beside the pair: {0}; see to `sh` and to limits")]
    Busy(io::Error),
    #[error("the verdict cannot be written: {0}; see to space and permissions")]
    Output(#[from] io::Error),
}

/// What a program says that has no drills which plant faults.
const ELSEWHERE: &str =
    "drills that plant faults inside a member are those of `lockstep-faults drill`";

/// Holds the drill and prints its verdict: whether all checks held. `planting` are the scenarios that this
/// program plays besides those of every program.
///
/// Must be called on the main thread while the process has no other thread: it enters its own
/// namespaces, and members end with the thread that started them.
pub fn run(args: &DrillArgs, planting: &'static [Scenario]) -> Result<bool, DrillError> {
    if args.scenario == "list" {
        list(planting, args.json)?;
        return Ok(true);
    }
    let server = Server::told(&args.guest, args.initrd.as_deref())?;
    let chosen = choose(&args.scenario, planting, &server)?;
    let cpu = usable(args.cpu)?;
    lockstep_netns::gain_network_rights()?;
    // Every run makes a new network. This first one shows that the host allows it, before any file is
    // made.
    lockstep_netns::enter_new_network()?;
    let seed = args.seed.unwrap_or_else(seed::fresh);
    let dir = report_dir(args.report.as_deref())?;
    let interrupts = Interrupts::watch(dir.clone()).map_err(DrillError::Signals)?;
    say(&format!("seed {seed}; logs in {}", dir.display()));
    let mut setting = Setting::new(interrupts, args.shadow == "on");
    setting.server = server;
    setting.cpu = cpu;
    setting.mem_mib = args.mem;
    if let Some(minutes) = args.minutes {
        setting.quiet = Duration::from_secs(60 * u64::from(minutes));
    }
    let _busy = Busy::start(args.busy).map_err(DrillError::Busy)?;
    let mut reports = Vec::new();
    for scenario in chosen {
        reports.push(hold(scenario, args.runs, seed, &dir, &setting)?);
    }
    print(&reports, args.scenario == "all", args.json)?;
    Ok(reports.iter().all(|(report, _)| report.passed()))
}

fn choose(
    name: &str,
    planting: &'static [Scenario],
    server: &Server,
) -> Result<Vec<&'static Scenario>, DrillError> {
    let all: Vec<&Scenario> = SCENARIOS.iter().chain(planting).collect();
    let playable = |scenario: &Scenario| scenario.served || *server == Server::Kv;
    if name == "all" {
        return Ok(all.into_iter().filter(|s| playable(s)).collect());
    }
    if let Some(found) = all.iter().find(|s| s.name == name) {
        return match playable(found) {
            true => Ok(vec![found]),
            false => Err(DrillError::OwnGuest(found.name)),
        };
    }
    let names: Vec<String> = all.iter().map(|s| format!("'{}'", s.name)).collect();
    Err(DrillError::UnknownScenario {
        name: name.to_owned(),
        known: names.join(", "),
        elsewhere: match planting.is_empty() {
            true => format!("; {ELSEWHERE}"),
            false => String::new(),
        },
    })
}

fn list(planting: &[Scenario], json: bool) -> io::Result<()> {
    let all = SCENARIOS.iter().chain(planting);
    if json {
        let describe = |s: &Scenario| serde_json::json!({"name": s.name, "about": s.about});
        let all: Vec<_> = all.map(describe).collect();
        return out::print(serde_json::json!({ "scenarios": all }));
    }
    let describe = |s: &Scenario| format!("{}\n    {}\n", s.name, s.about);
    out::print_text(&all.map(describe).collect::<String>())?;
    if planting.is_empty() {
        say(ELSEWHERE);
    }
    Ok(())
}

/// The CPU that members can use here; they check more.
fn usable(cpu: Cpu) -> Result<Cpu, DrillError> {
    match (cpu, check_kvm()) {
        (Cpu::Soft, _) => Ok(Cpu::Soft),
        (cpu, Ok(())) => Ok(cpu),
        (Cpu::Kvm, Err(error)) => Err(error),
        (Cpu::Auto, Err(error)) => {
            say(&format!("the guests run on the software CPU: {error}"));
            Ok(Cpu::Soft)
        }
    }
}

/// Checks /dev/kvm before anything is made.
fn check_kvm() -> Result<(), DrillError> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match opened {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(DrillError::NoKvm),
        Err(e) => Err(DrillError::KvmDenied(e)),
    }
}

/// Makes the directory for the report, and returns its absolute path.
fn report_dir(told: Option<&Path>) -> Result<PathBuf, DrillError> {
    let path = match told {
        Some(path) => path.to_owned(),
        None => default_dir(),
    };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let made = parent.map_or(Ok(()), fs::create_dir_all);
    let made = made.and_then(|()| match make_private(&path) {
        // An empty directory may have been prepared. An old report must not be changed.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_empty(&path) => Ok(()),
        other => other,
    });
    made.and_then(|()| path.canonicalize())
        .map_err(|source| DrillError::ReportDir { path, source })
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

fn default_dir() -> PathBuf {
    let now = time::OffsetDateTime::now_utc();
    let (hour, minute, second) = now.to_hms();
    let date = format!("{}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let pid = std::process::id();
    format!("lockstep-drill-{date}-{hour:02}{minute:02}{second:02}-{pid}").into()
}

/// Plays all runs of one scenario, one after the other.
fn hold(
    scenario: &Scenario,
    runs: u32,
    seed: u64,
    dir: &Path,
    setting: &Setting,
) -> Result<(Report, Vec<RunResult>), DrillError> {
    let mut results = Vec::new();
    let (runs, legs) = match scenario.chain {
        true => (1, runs),
        false => (runs, 1),
    };
    for run in 1..=runs {
        // With `--seed` and the seed of a later run, that run comes first.
        let run_seed = seed.wrapping_add(u64::from(run - 1));
        let run_dir = dir.join(format!("{}-{run:03}", scenario.name));
        let mut stage = Stage::new(setting, &run_dir, run_seed).map_err(DrillError::Host)?;
        stage.runs = legs;
        let result = play(scenario, run, run_seed, &run_dir, stage)?;
        say(&format!("{} {run}/{runs}: {result}", scenario.name));
        results.push(result);
    }
    let report = Report::new(scenario.name, seed, dir, &results);
    let kept = KeptReport {
        verdict: &report,
        runs: &results,
    };
    let text = serde_json::to_string_pretty(&kept).map_err(io::Error::from)?;
    fs::write(dir.join(format!("{}.json", scenario.name)), text + "\n")?;
    Ok((report, results))
}

/// Plays one run and judges it.
fn play(
    scenario: &Scenario,
    run: u32,
    seed: u64,
    dir: &Path,
    mut stage: Stage,
) -> Result<RunResult, DrillError> {
    let mut troubles = Vec::new();
    if let Err(trouble) = (scenario.play)(&mut stage) {
        if trouble.is_the_hosts() {
            return Err(DrillError::Host(trouble));
        }
        troubles.push(trouble.to_string());
    }
    let seen = stage.close().map_err(DrillError::Host)?;
    let mut violations = troubles;
    violations.extend(verdict::common(&seen));
    if scenario.client && seen.client.is_none() {
        violations.push("the client never connected".to_owned());
    }
    violations.extend((scenario.check)(&seen));
    let survivor = seen.members.iter().find(|(name, _)| {
        let killed = seen.killed.map(|(killed, _)| killed);
        killed.is_some_and(|killed| killed != *name)
    });
    let failover = seen
        .killed
        .zip(survivor)
        .and_then(|((_, at), (_, events))| Failover::measure(at, events).ok());
    let logs = seen.members.iter().map(|(name, _)| dir.join(name));
    Ok(RunResult {
        run,
        seed,
        dir: dir.to_owned(),
        tally: seen.client.as_ref().map(Tally::of).unwrap_or_default(),
        failover,
        longest_gap_ns: verdict::longest_gap_ns(seen.answers()),
        silence_ns: quiet::longest_silence_ns(&seen.members),
        pause_ns: transfer::pause_ns(&seen),
        legs: legs(&seen),
        live: ends::failovers(&seen.members)
            .into_iter()
            .map(|(name, _)| name)
            .collect(),
        split_brains: verdict::split_brains(&seen.members),
        divergences: verdict::divergences(&seen.members),
        violations,
        logs: logs.filter(|log| log.exists()).collect(),
    })
}

/// The legs of a chain: each lasts from one death to the next.
fn legs(seen: &Observation) -> Vec<LegResult> {
    let ends = seen.legs.iter().skip(1).map(|leg| leg.killed_ns);
    let ends = ends.chain(std::iter::once(u64::MAX));
    let leg = |(leg, end): (&Leg, u64)| {
        let answers = seen.answers();
        // The last answer before the death counts too, as the wait began with it.
        let first = answers.partition_point(|a| a.answered_ns < leg.killed_ns);
        let last = answers.partition_point(|a| a.answered_ns < end);
        let events = seen.events(leg.survivor);
        LegResult {
            survivor: leg.survivor,
            failover: Failover::measure(leg.killed_ns, events).ok(),
            longest_gap_ns: verdict::longest_gap_ns(&answers[first.saturating_sub(1)..last]),
            pause_ns: transfer::pause_of(events),
            memory_kib: leg.memory_kib,
            open_files: leg.open_files,
        }
    };
    seen.legs.iter().zip(ends).map(leg).collect()
}

/// Prints the verdict on standard output: one JSON object, or text.
fn print(reports: &[(Report, Vec<RunResult>)], all: bool, json: bool) -> io::Result<()> {
    if json {
        return out::print(match reports {
            [(single, _)] if !all => serde_json::to_string(single)?,
            _ => serde_json::to_string(&AllReports {
                scenario: "all",
                scenarios: reports.iter().map(|(report, _)| report).collect(),
            })?,
        });
    }
    let mut out = out::results();
    for (report, results) in reports {
        write!(out, "{report}")?;
        writeln!(out, "  all is kept in {}", report.report.display())?;
        let worth = results.iter().find(|r| !r.passed()).or(results.last());
        let logs = worth.map_or(&[][..], |run| &run.logs);
        if !logs.is_empty() {
            writeln!(out, "  its logs replay with:")?;
        }
        for log in logs {
            writeln!(out, "    lockstep replay {} --verify", log.display())?;
        }
    }
    out.flush()
}

/// Reports progress to the user.
fn say(text: &str) {
    out::say(format_args!("lockstep drill: {text}"));
}
