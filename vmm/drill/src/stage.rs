//! The stage on which every scenario plays: one run's directory, network, members and client.

mod start;
mod waits;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::churn::{self, Churn};
use super::client::{Client, Record};
use super::clock::mono_ns;
use super::guest::Server;
use super::hosts::Hosts;
use super::interrupt::Interrupts;
use super::lane::{Counts, Quality};
use super::members::{MemberError, MemberId, Members, Program, Resources};
use super::seed::Random;
use super::verdict::{Leg, Links, Observation};
use lockstep_events::Event;
use lockstep_netns::{GUEST, NetworkError, enter_new_network};
use rustix::process::Signal;

/// The members' names, which are part of the names of their files.
pub(super) const PRIMARY: &str = "primary";
pub(super) const BACKUP: &str = "backup";
pub(super) const RESTART: &str = "restart";
/// The names of members that supervisors restart, on the primary's host and on the backup's.
pub(super) const RESTARTS: [&str; 2] = ["restart-a", "restart-b"];

/// The logging channel's port; the next one is for the other host if both have one address. Every run
/// has its own network, so both ports are always free.
const CHANNEL_PORT: u16 = 7700;
/// The port on which the guest serves Redis's protocol.
const GUEST_PORT: u16 = 6379;
/// How long a pair may take from its start until the guest executes.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a member may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait between two attempts to connect to a guest that still boots.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// Why a run could not be played to its end.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum RunError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error("the guest did not answer PING within {seconds} s: {reason}", seconds = limit.as_secs())]
    NoPing { limit: Duration, reason: String },
    #[error("the guest cannot be made to write: {0}")]
    NoChurn(redis::RedisError),
    #[error("the run's files in {path} cannot be written: {source}; see to space and permissions there", path = path.display())]
    Files { path: PathBuf, source: io::Error },
}

impl RunError {
    /// Can this host play no run at all, so that the next one need not be tried?
    pub(super) fn is_the_hosts(&self) -> bool {
        match self {
            Self::Network(_) | Self::Files { .. } => true,
            Self::Member(e) => matches!(e, MemberError::HostCannot { .. }),
            Self::NoPing { .. } | Self::NoChurn(_) => false,
        }
    }
}

/// The settings of all runs. Tests use members of their own.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) program: Program,
    /// The guest that serves the client, and where.
    pub(super) server: Server,
    pub(super) guest: SocketAddrV4,
    pub(super) interrupts: Interrupts,
    /// Do backups keep the frames that their TAPs get?
    pub(super) shadow: bool,
    /// The members' CPU.
    pub(super) cpu: Cpu,
    /// Memory of the machines, MiB, if it was given.
    pub(super) mem_mib: Option<u32>,
    /// How long a run of `quiet` lasts.
    pub(super) quiet: Duration,
}

impl Setting {
    pub(super) fn new(interrupts: Interrupts, shadow: bool) -> Self {
        Self {
            program: Program::this(),
            server: Server::Kv,
            guest: SocketAddrV4::new(GUEST, GUEST_PORT),
            interrupts,
            shadow,
            cpu: Cpu::Auto,
            mem_mib: None,
            quiet: super::quiet::UNLESS_TOLD,
        }
    }
}

/// The members' `--cpu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Cpu {
    /// The host's KVM.
    Kvm,
    /// The one in software.
    Soft,
    /// KVM where it can be used.
    Auto,
}

impl Cpu {
    /// As an argument.
    fn argument(self) -> &'static str {
        match self {
            Cpu::Kvm => "kvm",
            Cpu::Soft => "soft",
            Cpu::Auto => "auto",
        }
    }
}

/// The guests of drills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// The one that was chosen to serve Redis's protocol, on the network.
    Server,
    /// The one that computes, without a network.
    Threads,
}

/// A running pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) primary: MemberId,
    pub(super) backup: MemberId,
}

