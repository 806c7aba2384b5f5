//! COMMAND: information about the server's commands.

use super::{ANY, Context, GROUPS, NO_KEY, Outcome, Spec, Use, is, specs, unknown_subcommand};
use crate::reply::Reply;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "command" 1..=ANY None NO_KEY, command, "Tells about the commands.";
};

/// Most bytes of a command's entry in the reply, without its texts.
const PER_COMMAND: usize = 256;

fn all() -> impl Iterator<Item = &'static Spec> + Clone {
    GROUPS.iter().flat_map(|(_, specs)| specs.iter())
}

/// COMMAND, COMMAND COUNT, COMMAND DOCS, COMMAND INFO, COMMAND LIST.
fn command(command: Command, on: &mut Context) -> Outcome {
    if command.len() == 1 {
        return info(all().map(Some), on);
    }
    let named = command.args_from(2).map(Spec::find);
    match command.arg(1) {
        it if is(it, "count") && command.len() == 2 => on.reply.integer(all().count() as i64),
        it if is(it, "info") && command.len() == 2 => return info(all().map(Some), on),
        it if is(it, "info") => return info(named, on),
        it if is(it, "docs") && command.len() == 2 => return docs(all(), on),
        it if is(it, "docs") => return docs(named.flatten(), on),
        it if is(it, "list") && command.len() == 2 => {
            on.reply.room_for(all().map(|spec| spec.name.len()))?;
            on.reply.array(all().count());
            for spec in all() {
                on.reply.bulk(spec.name.as_bytes());
            }
        }
        _ => unknown_subcommand("command", command, on),
    }
    Ok(())
}

/// For each command: name, arity, flags, and keys. Without ACL categories, tips, key specifications and
/// subcommands.
fn info(chosen: impl Iterator<Item = Option<&'static Spec>> + Clone, on: &mut Context) -> Outcome {
    on.reply.room_for(chosen.clone().map(|_| PER_COMMAND))?;
    on.reply.array(chosen.clone().count());
    for spec in chosen {
        match spec {
            Some(spec) => tell(spec, &mut on.reply),
            None => on.reply.null(),
        }
    }
    Ok(())
}

fn tell(spec: &Spec, reply: &mut Reply) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(spec.arity());
    let flags: &[&str] = match spec.uses {
        Use::Write => &["write", "denyoom"],
        Use::Read => &["readonly"],
        Use::None => &[],
    };
    reply.set(flags.len());
    for flag in flags {
        reply.status(flag);
    }
    let (first, last, step) = spec.keys;
    for number in [first, last, step] {
        reply.integer(number);
    }
    reply.set(0);
    for _ in 0..3 {
        reply.array(0);
    }
}

/// For each command: what it does, and its group.
fn docs(chosen: impl Iterator<Item = &'static Spec> + Clone, on: &mut Context) -> Outcome {
    let length = |spec: &Spec| PER_COMMAND + spec.summary.len();
    on.reply.room_for(chosen.clone().map(length))?;
    on.reply.map(chosen.clone().count());
    for spec in chosen {
        let of = |(_, specs): &&(&str, &[Spec])| specs.iter().any(|it| it.name == spec.name);
        let group = GROUPS.iter().find(of).map_or("", |(group, _)| group);
        on.reply.bulk(spec.name.as_bytes());
        on.reply.map(2);
        for (name, value) in [("summary", spec.summary), ("group", group)] {
            on.reply.bulk(name.as_bytes());
            on.reply.bulk(value.as_bytes());
        }
    }
    Ok(())
}
