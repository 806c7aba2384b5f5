//! The commands, and those on the database among them.

use alloc::vec::Vec;
use core::fmt;

use crate::about;
use crate::buffer::OutOfMemory;
use crate::churn::Churn;
use crate::db::{Db, Refused};
use crate::number;
use crate::reply::{BULK_FRAME, Reply};
use crate::resp::Command;
use crate::server::Stats;

/// Longest reply of a command, bytes.
const MAX_REPLY: usize = 4 * 1024 * 1024;
/// Arguments that an error about an unknown command repeats.
const SHOWN_ARGS: usize = 3;
/// Bytes of each.
const SHOWN_BYTES: usize = 64;

/// What a command works on.
pub struct Context<'a> {
    pub db: &'a mut Db,
    pub stats: &'a Stats,
    pub churn: &'a mut Churn,
    pub reply: Reply<'a>,
    /// The connection's id.
    pub id: u64,
    /// The connection's name.
    pub name: &'a mut Vec<u8>,
    /// Set to close the connection after the reply.
    pub quit: bool,
}

/// A command: its name, how many arguments it takes (the name included), and what it does.
pub struct Spec {
    pub name: &'static str,
    min: usize,
    max: usize,
    run: fn(Command, &mut Context),
}

const ANY: usize = usize::MAX;

const fn spec(name: &'static str, min: usize, max: usize, run: fn(Command, &mut Context)) -> Spec {
    Spec {
        name,
        min,
        max,
        run,
    }
}

/// Every command; the most frequent ones come first.
pub static COMMANDS: &[Spec] = &[
    spec("get", 2, 2, get),
    spec("set", 3, ANY, set),
    spec("incr", 2, 2, |it, on| add(it, on, Some(1))),
    spec("ping", 1, 2, ping),
    spec("mget", 2, ANY, mget),
    spec("mset", 3, ANY, mset),
    spec("del", 2, ANY, del),
    spec("exists", 2, ANY, exists),
    spec("incrby", 3, 3, |it, on| {
        add(it, on, number::parse(it.arg(2)))
    }),
    spec("decr", 2, 2, |it, on| add(it, on, Some(-1))),
    spec("decrby", 3, 3, decrby),
    spec("append", 3, 3, append),
    spec("strlen", 2, 2, |it, on| {
        let length = on.db.get(it.arg(1)).map_or(0, <[u8]>::len);
        on.reply.integer(length as i64);
    }),
    spec("echo", 2, 2, |it, on| bulk(on, it.arg(1))),
    spec("dbsize", 1, 1, |_, on| on.reply.integer(on.db.len() as i64)),
    spec("flushall", 1, 2, flush),
    spec("flushdb", 1, 2, flush),
    spec("client", 2, ANY, about::client),
    spec("command", 1, ANY, about::command),
    spec("config", 2, ANY, about::config),
    spec("hello", 1, ANY, about::hello),
    spec("info", 1, ANY, about::info),
    spec("select", 2, 2, select),
    spec("debug", 4, 4, debug),
    spec("quit", 1, ANY, |_, on| {
        on.reply.status("OK");
        on.quit = true;
    }),
];

impl Spec {
    /// As COMMAND tells it: negative if it is a minimum.
    pub fn arity(&self) -> i64 {
        let min = self.min as i64;
        if self.max == self.min { min } else { -min }
    }
}

/// Executes `command`, which is not empty, and writes one reply.
pub fn execute(command: Command, context: &mut Context) {
    let name = command.arg(0);
    match COMMANDS
        .iter()
        .find(|it| name.eq_ignore_ascii_case(it.name.as_bytes()))
    {
        Some(spec) if (spec.min..=spec.max).contains(&command.len()) => {
            (spec.run)(command, context);
        }
        Some(spec) => wrong_number(context, format_args!("{}", spec.name)),
        None => unknown(command, context),
    }
}

/// The error for too few or too many arguments.
pub fn wrong_number(context: &mut Context, name: fmt::Arguments) {
    let text = format_args!("ERR wrong number of arguments for '{name}' command");
    context.reply.error(text);
}

fn unknown(command: Command, context: &mut Context) {
    let shown = fmt::from_fn(|f| {
        for argument in command.args_from(1).take(SHOWN_ARGS) {
            write!(f, "'{}' ", text(argument))?;
        }
        Ok(())
    });
    context.reply.error(format_args!(
        "ERR unknown command '{}', with args beginning with: {shown}",
        text(command.arg(0))
    ));
}

/// The beginning of what a client sent, for an error.
pub fn text(bytes: &[u8]) -> impl fmt::Display {
    bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii()
}

/// Replies with `content`, however long.
pub fn bulk(context: &mut Context, content: &[u8]) {
    match context.reply.reserve(content.len()) {
        Ok(()) => context.reply.bulk(content),
        Err(OutOfMemory) => context.reply.out_of_memory(),
    }
}

