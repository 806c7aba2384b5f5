//! The commands: their names, numbers of arguments, and functions.

use alloc::vec::Vec;
use core::fmt;

use crate::churn::Churn;
use crate::data::View;
use crate::error::Error;
use crate::number;
use crate::random::Random;
use crate::reply::Reply;
use crate::resp::Command;
use crate::session::{Session, Sessions};
use crate::transaction::Transaction;

mod about;
mod connection;
mod expiry;
mod hashes;
mod info;
mod keys;
mod lists;
mod numbers;
mod scan;
mod server;
mod sets;
mod sorted;
mod sorted_add;
mod strings;
mod transactions;

/// Longest reply of a command, bytes.
pub const MAX_REPLY: usize = 4 * 1024 * 1024;
/// How many arguments the error about an unknown command repeats.
const SHOWN_ARGS: usize = 3;
/// How many bytes of each it repeats.
const SHOWN_BYTES: usize = 64;

/// What a command works with.
pub struct Context<'a> {
    /// The selected database.
    pub keys: View<'a>,
    pub reply: Reply<'a>,
    pub sessions: &'a mut Sessions,
    /// The connection's id.
    pub id: u64,
    pub transaction: &'a mut Transaction,
    pub random: &'a mut Random,
    pub churn: &'a mut Churn,
    /// Commands executed or refused, this one included.
    pub commands: u64,
    /// What happens after the reply.
    pub then: Then,
}

impl Context<'_> {
    /// The connection.
    pub fn session(&mut self) -> &mut Session {
        self.sessions.get(self.id)
    }
}

/// What happens after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next command is executed.
    GoOn,
    /// The connection ends.
    Quit,
    /// The queued commands are executed. The reply consists of theirs.
    Queued,
}

/// The result of a command: it has written one reply, or an error must be written in place of what it
/// has written.
pub type Outcome = Result<(), Error>;

/// How a command uses data, for COMMAND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It changes data.
    Write,
    /// It reads data.
    Read,
    /// Neither.
    None,
}

/// A command.
pub struct Spec {
    pub name: &'static str,
    /// The least number of arguments, including the name…
    min: usize,
    /// …and the most.
    max: usize,
    pub uses: Use,
    /// The first argument that is a key (0: none), the last one (-1: the last argument), and the step
    /// between them.
    pub keys: (i64, i64, i64),
    run: fn(Command, &mut Context) -> Outcome,
    /// A description for people.
    pub summary: &'static str,
}

/// Any number of arguments.
const ANY: usize = usize::MAX;
/// Keys of a command that has no keys, one key, or only keys.
const NO_KEY: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);

/// Rows of a table of commands: name, least and most arguments, use, keys, function, summary.
macro_rules! specs {
    ($($name:literal $min:literal..=$max:tt $uses:ident $keys:expr, $run:expr, $summary:literal;)*) => {
        &[$($crate::commands::Spec {
            name: $name,
            min: $min,
            max: $max,
            uses: $crate::commands::Use::$uses,
            keys: $keys,
            run: $run,
            summary: $summary,
        }),*]
    };
}
use specs;

/// Every command, by group; the most frequent ones come first.
pub static GROUPS: &[(&str, &[Spec])] = &[
    ("string", strings::SPECS),
    ("string", numbers::SPECS),
    ("connection", connection::SPECS),
    ("list", lists::SPECS),
    ("hash", hashes::SPECS),
    ("set", sets::SPECS),
    ("sorted-set", sorted::SPECS),
    ("sorted-set", sorted_add::SPECS),
    ("generic", keys::SPECS),
    ("generic", expiry::SPECS),
    ("generic", scan::SPECS),
    ("transactions", transactions::SPECS),
    ("server", server::SPECS),
    ("server", about::SPECS),
    ("server", info::SPECS),
];

impl Spec {
    /// The command of this name.
    fn find(name: &[u8]) -> Option<&'static Self> {
        let mut all = GROUPS.iter().flat_map(|(_, specs)| specs.iter());
        all.find(|it| is(name, it.name))
    }

    /// Its arity, as COMMAND gives it: negative if it is a minimum.
    pub fn arity(&self) -> i64 {
        let min = self.min as i64;
        if self.max == self.min { min } else { -min }
    }
}

/// Executes or queues `command`, which must not be empty, and writes one reply.
pub fn execute(command: Command, context: &mut Context) {
    let before = context.reply.written();
    let Some(spec) = Spec::find(command.arg(0)) else {
        context.transaction.fail();
        unknown(command, context);
        return;
    };
    let outcome = if !(spec.min..=spec.max).contains(&command.len()) {
        context.transaction.fail();
        Err(Error::WrongNumber(spec.name))
    } else if context.transaction.is_open() && !transactions::at_once(spec) {
        queue(command, context)
    } else {
        context.session().last = spec.name;
        (spec.run)(command, context)
    };
    if let Err(error) = outcome {
        context.reply.rewind(before);
        context.reply.error(format_args!("{error}"));
    }
}

fn queue(command: Command, context: &mut Context) -> Outcome {
    let budget = context.reply.budget();
    if let Err(error) = context.transaction.queue(command, budget) {
        context.transaction.fail();
        return Err(error.into());
    }
    context.session().queued = context.transaction.queued();
    context.reply.status("QUEUED");
    Ok(())
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

fn unknown_subcommand(of: &str, command: Command, context: &mut Context) {
    let text = text(command.arg(1));
    let text =
        format_args!("ERR unknown subcommand or wrong number of arguments for '{of} {text}'");
    context.reply.error(text);
}

/// The beginning of what a client sent, for an error.
fn text(bytes: &[u8]) -> impl fmt::Display {
    bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii()
}

/// Is an argument this word? `word` is in lower case.
fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// Reads an argument that is a number.
fn integer(argument: &[u8]) -> Result<i64, Error> {
    number::parse(argument).ok_or(Error::NoInteger)
}

/// Reads an argument that is a count.
fn count(argument: &[u8]) -> Result<usize, Error> {
    let count = number::parse(argument).ok_or(Error::Negative)?;
    usize::try_from(count).map_err(|_| Error::Negative)
}

/// The range of indices from `start` to `stop`, both included, among `length` items. Negative ones
/// count from the end. Returns the first index and the one after the last.
fn range(start: i64, stop: i64, length: usize) -> (usize, usize) {
    let place = |index: i64| match index < 0 {
        true => index.saturating_add(length as i64),
        false => index,
    };
    let start = place(start).max(0) as usize;
    let end = place(stop).saturating_add(1).clamp(0, length as i64) as usize;
    (start.min(end), end)
}

/// Counts the arguments from `first` on for which the function returns true.
fn count_args<'a>(
    command: Command<'a>,
    first: usize,
    mut holds: impl FnMut(&'a [u8]) -> bool,
) -> i64 {
    command.args_from(first).filter(|it| holds(it)).count() as i64
}

/// An empty list with room for `count` indices.
fn indices(count: usize) -> Result<Vec<usize>, Error> {
    let mut indices = Vec::new();
    let room = indices.try_reserve_exact(count);
    room.map_err(|_| Error::OutOfMemory(crate::buffer::OutOfMemory))?;
    Ok(indices)
}
