//! Hashes.

use alloc::boxed::Box;

use super::{ANY, Context, ONE_KEY, Outcome, Spec, integer, specs};
use crate::data::{Hash, Table};
use crate::error::Error;
use crate::number::{self, Digits};
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "hset" 4..=ANY Write ONE_KEY, hset, "Sets fields of a hash.";
    "hget" 3..=3 Read ONE_KEY, hget, "Returns the value of a field.";
    "hmset" 4..=ANY Write ONE_KEY, hmset, "Sets fields of a hash.";
    "hmget" 3..=ANY Read ONE_KEY, hmget, "Returns the values of fields.";
    "hgetall" 2..=2 Read ONE_KEY, |it, on| all(it, on, Part::Both), "Returns all fields and their values.";
    "hkeys" 2..=2 Read ONE_KEY, |it, on| all(it, on, Part::Fields), "Returns all fields.";
    "hvals" 2..=2 Read ONE_KEY, |it, on| all(it, on, Part::Values), "Returns the values of all fields.";
    "hsetnx" 4..=4 Write ONE_KEY, hsetnx, "Sets a field if it does not exist.";
    "hdel" 3..=ANY Write ONE_KEY, hdel, "Deletes fields.";
    "hlen" 2..=2 Read ONE_KEY, hlen, "Returns the number of fields.";
    "hexists" 3..=3 Read ONE_KEY, hexists, "Returns whether a field exists.";
    "hstrlen" 3..=3 Read ONE_KEY, hstrlen, "Returns the length of a field's value.";
    "hincrby" 4..=4 Write ONE_KEY, hincrby, "Adds to the number in a field.";
};

/// Sets the fields. Returns how many are new.
fn set_fields(command: Command, on: &mut Context, name: &'static str) -> Result<i64, Error> {
    if !command.len().is_multiple_of(2) {
        return Err(Error::WrongNumber(name));
    }
    on.keys
        .change_or_make::<Hash, _>(command.arg(1), |hash, budget| {
            let mut new = 0;
            for at in (2..command.len()).step_by(2) {
                new += i64::from(hash.set(command.arg(at), command.arg(at + 1), budget)?);
            }
            Ok((true, new))
        })
}

fn hset(command: Command, on: &mut Context) -> Outcome {
    let new = set_fields(command, on, "hset")?;
    on.reply.integer(new);
    Ok(())
}

fn hmset(command: Command, on: &mut Context) -> Outcome {
    set_fields(command, on, "hmset")?;
    on.reply.status("OK");
    Ok(())
}

fn hsetnx(command: Command, on: &mut Context) -> Outcome {
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    let new = hash.is_none_or(|hash| hash.get(command.arg(2)).is_none());
    if new {
        set_fields(command, on, "hsetnx")?;
    }
    on.reply.integer(i64::from(new));
    Ok(())
}

fn hget(command: Command, on: &mut Context) -> Outcome {
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    let value = hash.and_then(|hash| hash.get(command.arg(2)));
    Ok(on.reply.long_or_null(value)?)
}

fn hmget(command: Command, on: &mut Context) -> Outcome {
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    let value = |field| hash.and_then(|hash| hash.get(field));
    let lengths = command
        .args_from(2)
        .map(|it| value(it).map_or(0, <[u8]>::len));
    on.reply.room_for(lengths)?;
    on.reply.array(command.len() - 2);
    for field in command.args_from(2) {
        match value(field) {
            Some(value) => on.reply.bulk(value),
            None => on.reply.null(),
        }
    }
    Ok(())
}

/// Which part of each field is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Both,
    Fields,
    Values,
}

fn all(command: Command, on: &mut Context, part: Part) -> Outcome {
    let (fields, values) = (part != Part::Values, part != Part::Fields);
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    let table = hash.map(Hash::table);
    let entries = || table.into_iter().flat_map(Table::<Box<[u8]>>::iter);
    let length = |told: bool, text: &[u8]| if told { text.len() } else { 0 };
    on.reply.room_for(
        entries().flat_map(|(field, value)| [length(fields, field), length(values, value)]),
    )?;
    let count = table.map_or(0, Table::len);
    match part {
        Part::Both => on.reply.map(count),
        Part::Fields | Part::Values => on.reply.array(count),
    }
    for (field, value) in entries() {
        if fields {
            on.reply.bulk(field);
        }
        if values {
            on.reply.bulk(value);
        }
    }
    Ok(())
}

fn hdel(command: Command, on: &mut Context) -> Outcome {
    let removed = on.keys.change::<Hash, _>(command.arg(1), |hash, budget| {
        let fields = command.args_from(2);
        let removed = fields.filter(|field| hash.remove(field, budget)).count();
        Ok((removed > 0, removed as i64))
    })?;
    on.reply.integer(removed.unwrap_or(0));
    Ok(())
}

fn hlen(command: Command, on: &mut Context) -> Outcome {
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    on.reply
        .integer(hash.map_or(0, |hash| hash.table().len()) as i64);
    Ok(())
}

fn hexists(command: Command, on: &mut Context) -> Outcome {
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    let exists = hash.is_some_and(|hash| hash.get(command.arg(2)).is_some());
    on.reply.integer(i64::from(exists));
    Ok(())
}

fn hstrlen(command: Command, on: &mut Context) -> Outcome {
    let hash = on.keys.collection::<Hash>(command.arg(1))?;
    let value = hash.and_then(|hash| hash.get(command.arg(2)));
    on.reply.integer(value.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn hincrby(command: Command, on: &mut Context) -> Outcome {
    let (field, amount) = (command.arg(2), integer(command.arg(3))?);
    let sum = on
        .keys
        .change_or_make::<Hash, _>(command.arg(1), |hash, budget| {
            let old = number::parse(hash.get(field).unwrap_or(b"0"));
            let old = old.ok_or(Error::Said("ERR hash value is not an integer"))?;
            let sum = old.checked_add(amount).ok_or(Error::Overflow)?;
            hash.set(field, Digits::of(sum).as_bytes(), budget)?;
            Ok((true, sum))
        })?;
    on.reply.integer(sum);
    Ok(())
}