fn done(context: &mut Context, outcome: Result<(), OutOfMemory>) {
    match outcome {
        Ok(()) => context.reply.status("OK"),
        Err(OutOfMemory) => context.reply.out_of_memory(),
    }
}

fn integer(context: &mut Context, outcome: Result<i64, Refused>) {
    match outcome {
        Ok(value) => context.reply.integer(value),
        Err(Refused::OutOfMemory(_)) => context.reply.out_of_memory(),
        Err(why) => context.reply.error(format_args!("ERR {why}")),
    }
}

fn ping(command: Command, context: &mut Context) {
    if command.len() == 2 {
        bulk(context, command.arg(1));
    } else {
        context.reply.status("PONG");
    }
}

fn get(command: Command, context: &mut Context) {
    match context.db.get(command.arg(1)) {
        Some(value) => match context.reply.reserve(value.len()) {
            Ok(()) => context.reply.bulk(value),
            Err(OutOfMemory) => context.reply.out_of_memory(),
        },
        None => context.reply.null(),
    }
}

fn set(command: Command, context: &mut Context) {
    if command.len() > 3 {
        context.reply.error(format_args!(
            "ERR syntax error: this server knows no option '{}' of SET",
            text(command.arg(3))
        ));
        return;
    }
    let outcome = context.db.set(command.arg(1), command.arg(2));
    done(context, outcome);
}

fn mget(command: Command, context: &mut Context) {
    let length: usize = command
        .args_from(1)
        .map(|key| context.db.get(key).map_or(0, <[u8]>::len) + BULK_FRAME)
        .sum();
    if length > MAX_REPLY {
        context
            .reply
            .error(format_args!("ERR the reply would exceed {MAX_REPLY} bytes"));
        return;
    }
    if context.reply.reserve(length).is_err() {
        context.reply.out_of_memory();
        return;
    }
    context.reply.array(command.len() - 1);
    for key in command.args_from(1) {
        match context.db.get(key) {
            Some(value) => context.reply.bulk(value),
            None => context.reply.null(),
        }
    }
}

/// Sets all or, for want of memory, the first ones.
fn mset(command: Command, context: &mut Context) {
    if command.len().is_multiple_of(2) {
        wrong_number(context, format_args!("mset"));
        return;
    }
    let mut pairs = (1..command.len()).step_by(2);
    let outcome = pairs.try_for_each(|it| context.db.set(command.arg(it), command.arg(it + 1)));
    done(context, outcome);
}

fn del(command: Command, context: &mut Context) {
    let removed = command
        .args_from(1)
        .filter(|key| context.db.remove(key))
        .count();
    context.reply.integer(removed as i64);
}

fn exists(command: Command, context: &mut Context) {
    let found = command
        .args_from(1)
        .filter(|key| context.db.get(key).is_some())
        .count();
    context.reply.integer(found as i64);
}

fn add(command: Command, context: &mut Context, amount: Option<i64>) {
    let outcome = match amount {
        Some(amount) => context.db.add(command.arg(1), amount),
        None => Err(Refused::NoInteger),
    };
    integer(context, outcome);
}

fn decrby(command: Command, context: &mut Context) {
    match number::parse(command.arg(2)) {
        Some(i64::MIN) => context
            .reply
            .error(format_args!("ERR decrement would overflow")),
        amount => add(command, context, amount.map(|it| -it)),
    }
}

fn append(command: Command, context: &mut Context) {
    let outcome = context.db.append(command.arg(1), command.arg(2));
    integer(context, outcome.map(|length| length as i64));
}

fn flush(command: Command, context: &mut Context) {
    let known = command
        .args_from(1)
        .all(|it| it.eq_ignore_ascii_case(b"async") || it.eq_ignore_ascii_case(b"sync"));
    if !known {
        context.reply.error(format_args!("ERR syntax error"));
        return;
    }
    context.db.clear();
    context.reply.status("OK");
}

/// `DEBUG CHURN MIB-PER-SECOND POOL-MIB`.
fn debug(command: Command, context: &mut Context) {
    let number = |index| number::parse(command.arg(index)).and_then(|n| usize::try_from(n).ok());
    let churns = command.arg(1).eq_ignore_ascii_case(b"churn");
    match (churns, number(2), number(3)) {
        (true, Some(rate), Some(pool)) => {
            let outcome = context.churn.set(rate, pool);
            done(context, outcome);
        }
        _ => context.reply.error(format_args!("ERR syntax error")),
    }
}

fn select(command: Command, context: &mut Context) {
    match number::parse(command.arg(1)) {
        Some(0) => context.reply.status("OK"),
        Some(_) => context
            .reply
            .error(format_args!("ERR DB index is out of range")),
        None => context
            .reply
            .error(format_args!("ERR value is not an integer or out of range")),
    }
}
