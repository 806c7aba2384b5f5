//! `lockstep arbiter`: shows and repairs the records that the arbiter has of a VM.

use super::storage::{ArbiterArgs, latest_of};
use super::{CliError, Status};
use clap::{Args, Subcommand};
use ft_protocol::arbiter::{MemberId, check_vm_name};
use lockstep_events::{MemberStatus, RecordStatus};
use lockstep_ft::arbiter::{Generation, Survey, forget, restore, survey};
use lockstep_ft::control::{StatusOfError, status};
use lockstep_out as out;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum ArbiterCommand {
    /// Tell what the arbiter has of a VM, and how its members on this host stand.
    Show(ShowArgs),
    /// Put a record back that vanished, as a member on this host had it.
    Restore(RestoreArgs),
    /// Remove the records of a VM that has ended, so that it can be founded anew.
    Forget(ForgetArgs),
}

/// What all of them are told.
#[derive(Args, Debug)]
struct VmArgs {
    /// Name of the VM.
    #[arg(long, value_name = "NAME")]
    vm: String,
    #[command(flatten)]
    arbiter: ArbiterArgs,
}

/// Arguments of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    vm: VmArgs,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Arguments of `restore`.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    #[command(flatten)]
    vm: VmArgs,
    /// No other member of this generation has gone on alone, or ever will: it is dead, and had not told
    /// of `claim_won`, `live` or `solo` before, or it waits for the record too.
    #[arg(long)]
    nobody_went_on: bool,
}

/// Arguments of `forget`.
#[derive(Args, Debug)]
pub struct ForgetArgs {
    #[command(flatten)]
    vm: VmArgs,
    /// Although its last generation is open: all its members are surely dead.
    #[arg(long)]
    force: bool,
}

/// Runs one of the commands.
pub fn run(command: ArbiterCommand) -> Result<Status, CliError> {
    let (ArbiterCommand::Show(ShowArgs { vm, .. })
    | ArbiterCommand::Restore(RestoreArgs { vm, .. })
    | ArbiterCommand::Forget(ForgetArgs { vm, .. })) = &command;
    check_vm_name(&vm.vm)?;
    match &command {
        ArbiterCommand::Show(args) => show(args),
        ArbiterCommand::Restore(args) => put_back(args),
        ArbiterCommand::Forget(args) => remove(args),
    }
}

/// The state of the members on this host; empty if they cannot be found.
fn members(vm: &str) -> Result<Vec<MemberStatus>, CliError> {
    match status(Some(vm)) {
        Ok(members) => Ok(members),
        Err(StatusOfError::Directory(_)) => Ok(Vec::new()),
        Err(e @ StatusOfError::Answer(_)) => Err(e.into()),
    }
}

fn print(text: &str) -> Result<Status, CliError> {
    out::print_text(text).map_err(|e| CliError::unprinted(&e))?;
    Ok(Status::Done)
}

fn show(args: &ShowArgs) -> Result<Status, CliError> {
    let vm = &args.vm.vm;
    let asker = args.vm.arbiter.asker(vm)?;
    let found = asker.ask_now(|arbiter, vm, _| survey(arbiter, vm))?;
    let members = members(vm)?;
    print(&match args.json {
        true => format!("{}\n", as_json(vm, &found, &members)),
        false => as_text(vm, &found, &members),
    })
}

fn as_json(vm: &str, found: &Survey, members: &[MemberStatus]) -> Value {
    let generation = |g: &Generation| {
        let open = g.open.as_ref().map(|open| {
            json!({
                "primary": open.members.primary.to_string(),
                "backup": open.members.backup.map(|backup| backup.to_string()),
                "nonce": open.nonce.to_string(),
                "at_ns": open.at,
            })
        });
        let claim = g
            .claim
            .map(|c| json!({"claimant": c.claimant.to_string(), "at_ns": c.at}));
        let close = g
            .close
            .map(|c| json!({"member": c.member.to_string(), "at_ns": c.at}));
        json!({"generation": g.generation, "open": open, "claim": claim, "close": close})
    };
    let generations: Vec<Value> = found.generations.iter().map(generation).collect();
    let start = found
        .start
        .map(|s| json!({"listen": s.listen.to_string(), "at_ns": s.at}));
    json!({"vm": vm, "start": start, "generations": generations, "members": members})
}

