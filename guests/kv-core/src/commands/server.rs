//! Commands about the server: its size, its settings, its time.

use super::{ANY, Context, NO_KEY, Outcome, Spec, is, specs, unknown_subcommand};
use crate::data::DATABASES;
use crate::error::Error;
use crate::glob;
use crate::number::{self, Digits};
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "dbsize" 1..=1 Read NO_KEY, dbsize, "Returns the number of keys.";
    "flushall" 1..=2 Write NO_KEY, flushall, "Deletes all keys of all databases.";
    "flushdb" 1..=2 Write NO_KEY, flushdb, "Deletes all keys.";
    "config" 2..=ANY None NO_KEY, config, "Returns settings.";
    "time" 1..=1 None NO_KEY, time, "Returns the time, seconds since 1970 and microseconds.";
    "debug" 4..=4 None NO_KEY, debug, "DEBUG CHURN writes memory over and over.";
};

/// Longest pattern of CONFIG GET, bytes: longer than any setting.
const MAX_SETTING: usize = 64;

fn dbsize(_: Command, on: &mut Context) -> Outcome {
    on.reply.integer(on.keys.table().len() as i64);
    Ok(())
}

/// Checks the option of FLUSHALL and FLUSHDB.
fn check_flush(command: Command) -> Outcome {
    let known = command
        .args_from(1)
        .all(|it| is(it, "async") || is(it, "sync"));
    if known { Ok(()) } else { Err(Error::Syntax) }
}

fn flushall(command: Command, on: &mut Context) -> Outcome {
    check_flush(command)?;
    for db in 0..DATABASES {
        on.keys.keyspace().view(db).clear();
    }
    on.reply.status("OK");
    Ok(())
}

fn flushdb(command: Command, on: &mut Context) -> Outcome {
    check_flush(command)?;
    on.keys.clear();
    on.reply.status("OK");
    Ok(())
}

/// CONFIG GET, RESETSTAT.
fn config(command: Command, on: &mut Context) -> Outcome {
    match command.arg(1) {
        it if is(it, "get") && command.len() < 3 => return Err(Error::WrongNumber("config|get")),
        it if is(it, "get") => settings(command, on),
        it if is(it, "resetstat") && command.len() == 2 => on.reply.status("OK"),
        _ => unknown_subcommand("config", command, on),
    }
    Ok(())
}

/// The settings of a server that writes nothing to a disk and evicts nothing.
fn settings(command: Command, on: &mut Context) {
    let limit = Digits::of(on.keys.keyspace().memory().1 as i64);
    let databases = Digits::of(DATABASES as i64);
    let settings: [(&str, &[u8]); 5] = [
        ("save", b""),
        ("appendonly", b"no"),
        ("databases", databases.as_bytes()),
        ("maxmemory", limit.as_bytes()),
        ("maxmemory-policy", b"noeviction"),
    ];
    let wanted = |name: &str| {
        let matches = |argument: &[u8]| {
            let mut lower = [0; MAX_SETTING];
            let Some(pattern) = lower.get_mut(..argument.len()) else {
                return false;
            };
            pattern.copy_from_slice(argument);
            pattern.make_ascii_lowercase();
            glob::matches(pattern, name.as_bytes())
        };
        command.args_from(2).any(matches)
    };
    let chosen = || settings.iter().filter(|(name, _)| wanted(name));
    on.reply.map(chosen().count());
    for (name, value) in chosen() {
        on.reply.bulk(name.as_bytes());
        on.reply.bulk(value);
    }
}

fn time(_: Command, on: &mut Context) -> Outcome {
    let now_ms = on.keys.now_ms();
    on.reply.array(2);
    on.reply.bulk(Digits::of(now_ms / 1000).as_bytes());
    on.reply.bulk(Digits::of(now_ms % 1000 * 1000).as_bytes());
    Ok(())
}

/// `DEBUG CHURN MIB-PER-SECOND POOL-MIB`.
fn debug(command: Command, on: &mut Context) -> Outcome {
    let number = |index| number::parse(command.arg(index)).and_then(|n| usize::try_from(n).ok());
    match (is(command.arg(1), "churn"), number(2), number(3)) {
        (true, Some(rate), Some(pool)) => on.churn.set(rate, pool)?,
        _ => return Err(Error::Syntax),
    }
    on.reply.status("OK");
    Ok(())
}
