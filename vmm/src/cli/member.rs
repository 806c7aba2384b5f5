//! `lockstep primary` and `lockstep backup`: the two halves of a pair.

use super::guest::{GuestArgs, LinuxArgs};
use super::options::MachineArgs;
use super::run::report;
use super::storage::{ArbiterArgs, latest_of};
use super::tools::{Ready, Tools, check};
use super::{CliError, Status};
use clap::{Args, ValueEnum};
use ft_protocol::arbiter::{check_vm_name, next_generation};
use ft_protocol::backup::Expectations;
use lockstep_ft::backup::{BackupParts, Served};
use lockstep_ft::cuts::Cuts;
use lockstep_ft::primary::PrimaryParts;
use lockstep_ft::{Outcome, backup, primary};
use lockstep_machine::drive::Driven;
use lockstep_machine::host_print;
use lockstep_out as out;
use lockstep_pulse::install_kick;
use lockstep_replay::{IfSlow, LogDirWriter};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::runtime::{Builder, Runtime};

/// What both halves are told.
#[derive(Args, Clone, Debug)]
pub(super) struct MemberArgs {
    /// Name of the VM, the same on both sides.
    #[arg(long, value_name = "NAME")]
    pub(super) vm: String,
    #[command(flatten)]
    pub(super) arbiter: ArbiterArgs,
    /// The logging channel: the primary listens there, the backup connects there.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) channel: SocketAddr,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    /// Record into this new directory, for `lockstep replay`.
    #[arg(long, value_name = "DIR")]
    pub(super) record: Option<PathBuf>,
    /// Add what happens to this file, one JSON object a line.
    #[arg(long, value_name = "PATH")]
    pub(super) events: Option<PathBuf>,
    /// Run this by `sh -c` after a won test-and-set and before going on alone: it shuts the other side
    /// out of what both could write to. Tried again until it succeeds.
    #[arg(long, value_name = "COMMAND")]
    fence: Option<String>,
    /// As a backup, keep what the own TAP gets, so that a request which dies with the primary is
    /// answered at once: needs bridges that do not learn where the guest is.
    #[arg(long, value_name = "on|off", default_value = "on")]
    shadow: Switch,
}

/// An option that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Arguments of `primary`.
#[derive(Args, Debug)]
pub struct PrimaryArgs {
    #[command(flatten)]
    pub(super) guest: GuestArgs,
    #[command(flatten)]
    pub(super) member: MemberArgs,
    /// Start at once and run without a backup.
    #[arg(long)]
    pub(super) solo: bool,
    /// Start although the arbiter says that the VM may still run somewhere: it is surely dead.
    #[arg(long)]
    pub(super) force: bool,
}

/// Arguments of `backup`.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Where the next backup may connect once this side runs alone: without it, none can.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// The guest that the primary must run: a name or a path as `primary` takes it. Whatever it runs,
    /// unless told.
    pub(super) guest: Option<String>,
    #[command(flatten)]
    pub(super) linux: LinuxArgs,
    #[command(flatten)]
    pub(super) member: MemberArgs,
}

/// Runs a primary, with this planted.
pub fn run_primary(args: PrimaryArgs, cuts: Cuts) -> Result<Status, CliError> {
    let member = &args.member;
    check_vm_name(&member.vm)?;
    let found = latest_of(&member.arbiter.proved(&member.vm)?)?;
    let generation = next_generation(&member.vm, found.as_ref(), args.force)?;
    let image = args.guest.load()?;
    let tools = Tools::open(member, Some(("--channel", member.channel)))?;
    let ready = Ready::make(member, &tools, image)?;
    told(serve_primary(
        member,
        args.solo,
        (tools, ready),
        generation,
        cuts,
    )?)
}