fn as_text(vm: &str, found: &Survey, members: &[MemberStatus]) -> String {
    let mut text = String::new();
    if let Some(start) = found.start {
        let _ = writeln!(
            text,
            "founded by the member that listens on {}",
            start.listen
        );
    }
    if found.generations.is_empty() {
        let _ = writeln!(text, "no generation of VM {vm}");
    }
    for generation in &found.generations {
        let _ = writeln!(text, "{}", describe(generation));
    }
    for status in members {
        let _ = write!(
            text,
            "here: member {}: {}, generation {}",
            status.member, status.state, status.generation
        );
        if let Some(wrong) = &status.records {
            let _ = write!(text, "; {wrong}");
        }
        text.push('\n');
    }
    text
}

fn describe(of: &Generation) -> String {
    let mut line = match &of.open {
        Some(open) => {
            let backup = open.members.backup;
            let backup = backup.map_or("none".into(), |backup| backup.to_string());
            let primary = open.members.primary;
            format!(
                "generation {}: primary {primary}, backup {backup}",
                of.generation
            )
        }
        None => format!("generation {}: its open record is gone", of.generation),
    };
    if let Some(claim) = of.claim {
        let _ = write!(line, "; {} goes on alone", claim.claimant);
    }
    line.push_str(match of.close {
        Some(_) => "; ended",
        None => "; not ended",
    });
    line
}

fn put_back(args: &RestoreArgs) -> Result<Status, CliError> {
    let vm = &args.vm.vm;
    let members = members(vm)?;
    let had = |status: &MemberStatus| Some((status.member, status.record?));
    let all = members.iter().filter_map(had);
    let useful = all.filter(|(_, record)| record.won || record.holds);
    // Who runs alone knows best.
    let best: Option<(MemberId, RecordStatus)> = useful.max_by_key(|(_, record)| record.won);
    let Some((member, record)) = best else {
        return Err(CliError::refused(format!(
            "no member of VM {vm} on this host waits for a record or runs alone, and others put theirs back \
             by themselves: run this where `lockstep status` tells of one, as the same user"
        )));
    };
    let generation = record.generation;
    if !record.won && !args.nobody_went_on {
        return Err(CliError::refused(format!(
            "member {member} of VM {vm} may go on with generation {generation} only if no other member of it has \
             gone on alone: look on the other host (`lockstep status`, and its events for claim_won, live \
             or solo), then say --nobody-went-on"
        )));
    }
    let standing = record.standing();
    let asker = args.vm.arbiter.asker(vm)?;
    let done = asker.ask_now(move |arbiter, vm, _| restore(arbiter, vm, member, &standing));
    done??;
    print(&format!(
        "generation {generation} of VM {vm} is in the arbiter again\n"
    ))
}

fn remove(args: &ForgetArgs) -> Result<Status, CliError> {
    let vm = &args.vm.vm;
    let asker = args.vm.arbiter.asker(vm)?;
    if let [first, ..] = &members(vm)?[..] {
        return Err(CliError::refused(format!(
            "member {} of VM {vm} runs on this host: stop it first",
            first.member
        )));
    }
    if let Some(latest) = latest_of(&asker)?.filter(|latest| !latest.closed && !args.force) {
        return Err(CliError::refused(format!(
            "VM {vm} is open in generation {}: a member may still run it; stop it, or say --force if it is \
             surely dead",
            latest.generation
        )));
    }
    asker.ask_now(|arbiter, vm, _| forget(arbiter, vm))?;
    print(&format!("the arbiter knows nothing of VM {vm} any more\n"))
}
