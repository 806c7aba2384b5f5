//! `lockstep member`: half of a pair that takes its role from the arbiter, so that a supervisor may
//! restart it blindly on both hosts without ever booting a second guest.

use super::member::{BackupArgs, MemberArgs, PrimaryArgs, serve_backup, serve_primary, told};
use super::storage::latest_of;
use super::{CliError, Status};
use clap::Args;
use ft_protocol::arbiter::{FIRST_GENERATION, Role, check_vm_name, judge_latest, judge_start};
use lockstep_ft::arbiter::found;
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
    /// A guest that ships with Lockstep, or the path of an ELF file; the same on both sides.
    guest: String,
    #[command(flatten)]
    member: MemberArgs,
    /// Where this side listens: the other side's --channel. A VM that never ran knows its founder by it.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
}

/// Asks the arbiter for the role, and plays it.
pub fn run(args: RoleArgs) -> Result<Status, CliError> {
    check_vm_name(&args.member.vm).map_err(CliError::refused)?;
    args.check_addresses()?;
    let role = args.role()?;
    let RoleArgs {
        guest,
        mut member,
        listen,
    } = args;
    // A recording needs a directory of its own, and a supervisor starts many.
    member.record = member.record.map(|dir| dir.join(unix_ns().to_string()));
    let outcome = match role {
        Role::Founder => {
            member.channel = listen;
            let args = PrimaryArgs {
                guest,
                member,
                solo: false,
                force: false,
            };
            serve_primary(args, FIRST_GENERATION)?
        }
        Role::Backup => serve_backup(BackupArgs {
            listen: Some(listen),
            guest: Some(guest),
            member,
        })?,
        Role::Ended { generation } => {
            out::tell(format_args!(
                "VM {} has ended, in generation {generation}, and there is nothing to do; to \
                 start it anew, run `lockstep primary` on one host and `lockstep backup` on the other",
                member.vm
            ));
            return Ok(Status::Done);
        }
    };
    match outcome {
        Outcome::HandedOver => Err(begin_anew()),
        other => told(other),
    }
}

/// Runs this program anew with the same arguments: a side that handed over protects the other from here
/// on, in a process that has nothing left of the one before. Comes back only if that cannot be.
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
    /// The founder is known by where it listens, so that has to be told apart.
    fn check_addresses(&self) -> Result<(), CliError> {
        let (listen, channel) = (self.listen, self.member.channel);
        if listen.ip().is_unspecified() || listen.port() == 0 {
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

    fn role(&self) -> Result<Role, CliError> {
        let vm = &self.member.vm;
        let asker = self.member.arbiter.proved(vm)?;
        let last = || latest_of(&asker);
        if let Some(latest) = last()? {
            return Ok(self.told(judge_latest(&latest)));
        }
        let listen = self.listen;
        let start = asker.ask_now(move |arbiter, vm, _| found(arbiter, vm, listen));
        let start = start.map_err(CliError::refused)?;
        // Between the two looks the VM may have been founded, run and ended.
        if let Some(latest) = last()? {
            return Ok(self.told(judge_latest(&latest)));
        }
        let role = judge_start(vm, self.listen, self.member.channel, &start);
        role.map_err(CliError::refused)
    }

    /// Says what an open generation means for this member.
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
