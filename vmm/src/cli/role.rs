//! `lockstep member`: half of a pair that learns its role from the arbiter. A supervisor may restart it
//! blindly on both hosts, and never boots a second guest by that.

use super::guest::GuestArgs;
use super::member::{MemberArgs, serve_backup, serve_primary, told};
use super::storage::latest_of;
use super::tools::{Ready, Tools, check};
use super::{CliError, Status};
use clap::Args;
use ft_protocol::arbiter::{FIRST_GENERATION, Role, check_vm_name, judge_latest, judge_start};
use lockstep_ft::arbiter::{Asker, found};
use lockstep_ft::cuts::Cuts;
use lockstep_ft::{Outcome, unix_ns};
use lockstep_out as out;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Arguments of `member`.
#[derive(Args, Debug)]
#[command(
    mut_arg("channel", |arg| arg.help("Where the other side listens: its --listen")),
    mut_arg("record", |arg| arg.help("Record into a new directory in this one, for `lockstep replay`")),
)]
pub struct RoleArgs {
    #[command(flatten)]
    guest: GuestArgs,
    #[command(flatten)]
    member: MemberArgs,
    /// Where this side listens: the other side's --channel. A VM that never ran knows its founder by it.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
}

/// Asks the arbiter for the role, and plays it with this planted.
pub fn run(args: RoleArgs, cuts: Cuts) -> Result<Status, CliError> {
    check_vm_name(&args.member.vm)?;
    args.check_addresses()?;
    let asker = args.member.arbiter.proved(&args.member.vm)?;
    let known = args.known_role(&asker)?;
    if let Some(Role::Ended { generation }) = known {
        return Ok(args.has_ended(generation));
    }
    // Everything that can fail comes before this member founds the VM: a founder that cannot serve
    // would keep the peer from becoming the primary.
    let image = args.guest.load()?;
    let hash = image.hash();
    let tools = Tools::open(&args.member, Some(("--listen", args.listen)))?;
    let mut member = args.member.clone();
    // Every recording needs a new directory, and a supervisor starts many members.
    member.record = member.record.map(|dir| dir.join(unix_ns().to_string()));
    let (role, ready) = match known {
        Some(role) => (role, None),
        None => {
            let ready = Ready::make(&member, &tools, image)?;
            (args.found(&asker)?, Some(ready))
        }
    };
    let outcome = match (role, ready) {
        (Role::Founder, Some(ready)) => {
            serve_primary(&member, false, (tools, ready), FIRST_GENERATION, cuts)?
        }
        (Role::Founder, None) => unreachable!("whoever has opened a generation is no founder"),
        (Role::Backup, ready) => {
            if let Some(ready) = ready {
                ready.discard()?;
            }
            serve_backup(&member, tools, Some(hash), cuts)?
        }
        (Role::Ended { generation }, _) => return Ok(args.has_ended(generation)),
    };
    match outcome {
        Outcome::HandedOver => Err(begin_anew()),
        other => told(other),
    }
}

/// Runs this program again with the same arguments. A side that handed over becomes the backup of its
/// peer, in a process that shares nothing with the one before. Returns only if that fails.
fn begin_anew() -> CliError {
    out::tell("handed over to the backup, and becomes its backup");
    out::finish();
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let why = again.args(arguments).exec();
    CliError::failed(format!(
        "it handed over and cannot run itself again to be the backup ({why}); start it again"
    ))
}

impl RoleArgs {
    fn has_ended(&self, generation: u64) -> Status {
        out::tell(format_args!(
            "VM {} has ended, in generation {generation}, and there is nothing to do; to \
             start it anew, run `lockstep primary` on one host and `lockstep backup` on the other",
            self.member.vm
        ));
        Status::Done
    }

    /// The founder is known by its address, so the two addresses must differ.
    fn check_addresses(&self) -> Result<(), CliError> {
        let (listen, channel) = (self.listen, self.member.channel);
        check(("--channel", channel))?;
        check(("--listen", listen))?;
        if listen.ip().is_unspecified() {
            return Err(CliError::refused(format!(
                "--listen {listen} is no address of this side alone; give the one, with its port, that \
                 the other side has as --channel"
            )));
        }
        if listen == channel {
            return Err(CliError::refused(format!(
                "--listen and --channel are both {listen}; --listen is this side's address, --channel \
                 the other's"
            )));
        }
        Ok(())
    }

    /// The role; `None` if no generation was ever opened.
    fn known_role(&self, asker: &Asker<()>) -> Result<Option<Role>, CliError> {
        let latest = latest_of(asker)?;
        Ok(latest.map(|latest| self.told(judge_latest(&latest))))
    }

    /// Founds the VM, unless the peer has founded it.
    fn found(&self, asker: &Asker<()>) -> Result<Role, CliError> {
        let (vm, listen) = (&self.member.vm, self.listen);
        let start = asker.ask_now(move |arbiter, vm, _| found(arbiter, vm, listen))?;
        // The VM may have been founded, run and ended meanwhile.
        if let Some(role) = self.known_role(asker)? {
            return Ok(role);
        }
        let role = judge_start(vm, self.listen, self.member.channel, &start)?;
        Ok(role)
    }

    /// Warns the operator if an open generation makes this member a backup.
    fn told(&self, role: Role) -> Role {
        if role == Role::Backup {
            tracing::warn!(
                "VM {} may still run elsewhere: this member never boots it, and tries to reach {} as a \
                 backup; if no other member runs, start it with `lockstep primary --force`",
                self.member.vm,
                self.member.channel
            );
        }
        role
    }
}
