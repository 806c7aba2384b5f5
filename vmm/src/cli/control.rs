//! `lockstep stop` and `lockstep switchover`: an operator's requests to a running VM.

use super::{CliError, Status};
use clap::Args;
use ft_protocol::arbiter::check_vm_name;
use ft_protocol::wire::Request;
use lockstep_ft::control::ask;

/// Arguments of both.
#[derive(Args, Debug)]
pub struct ControlArgs {
    /// Name of the VM; one of its members runs on this host.
    #[arg(long, value_name = "NAME")]
    vm: String,
}

/// Sends the request to a member on this host, and waits until it is done.
pub fn run(args: &ControlArgs, request: Request) -> Result<Status, CliError> {
    check_vm_name(&args.vm)?;
    ask(&args.vm, request)?;
    Ok(Status::Done)
}
