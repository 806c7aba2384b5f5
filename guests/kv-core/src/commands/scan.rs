//! KEYS, SCAN and similar commands.
//!
//! A cursor is the number of entries of a table that are left to look at, from the last one down to the
//! first. A removal moves the table's last entry into the gap. So an entry that exists from the
//! beginning of a scan to its end is either below the cursor or was returned already: each is returned,
//! some perhaps twice, as in Redis.

use alloc::boxed::Box;

use super::{ANY, Context, NO_KEY, ONE_KEY, Outcome, Spec, indices, is, specs};
use crate::data::{Hash, Ranked, Score, Table, Value};
use crate::error::Error;
use crate::float::Decimal;
use crate::glob::{self, MAX_PATTERN};
use crate::number;
use crate::reply::{BULK_FRAME, Reply};
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "keys" 2..=2 Read NO_KEY, keys, "Returns all keys that match a pattern.";
    "scan" 2..=ANY Read NO_KEY, scan, "Goes through the keys, some at a time.";
    "hscan" 3..=ANY Read ONE_KEY, hscan, "Goes through the fields of a hash, some at a time.";
    "sscan" 3..=ANY Read ONE_KEY, sscan, "Goes through the members of a set, some at a time.";
    "zscan" 3..=ANY Read ONE_KEY, zscan, "Goes through the members of a sorted set, some at a time.";
};

/// Entries that a scan looks at by default.
const COUNT: usize = 10;
/// Most entries that it looks at.
const MAX_COUNT: usize = 10_000;
/// A scan stops when it has found this many bytes.
const ENOUGH: usize = 256 * 1024;

fn pattern(argument: &[u8]) -> Result<&[u8], Error> {
    match argument.len() <= MAX_PATTERN {
        true => Ok(argument),
        false => Err(Error::Said("ERR the pattern is longer than 1024 bytes")),
    }
}

fn keys(command: Command, on: &mut Context) -> Outcome {
    let pattern = pattern(command.arg(1))?;
    let found = || {
        let keys = on.keys.table().iter().map(|(key, _)| key);
        keys.filter(|key| glob::matches(pattern, key))
    };
    on.reply.room_for(found().map(<[u8]>::len))?;
    on.reply.array(found().count());
    for key in found() {
        on.reply.bulk(key);
    }
    Ok(())
}

/// The arguments of a scan.
struct Asked<'a> {
    cursor: usize,
    pattern: &'a [u8],
    count: usize,
    kind: Option<&'a [u8]>,
}

impl<'a> Asked<'a> {
    /// Reads the cursor, which is argument `at`, and the options after it. Only SCAN has TYPE.
    fn parse(command: Command<'a>, at: usize) -> Result<Self, Error> {
        let cursor = number::parse(command.arg(at)).and_then(|it| usize::try_from(it).ok());
        let mut asked = Self {
            cursor: cursor.ok_or(Error::Said("ERR invalid cursor"))?,
            pattern: b"*",
            count: COUNT,
            kind: None,
        };
        let mut args = command.args_from(at + 1);
        while let Some(option) = args.next() {
            let value = args.next().ok_or(Error::Syntax)?;
            if is(option, "match") {
                asked.pattern = pattern(value)?;
            } else if is(option, "count") {
                let count = number::parse(value).ok_or(Error::NoInteger)?;
                let count = usize::try_from(count).map_err(|_| Error::Syntax)?;
                if count == 0 {
                    return Err(Error::Syntax);
                }
                asked.count = count.min(MAX_COUNT);
            } else if is(option, "type") && at == 1 {
                asked.kind = Some(value);
            } else {
                return Err(Error::Syntax);
            }
        }
        Ok(asked)
    }
}

/// How an entry of a table is returned.
trait Told<V> {
    /// Bytes of its value, without the key's.
    fn length(&self, value: &V) -> usize;
    /// Was this entry requested?
    fn wanted(&self, value: &V) -> bool;
    /// Writes its value, if values are returned.
    fn tell(&self, value: &V, reply: &mut Reply);
    /// Strings per entry.
    const STRINGS: usize;
}

