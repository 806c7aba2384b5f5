//! `lockstep status`: the state of the members on this host.

use super::{CliError, Status};
use clap::Args;
use ft_protocol::arbiter::check_vm_name;
use lockstep_events::{
    CopyProgress, LinkState, MemberStatus, NetworkStatus, PrimaryStatus, RoleStatus,
};
use lockstep_ft::control::status;
use lockstep_out as out;
use serde_json::json;
use std::fmt::Write as _;

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Name of the VM; all of this host's if it is not told.
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Prints it. If a VM was named and none of its members runs here, it is refused.
pub fn run(args: &StatusArgs) -> Result<Status, CliError> {
    if let Some(vm) = &args.vm {
        check_vm_name(vm)?;
    }
    let members = status(args.vm.as_deref())?;
    if let (Some(vm), []) = (&args.vm, &members[..]) {
        return Err(CliError::refused(format!(
            "no member of VM {vm} was found on this host; run this where one runs, as the same user"
        )));
    }
    let text = match args.json {
        true => format!("{}\n", json!({ "members": members })),
        false => members.iter().map(describe).collect(),
    };
    out::print_text(&text).map_err(|e| CliError::unprinted(&e))?;
    Ok(Status::Done)
}

/// The state of a member's TAP as text.
fn network(network: &NetworkStatus) -> String {
    let tap = &network.tap;
    let mut text = match network.link {
        LinkState::Up => format!("; TAP {tap} up"),
        LinkState::Down => format!("; TAP {tap} is down: no network here"),
        LinkState::Gone => format!("; TAP {tap} is gone: no network here"),
    };
    let dropped = network.over_rate;
    if dropped > 0 {
        let _ = write!(text, ", {dropped} broadcasts over the limit dropped");
    }
    text
}

/// How far a copy is, for a person.
fn copy(copy: &CopyProgress) -> String {
    format!(
        "; copy: round {}, {} pages of it, {:.1} MiB sent, {:.0} MiB/s, {:.0} MiB/s written, \
         a stop now {:.1} ms",
        copy.round,
        copy.pages,
        copy.bytes_sent as f64 / f64::from(1 << 20),
        copy.rate_mib_s,
        copy.dirty_mib_s,
        copy.estimated_pause_ms,
    )
}

/// A member's state as text.
fn describe(status: &MemberStatus) -> String {
    let MemberStatus {
        vm,
        member,
        state,
        generation,
        ..
    } = status;
    let mut line = format!("{vm} member {member}: {state}, generation {generation}");
    if let RoleStatus::Primary(primary) = &status.role {
        let (lag, throttle) = (primary.lag_ms, primary.throttle_percent);
        let _ = write!(line, "; lag {lag:.1} ms, throttled by {throttle} %");
    }
    if let Some(wrong) = &status.records {
        let _ = write!(line, "; {wrong}");
    }
    if let RoleStatus::Primary(PrimaryStatus {
        copy: Some(progress),
        ..
    }) = &status.role
    {
        line.push_str(&copy(progress));
    }
    if let Some(tap) = &status.network {
        line.push_str(&network(tap));
    }
    line + "\n"
}