/// Runs a primary that opens `generation`.
pub(super) fn serve_primary(
    member: &MemberArgs,
    solo: bool,
    (tools, ready): (Tools, Ready),
    generation: u64,
    cuts: Cuts,
) -> Result<Outcome, CliError> {
    let Ready {
        header,
        image,
        machine,
        writer,
    } = ready;
    let port = tools.port.expect("a primary listens");
    let (live, direct) = tools.backends.live_in_pair()?;
    let live = live.with_line(machine.has_line());
    let parts = PrimaryParts {
        header,
        image,
        machine,
        live,
        direct,
        recording: writer.as_ref().map(|w| w.consumer(IfSlow::GiveUp)),
        arbiter: member.arbiter.connect()?,
        generation,
        solo,
        events: tools.events,
        fence: member.fence.clone(),
        cuts,
    };
    let outcome: io::Result<Outcome> = runtime()?.block_on(primary::serve(parts, port));
    // A failed recording does not end the machine, and was reported when it failed.
    if let Some(Err(e)) = writer.map(LogDirWriter::finish) {
        tracing::error!("{e}");
    }
    outcome.map_err(|e| CliError::of_member(&e))
}

/// Runs a backup, with this planted.
pub fn run_backup(args: BackupArgs, cuts: Cuts) -> Result<Status, CliError> {
    let member = &args.member;
    check_vm_name(&member.vm)?;
    check(("--channel", member.channel))?;
    let tools = Tools::open(member, args.listen.map(|listen| ("--listen", listen)))?;
    latest_of(&member.arbiter.proved(&member.vm)?)?;
    told(serve_backup(member, tools, args.guest_hash()?, cuts)?)
}

/// Runs a backup, and then the primary that it becomes. If `image` is a hash, the primary must run that
/// image.
pub(super) fn serve_backup(
    member: &MemberArgs,
    tools: Tools,
    image: Option<u128>,
    cuts: Cuts,
) -> Result<Outcome, CliError> {
    let tap = tools.backends.tap.clone();
    let (live, direct) = tools.backends.live_in_pair()?;
    let cpus = member.machine.cpu.cpus();
    let parts = BackupParts {
        vm: member.vm.clone(),
        host: host_print(cpus.branch_edges)?,
        cpus,
        expect: Expectations {
            mem_mib: member.machine.mem,
            mac: member.machine.net.mac,
            ip: member.machine.net.ip,
            gateway: member.machine.net.gateway,
            quantum: member.machine.quantum,
            image,
        },
        channel: member.channel,
        listen: tools.port,
        arbiter: member.arbiter.connect()?,
        tap,
        live,
        direct,
        record: member.record.clone(),
        events: tools.events,
        shadow: member.shadow == Switch::On,
        fence: member.fence.clone(),
        cuts,
    };
    let outcome = runtime()?.block_on(async {
        match backup::serve(parts).await? {
            Served::Done(outcome) => Ok(outcome),
            Served::Live(survivor) => primary::serve_survivor(*survivor).await,
        }
    });
    outcome.map_err(|e| CliError::of_member(&e))
}

impl BackupArgs {
    fn guest_hash(&self) -> Result<Option<u128>, CliError> {
        let load = |guest: &String| Ok(self.linux.load(guest)?.hash());
        self.guest.as_ref().map(load).transpose()
    }
}

pub(super) fn runtime() -> Result<Runtime, CliError> {
    out::begin();
    install_kick().map_err(|e| CliError::failed(format!("cannot set up a signal ({e})")))?;
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed(format!("cannot start the runtime ({e})")))
}

/// Reports the outcome of a member to the operator.
pub(super) fn told(outcome: Outcome) -> Result<Status, CliError> {
    match outcome {
        Outcome::Ended(reason) => Ok(report(Driven::Ended(reason))),
        Outcome::HandedOver => {
            out::tell("handed over to the backup");
            Ok(Status::Done)
        }
        Outcome::LeftOpen(reason, why) => {
            report(Driven::Ended(reason));
            Err(why.into())
        }
        Outcome::Left => {
            out::tell("left");
            Ok(Status::Done)
        }
        Outcome::Halted(halt) => Err(halt.into()),
    }
}
