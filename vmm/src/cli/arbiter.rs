//! `lockstep arbiter`: shows and repairs the records that the arbiter has of a VM.

use super::storage::{ArbiterArgs, latest_of};
use super::{CliError, Status};
use clap::{Args, Subcommand};
use ft_protocol::arbiter::{MemberId, Members, Nonce, Standing, check_vm_name};
use ft_protocol::transfer::Right;
use lockstep_ft::arbiter::{Generation, Survey, forget, restore, survey};
use lockstep_ft::control::status;
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
    check_vm_name(&vm.vm).map_err(CliError::refused)?;
    match &command {
        ArbiterCommand::Show(args) => show(args),
        ArbiterCommand::Restore(args) => put_back(args),
        ArbiterCommand::Forget(args) => remove(args),
    }
}

/// How the members on this host stand; none where none can be found.
fn members(vm: &str) -> Vec<Value> {
    status(Some(vm)).unwrap_or_default()
}

fn print(text: &str) -> Result<Status, CliError> {
    out::print_text(text).map_err(|e| CliError::unprinted(&e))?;
    Ok(Status::Done)
}

fn show(args: &ShowArgs) -> Result<Status, CliError> {
    let vm = &args.vm.vm;
    let asker = args.vm.arbiter.asker(vm)?;
    let found = asker.ask_now(|arbiter, vm, _| survey(arbiter, vm));
    let found = found.map_err(CliError::refused)?;
    let members = members(vm);
    print(&match args.json {
        true => format!("{}\n", as_json(vm, &found, &members)),
        false => as_text(vm, &found, &members),
    })
}

fn as_json(vm: &str, found: &Survey, members: &[Value]) -> Value {
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

fn as_text(vm: &str, found: &Survey, members: &[Value]) -> String {
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
    for member in members {
        let of = |key: &str| member[key].as_str().unwrap_or("?").to_owned();
        let _ = write!(
            text,
            "here: member {}: {}, generation {}",
            of("member"),
            of("state"),
            member["generation"]
        );
        if let Some(wrong) = member["records"].as_str() {
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

/// What a member on this host says that the arbiter had of it.
struct Had {
    member: MemberId,
    standing: Standing,
    /// A claim waits for it.
    holds: bool,
}

fn id(value: &Value) -> Option<u128> {
    u128::from_str_radix(value.as_str()?, 16).ok()
}

fn had(member: &Value) -> Option<Had> {
    let record = member["record"].as_object()?;
    let members = Members {
        primary: MemberId(id(&record["primary"])?),
        backup: match &record["backup"] {
            Value::Null => None,
            backup => Some(MemberId(id(backup)?)),
        },
    };
    let right = Right {
        generation: record["generation"].as_u64()?,
        members,
        nonce: Nonce(id(&record["nonce"])?),
    };
    Some(Had {
        member: MemberId(id(&member["member"])?),
        standing: Standing {
            right,
            won: record["won"].as_bool()?,
        },
        holds: record["holds"].as_bool()?,
    })
}

fn put_back(args: &RestoreArgs) -> Result<Status, CliError> {
    let vm = &args.vm.vm;
    let all: Vec<Had> = members(vm).iter().filter_map(had).collect();
    let useful = |had: &&Had| had.standing.won || had.holds;
    // Whoever runs alone knows best.
    let Some(had) = all.iter().filter(useful).max_by_key(|had| had.standing.won) else {
        return Err(CliError::refused(format!(
            "no member of VM {vm} on this host waits for a record or runs alone, and others put theirs back \
             by themselves: run this where `lockstep status` tells of one, as the same user"
        )));
    };
    let generation = had.standing.right.generation;
    if !had.standing.won && !args.nobody_went_on {
        return Err(CliError::refused(format!(
            "member {} of VM {vm} may go on with generation {generation} only if no other member of it has \
             gone on alone: look on the other host (`lockstep status`, and its events for claim_won, live \
             or solo), then say --nobody-went-on",
            had.member
        )));
    }
    let (member, standing) = (had.member, had.standing);
    let asker = args.vm.arbiter.asker(vm)?;
    let done = asker.ask_now(move |arbiter, vm, _| restore(arbiter, vm, member, &standing));
    done.map_err(CliError::refused)?
        .map_err(CliError::refused)?;
    print(&format!(
        "generation {generation} of VM {vm} is in the arbiter again\n"
    ))
}

fn remove(args: &ForgetArgs) -> Result<Status, CliError> {
    let vm = &args.vm.vm;
    let asker = args.vm.arbiter.asker(vm)?;
    if let [member, ..] = &members(vm)[..] {
        return Err(CliError::refused(format!(
            "member {} of VM {vm} runs on this host: stop it first",
            member["member"].as_str().unwrap_or("?")
        )));
    }
    if let Some(latest) = latest_of(&asker)?.filter(|latest| !latest.closed && !args.force) {
        return Err(CliError::refused(format!(
            "VM {vm} is open in generation {}: a member may still run it; stop it, or say --force if it is \
             surely dead",
            latest.generation
        )));
    }
    let gone = asker.ask_now(|arbiter, vm, _| forget(arbiter, vm));
    gone.map_err(CliError::refused)?;
    print(&format!("the arbiter knows nothing of VM {vm} any more\n"))
}