/// One run in play. Dropping it ends all members.
#[derive(Debug)]
pub(super) struct Stage {
    /// The run's random moments.
    pub(super) random: Random,
    /// The number of legs of a chain.
    pub(super) runs: u32,
    /// How long a run of `quiet` lasts.
    pub(super) quiet: Duration,
    cpu: Cpu,
    mem_mib: Option<u32>,
    dir: PathBuf,
    server: Server,
    guest: SocketAddrV4,
    members: Members,
    /// What makes the guest write, if it must be made to all the time.
    churn: Option<Churn>,
    client: Option<Client>,
    record: Option<Record>,
    killed: Option<(&'static str, u64)>,
    statuses: Vec<(&'static str, Option<i32>)>,
    shadow: bool,
    /// The members' hosts, if each has its own.
    hosts: Option<Hosts>,
    links: Links,
    legs: Vec<Leg>,
}

impl Stage {
    /// Enters a new private network and makes the run's directory, `dir`, which must not exist.
    pub(super) fn new(setting: &Setting, dir: &Path, seed: u64) -> Result<Self, RunError> {
        let arbiter = dir.join("arbiter");
        make_private(dir)
            .and_then(|()| make_private(&arbiter))
            .map_err(|source| files(dir, source))?;
        enter_new_network()?;
        Ok(Self {
            random: Random::new(seed),
            runs: 1,
            quiet: setting.quiet,
            cpu: setting.cpu,
            mem_mib: setting.mem_mib.or(setting.server.mem_mib()),
            dir: dir.to_owned(),
            server: setting.server.clone(),
            guest: setting.guest,
            members: Members::new(dir, setting.program.clone(), setting.interrupts.clone()),
            churn: None,
            client: None,
            record: None,
            killed: None,
            statuses: Vec::new(),
            shadow: setting.shadow,
            hosts: None,
            links: Links::default(),
            legs: Vec::new(),
        })
    }

    /// Gives each member its own host. Must be called before any member is started.
    pub(super) fn separate_hosts(&mut self) -> Result<(), RunError> {
        self.hosts = Some(Hosts::enter()?);
        Ok(())
    }

    /// Makes the guest write `rate` MiB a second into `pool` MiB of its memory.
    pub(super) fn churn(&mut self, rate: u32, pool: u32) -> Result<(), RunError> {
        let made = match self.server {
            Server::Kv => churn::of_kv(self.guest, rate, pool),
            Server::Linux { .. } => {
                Churn::of_redis(self.guest, rate, pool).map(|churn| self.churn = Some(churn))
            }
        };
        made.map_err(RunError::NoChurn)
    }

    /// A name for one of a chain's many members. It lives as long as the drill, like all names.
    pub(super) fn name(&self, name: String) -> &'static str {
        name.leak()
    }

    /// Waits until a member has reported an event that `wanted` accepts, or has ended by itself; notes
    /// its status then. Returns whether it ended.
    pub(super) fn ends_or_tells(
        &mut self,
        id: MemberId,
        name: &'static str,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<bool, RunError> {
        let what = "the member told of it, or ended";
        let status = self.members.ends_or_tells(id, what, limit, wanted)?;
        if let Some(status) = status {
            self.statuses.push((name, status));
        }
        Ok(status.is_some())
    }

    /// Notes the end of one leg of a chain: `survivor` outlived the member that was killed last.
    pub(super) fn note_leg(
        &mut self,
        survivor: &'static str,
        id: MemberId,
    ) -> Result<(), RunError> {
        let (killed, killed_ns) = self.killed.expect("a leg begins with a kill");
        let Resources {
            memory_kib,
            open_files,
        } = self.members.resources(id)?;
        self.legs.push(Leg {
            killed,
            killed_ns,
            survivor,
            memory_kib,
            open_files,
        });
        Ok(())
    }

    /// Kills a member with SIGKILL and notes the moment.
    pub(super) fn kill(&mut self, name: &'static str, id: MemberId) -> Result<(), RunError> {
        let moment = self.members.kill(id)?;
        self.killed = Some((name, moment));
        Ok(())
    }

    /// Takes down all links of a member's host, and then kills the member: no packet shows its end.
    pub(super) fn power_off(&mut self, name: &'static str, id: MemberId) -> Result<(), RunError> {
        self.killed = Some((name, mono_ns()));
        self.hosts().unplug(usize::from(name != PRIMARY))?;
        self.members.kill(id)?;
        Ok(())
    }

    /// From now on the frames that the hosts in `from` (0 is the primary's) send to the other host are
    /// treated like this.
    pub(super) fn set_wire(&mut self, from: &[usize], quality: Quality) {
        self.links.changed_ns = Some(mono_ns());
        let delay = u64::try_from(quality.delay.as_nanos()).expect("a delay is short");
        self.links.round_trip_ns += delay * from.len() as u64;
        for &host in from {
            self.hosts().set_wire(host, quality);
        }
    }

    /// Waits until `wanted` accepts the counts of the hosts' frames. If a member ends, it is an error.
    pub(super) fn wait_for_wire(
        &mut self,
        what: &'static str,
        limit: Duration,
        wanted: impl Fn(&[Counts; 2]) -> bool,
    ) -> Result<(), RunError> {
        let deadline = Instant::now() + limit;
        while !wanted(&self.hosts().counts()) {
            if Instant::now() >= deadline {
                return Err(MemberError::Late { what, limit }.into());
            }
            self.members.pause(what, BETWEEN_ATTEMPTS)?;
        }
        Ok(())
    }

    fn hosts(&self) -> &Hosts {
        let hosts = self.hosts.as_ref();
        hosts.expect("only scenarios with separate hosts do something to their links")
    }

    /// Sends a member the signal that is the subject of this run, and notes the moment.
    pub(super) fn strike(
        &mut self,
        name: &'static str,
        id: MemberId,
        signal: Signal,
    ) -> Result<(), RunError> {
        let moment = self.members.send(id, signal)?;
        self.killed = Some((name, moment));
        Ok(())
    }

    /// Sends a member a signal.
    pub(super) fn send(&mut self, id: MemberId, signal: Signal) -> Result<(), RunError> {
        self.members.send(id, signal)?;
        Ok(())
    }

    /// Runs `lockstep ARGS`, which is the subject of this run, and notes its status as that of
    /// `command`.
    pub(super) fn command(&mut self, args: &[&str]) -> Result<(), RunError> {
        let status = self.members.command(args)?;
        self.statuses.push(("command", status));
        Ok(())
    }

    /// Waits until a member ends, which is expected, and notes its status.
    pub(super) fn await_end(&mut self, name: &'static str, id: MemberId) -> Result<(), RunError> {
        let status = self.members.await_end(id, "a member ended", END_LIMIT)?;
        self.statuses.push((name, status));
        Ok(())
    }

    /// Waits until one member of the pair ends, which is expected, and notes its status. Returns the
    /// other's id.
    pub(super) fn await_one_end(&mut self, pair: Pair) -> Result<MemberId, RunError> {
        let ids = [pair.primary, pair.backup];
        let what = "one of the two ended";
        let (ended, status) = self.members.await_one_end(&ids, what, END_LIMIT)?;
        let (name, other) = match ended == pair.primary {
            true => (PRIMARY, pair.backup),
            false => (BACKUP, pair.primary),
        };
        self.statuses.push((name, status));
        Ok(other)
    }

    /// Moves the arbiter's directory away, or back.
    pub(super) fn move_arbiter(&self, away: bool) -> Result<(), RunError> {
        let (here, there) = (self.dir.join("arbiter"), self.dir.join("arbiter-away"));
        let moved = match away {
            true => fs::rename(&here, &there),
            false => fs::rename(&there, &here),
        };
        moved.map_err(|source| files(&here, source))
    }

    /// Stops the client. Its record is kept for the verdict.
    pub(super) fn finish_client(&mut self) {
        if let Some(client) = self.client.take() {
            self.record = Some(client.finish());
        }
    }

    /// Stops the client and all members, writes the client's record beside the logs, and returns
    /// everything that was seen.
    pub(super) fn close(mut self) -> Result<Observation, RunError> {
        self.finish_client();
        self.churn = None;
        let client = self.record.take();
        if let Some(record) = &client {
            let path = self.dir.join("answers.csv");
            fs::write(&path, table(record)).map_err(|source| files(&path, source))?;
        }
        let unread = self.members.stop_all()?;
        let members = self.members.logs();
        let mut printed = Vec::new();
        for (name, _) in &members {
            let path = self.dir.join(format!("{name}.stdout"));
            let bytes = fs::read(&path).map_err(|source| files(&path, source))?;
            printed.push((*name, String::from_utf8_lossy(&bytes).into_owned()));
        }
        if let Some(hosts) = &self.hosts {
            self.links.counts = hosts.counts();
        }
        Ok(Observation {
            members,
            unread: unread.iter().map(ToString::to_string).collect(),
            printed,
            killed: self.killed,
            statuses: self.statuses,
            client,
            links: self.links,
            legs: self.legs,
            records: records(&self.dir.join("arbiter/drill"))?,
        })
    }
}

/// The names of the arbiter's records in `dir`; empty if the run did not get that far.
fn records(dir: &Path) -> Result<Vec<String>, RunError> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(files(dir, e)),
    };
    let mut names = Vec::new();
    for entry in list {
        let name = entry.map_err(|e| files(dir, e))?.file_name();
        let name = name.to_string_lossy().into_owned();
        // A member that was killed while it wrote a record leaves a temporary file behind.
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn files(path: &Path, source: io::Error) -> RunError {
    RunError::Files {
        path: path.to_owned(),
        source,
    }
}

/// Makes a directory that only this user may enter: a replay shows everything that the guest ever held
/// in RAM.
pub(super) fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// The client's record as comma-separated values.
fn table(record: &Record) -> String {
    let mut text = String::from("sent_ns,answered_ns,value\n");
    for answer in &record.answers {
        let (sent, answered, value) = (answer.sent_ns, answer.answered_ns, answer.value);
        writeln!(text, "{sent},{answered},{value}").expect("a String takes all that is written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_no_records() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1.open", ".1.claim.7", "1.claim"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(records(dir.path()).unwrap(), ["1.claim", "1.open"]);
        assert_eq!(records(&dir.path().join("none")).unwrap(), [] as [&str; 0]);
    }
}
