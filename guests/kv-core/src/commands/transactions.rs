//! MULTI and EXEC, and WATCH.

use super::{ALL_KEYS, ANY, Context, NO_KEY, Outcome, Spec, Then, specs};
use crate::data::MAX_WATCHES;
use crate::error::Error;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "multi" 1..=1 None NO_KEY, multi, "Begins a transaction: commands wait for EXEC.";
    "exec" 1..=1 None NO_KEY, exec, "Executes the commands that wait, with none of others between them.";
    "discard" 1..=1 None NO_KEY, discard, "Forgets the commands that wait.";
    "watch" 2..=ANY None ALL_KEYS, watch, "Lets EXEC execute nothing if one of the keys has changed by then.";
    "unwatch" 1..=1 None NO_KEY, unwatch, "Forgets the keys that are watched.";
};

/// Is this command executed at once, even in a transaction?
pub fn at_once(spec: &Spec) -> bool {
    ["exec", "discard", "multi", "watch", "quit", "reset"].contains(&spec.name)
}

/// Forgets the queued commands and the watched keys.
pub fn forget(on: &mut Context) {
    on.transaction.discard(on.reply.budget());
    on.session().queued = None;
    on.keys.keyspace().unwatch(on.id);
}

fn multi(_: Command, on: &mut Context) -> Outcome {
    if on.transaction.is_open() {
        return Err(Error::Said("ERR MULTI calls can not be nested"));
    }
    on.transaction.open();
    on.session().queued = on.transaction.queued();
    on.reply.status("OK");
    Ok(())
}

fn exec(_: Command, on: &mut Context) -> Outcome {
    if !on.transaction.is_open() {
        return Err(Error::Said("ERR EXEC without MULTI"));
    }
    if on.transaction.has_failed() {
        forget(on);
        return Err(Error::Said(
            "EXECABORT Transaction discarded because of previous errors.",
        ));
    }
    if on.keys.touched(on.id) {
        forget(on);
        on.reply.null_array();
        return Ok(());
    }
    on.session().queued = None;
    on.keys.keyspace().unwatch(on.id);
    on.then = Then::Queued;
    Ok(())
}

fn discard(_: Command, on: &mut Context) -> Outcome {
    if !on.transaction.is_open() {
        return Err(Error::Said("ERR DISCARD without MULTI"));
    }
    forget(on);
    on.reply.status("OK");
    Ok(())
}

fn watch(command: Command, on: &mut Context) -> Outcome {
    if on.transaction.is_open() {
        return Err(Error::Said("ERR WATCH inside MULTI is not allowed"));
    }
    for key in command.args_from(1) {
        if on.keys.watch(on.id, key).is_err() {
            on.reply.error(format_args!(
                "OOM no memory to watch more keys (all connections together may watch {MAX_WATCHES})"
            ));
            return Ok(());
        }
    }
    on.reply.status("OK");
    Ok(())
}

fn unwatch(_: Command, on: &mut Context) -> Outcome {
    on.keys.keyspace().unwatch(on.id);
    on.reply.status("OK");
    Ok(())
}
