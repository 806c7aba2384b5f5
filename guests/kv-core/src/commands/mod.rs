//! The commands: what each is called, how many arguments it takes, and what executes it.

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
/// Arguments that an error about an unknown command repeats.
const SHOWN_ARGS: usize = 3;
/// Bytes of each.
const SHOWN_BYTES: usize = 64;

/// What a command works on.
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
    /// What is to happen after the reply.
    pub then: Then,
}

impl Context<'_> {
    /// The connection.
    pub fn session(&mut self) -> &mut Session {
        self.sessions.get(self.id)
    }
}

/// What is to happen after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next command.
    GoOn,
    /// The connection ends.
    Quit,
    /// The commands that were queued: theirs is the reply.
    Queued,
}

/// What becomes of a command: it has written one reply, or an error is to be written instead of
/// what it has written.
pub type Outcome = Result<(), Error>;

/// What a command does with data, as COMMAND tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It changes it.
    Write,
    /// It reads it.
    Read,
    /// Neither.
    None,
}

/// A command.
pub struct Spec {
    pub name: &'static str,
    /// How many arguments it takes at least, the name included…
    min: usize,
    /// …and at most.
    max: usize,
    pub uses: Use,
    /// First argument that is a key (0: none), the last (-1: the last one), and the step between.
    pub keys: (i64, i64, i64),
    run: fn(Command, &mut Context) -> Outcome,
    /// What it does, for people.
    pub summary: &'static str,
}

/// Any number of arguments.
const ANY: usize = usize::MAX;
/// Keys of a command that has none, one, or only keys.
const NO_KEY: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);

/// The rows of a table of commands: name, least and most arguments, use, keys, function, summary.
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

    /// As COMMAND tells it: negative if it is a minimum.
    pub fn arity(&self) -> i64 {
        let min = self.min as i64;
        if self.max == self.min { min } else { -min }
    }
}

/// Executes or queues `command`, which is not empty, and writes one reply.
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

/// Whether an argument is this word, which is in lower case.
fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// An argument that is a number.
fn integer(argument: &[u8]) -> Result<i64, Error> {
    number::parse(argument).ok_or(Error::NoInteger)
}

/// An argument that says how many.
fn count(argument: &[u8]) -> Result<usize, Error> {
    let count = number::parse(argument).ok_or(Error::Negative)?;
    usize::try_from(count).map_err(|_| Error::Negative)
}

/// What `start` and `stop` mean among `length` items, both of them included and negative ones
/// counted from the end: from where to before where.
fn range(start: i64, stop: i64, length: usize) -> (usize, usize) {
    let place = |index: i64| match index < 0 {
        true => index.saturating_add(length as i64),
        false => index,
    };
    let start = place(start).max(0) as usize;
    let end = place(stop).saturating_add(1).clamp(0, length as i64) as usize;
    (start.min(end), end)
}

/// Counts the arguments from `first` on for which this holds.
fn count_args<'a>(
    command: Command<'a>,
    first: usize,
    mut holds: impl FnMut(&'a [u8]) -> bool,
) -> i64 {
    command.args_from(first).filter(|it| holds(it)).count() as i64
}

/// Room for `count` indices.
fn indices(count: usize) -> Result<Vec<usize>, Error> {
    let mut indices = Vec::new();
    let room = indices.try_reserve_exact(count);
    room.map_err(|_| Error::OutOfMemory(crate::buffer::OutOfMemory))?;
    Ok(indices)
}