/// Continues the scan of a table.
fn go_through<V, T: Told<V>>(
    asked: &Asked,
    table: Option<&Table<V>>,
    told: &T,
    reply: &mut Reply,
) -> Outcome {
    let length = table.map_or(0, Table::len);
    // The cursor 0 means the beginning in a request, and the end in a reply.
    let top = match asked.cursor {
        0 => length,
        cursor => cursor.min(length),
    };
    let mut found = indices(asked.count.min(top))?;
    let (mut at, mut bytes) = (top, 0);
    while at > 0 && top - at < asked.count && bytes < ENOUGH {
        at -= 1;
        let entry = table.and_then(|table| table.at(at));
        let Some((key, value)) = entry else { break };
        if told.wanted(value) && glob::matches(asked.pattern, key) {
            bytes += key.len() + told.length(value) + 2 * BULK_FRAME;
            found.push(at);
        }
    }
    reply.reserve(bytes)?;
    reply.array(2);
    reply.bulk(number::Digits::of(at as i64).as_bytes());
    reply.array(found.len() * T::STRINGS);
    for at in found {
        if let Some((key, value)) = table.and_then(|table| table.at(at)) {
            reply.bulk(key);
            told.tell(value, reply);
        }
    }
    Ok(())
}

/// Keys; with a type, only keys of that type.
struct Keys<'a>(Option<&'a [u8]>);

impl Told<Value> for Keys<'_> {
    const STRINGS: usize = 1;

    fn length(&self, _: &Value) -> usize {
        0
    }

    fn wanted(&self, value: &Value) -> bool {
        self.0.is_none_or(|kind| is(kind, value.kind()))
    }

    fn tell(&self, _: &Value, _: &mut Reply) {}
}

fn scan(command: Command, on: &mut Context) -> Outcome {
    let asked = Asked::parse(command, 1)?;
    let told = Keys(asked.kind);
    go_through(&asked, Some(on.keys.table()), &told, &mut on.reply)
}

/// Fields with their values.
struct Fields;

impl Told<Box<[u8]>> for Fields {
    const STRINGS: usize = 2;

    fn length(&self, value: &Box<[u8]>) -> usize {
        value.len()
    }

    fn wanted(&self, _: &Box<[u8]>) -> bool {
        true
    }

    fn tell(&self, value: &Box<[u8]>, reply: &mut Reply) {
        reply.bulk(value);
    }
}

fn hscan(command: Command, on: &mut Context) -> Outcome {
    let asked = Asked::parse(command, 2)?;
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    go_through(&asked, hash.map(Hash::table), &Fields, &mut on.reply)
}

/// Members of a set.
struct Members;

impl Told<()> for Members {
    const STRINGS: usize = 1;

    fn length(&self, _: &()) -> usize {
        0
    }

    fn wanted(&self, _: &()) -> bool {
        true
    }

    fn tell(&self, _: &(), _: &mut Reply) {}
}

fn sscan(command: Command, on: &mut Context) -> Outcome {
    let asked = Asked::parse(command, 2)?;
    let set = on.keys.collection::<Table<()>>(command.arg(1))?;
    go_through(&asked, set, &Members, &mut on.reply)
}

/// Members with their scores.
struct Scores;

impl Told<Score> for Scores {
    const STRINGS: usize = 2;

    fn length(&self, _: &Score) -> usize {
        BULK_FRAME
    }

    fn wanted(&self, _: &Score) -> bool {
        true
    }

    fn tell(&self, score: &Score, reply: &mut Reply) {
        reply.bulk(Decimal::of(score.value()).as_bytes());
    }
}

fn zscan(command: Command, on: &mut Context) -> Outcome {
    let asked = Asked::parse(command, 2)?;
    let set = on.keys.collection::<Ranked<Score>>(command.arg(1))?;
    go_through(&asked, set.map(Ranked::table), &Scores, &mut on.reply)
}
