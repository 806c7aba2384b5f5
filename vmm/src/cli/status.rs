//! `lockstep status`: the state of the members on this host.

use super::{CliError, Status};
use clap::Args;
use ft_protocol::arbiter::check_vm_name;
use lockstep_ft::control::status;
use lockstep_out as out;
use serde_json::{Value, json};
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
        check_vm_name(vm).map_err(CliError::refused)?;
    }
    let members = status(args.vm.as_deref()).map_err(|e| {
        CliError::refused(format!(
            "cannot look for members on this host ({e}); run this as the user who started them"
        ))
    })?;
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

/// How it stands with a member's TAP, for a person.
fn network(network: &Value) -> String {
    let Some(tap) = network["tap"].as_str() else {
        return String::new();
    };
    let mut text = match network["link"].as_str() {
        Some("up") => format!("; TAP {tap} up"),
        Some(link) => format!("; TAP {tap} is {link}: no network here"),
        None => String::new(),
    };
    let dropped = network["over_rate"].as_u64().unwrap_or(0);
    if dropped > 0 {
        let _ = write!(text, ", {dropped} broadcasts over the limit dropped");
    }
    text
}

/// One member, for a person.
fn describe(member: &Value) -> String {
    let text = |key: &str| member[key].as_str().unwrap_or("?").to_owned();
    let mut line = format!(
        "{} member {}: {}, generation {}",
        text("vm"),
        text("member"),
        text("state"),
        member["generation"]
    );
    if let Some(lag) = member["lag_ms"].as_f64() {
        let throttle = &member["throttle_percent"];
        let _ = write!(line, "; lag {lag:.1} ms, throttled by {throttle} %");
    }
    if let Some(wrong) = member["records"].as_str() {
        let _ = write!(line, "; {wrong}");
    }
    let copy = &member["copy"];
    let number = |key: &str| copy[key].as_f64().unwrap_or(0.0);
    if copy.is_object() {
        let _ = write!(
            line,
            "; copy: round {}, {:.0} pages of it, {:.1} MiB sent, {:.0} MiB/s, {:.0} MiB/s written, \
             a stop now {:.1} ms",
            copy["round"],
            number("pages"),
            number("bytes_sent") / f64::from(1 << 20),
            number("rate_mib_s"),
            number("dirty_mib_s"),
            number("estimated_pause_ms"),
        );
    }
    line + &network(&member["network"]) + "\n"
}
