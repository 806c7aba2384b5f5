//! Sets.

use alloc::vec::Vec;

use super::{ANY, Context, ONE_KEY, Outcome, Spec, count, count_args, indices, integer, specs};
use crate::data::Table;
use crate::error::Error;
use crate::random::Random;
use crate::reply::BULK_FRAME;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "sadd" 3..=ANY Write ONE_KEY, sadd, "Adds members to a set.";
    "spop" 2..=3 Write ONE_KEY, spop, "Takes members from a set.";
    "srem" 3..=ANY Write ONE_KEY, srem, "Removes members from a set.";
    "scard" 2..=2 Read ONE_KEY, scard, "Returns the number of members of a set.";
    "smembers" 2..=2 Read ONE_KEY, smembers, "Returns all members of a set.";
    "sismember" 3..=3 Read ONE_KEY, sismember, "Returns whether something is a member of a set.";
    "smismember" 3..=ANY Read ONE_KEY, smismember, "Returns which of several are members of a set.";
    "srandmember" 2..=3 Read ONE_KEY, srandmember, "Returns members of a set.";
};

type Set = Table<()>;

fn sadd(command: Command, on: &mut Context) -> Outcome {
    let key = command.arg(1);
    let added = on.keys.change_or_make::<Set, _>(key, |set, budget| {
        let mut added = 0;
        for member in command.args_from(2) {
            if !set.has(member) {
                set.insert(member, (), budget)?;
                added += 1;
            }
        }
        Ok((added > 0, added))
    })?;
    on.reply.integer(added);
    Ok(())
}

fn srem(command: Command, on: &mut Context) -> Outcome {
    let removed = on.keys.change::<Set, _>(command.arg(1), |set, budget| {
        let removed = count_args(command, 2, |it| set.remove(it, budget).is_some());
        Ok((removed > 0, removed))
    })?;
    on.reply.integer(removed.unwrap_or(0));
    Ok(())
}

fn scard(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Set>(command.arg(1))?;
    on.reply.integer(set.map_or(0, Table::len) as i64);
    Ok(())
}

fn smembers(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Set>(command.arg(1))?;
    let members = || {
        set.into_iter()
            .flat_map(Table::iter)
            .map(|(member, _)| member)
    };
    on.reply.room_for(members().map(<[u8]>::len))?;
    on.reply.set(set.map_or(0, Table::len));
    for member in members() {
        on.reply.bulk(member);
    }
    Ok(())
}

fn sismember(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Set>(command.arg(1))?;
    let is_member = set.is_some_and(|set| set.has(command.arg(2)));
    on.reply.integer(i64::from(is_member));
    Ok(())
}

fn smismember(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Set>(command.arg(1))?;
    on.reply.reserve((command.len() - 2) * BULK_FRAME)?;
    on.reply.array(command.len() - 2);
    for member in command.args_from(2) {
        let is_member = set.is_some_and(|set| set.has(member));
        on.reply.integer(i64::from(is_member));
    }
    Ok(())
}

/// Removes one member, or as many as requested.
fn spop(command: Command, on: &mut Context) -> Outcome {
    let wanted = match command.len() {
        3 => Some(count(command.arg(2))?),
        _ => None,
    };
    let key = command.arg(1);
    let length = on.keys.collection::<Set>(key)?.map_or(0, Table::len);
    let several = wanted.unwrap_or(1).min(length);
    match wanted {
        Some(_) => on.reply.set(several),
        None if length == 0 => on.reply.null(),
        None => {}
    }
    let mut chosen = match several {
        1 => some(1, length, on.random)?,
        _ => different(several, length, on.random)?,
    };
    // From the highest index down: a removal does not move entries with lower indices.
    chosen.sort_unstable_by(|a, b| b.cmp(a));
    let set = on.keys.collection::<Set>(key)?;
    let member_length = |at: &usize| set.and_then(|set| set.at(*at)).map_or(0, |it| it.0.len());
    on.reply.room_for(chosen.iter().map(member_length))?;
    let reply = &mut on.reply;
    on.keys.change::<Set, _>(key, |set, budget| {
        for at in &chosen {
            if let Some((member, ())) = set.remove_at(*at, budget) {
                reply.bulk(&member);
            }
        }
        Ok((several > 0, ()))
    })?;
    Ok(())
}

/// Returns one member, or as many different ones as requested, or, with a negative count, as many
/// members of which some may be the same.
fn srandmember(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Set>(command.arg(1))?;
    let length = set.map_or(0, Table::len);
    let member = |at: usize| set.and_then(|set| set.at(at)).map(|(member, _)| member);
    if command.len() == 2 {
        let one = match length {
            0 => None,
            length => member(on.random.below(length)),
        };
        return Ok(on.reply.long_or_null(one)?);
    }
    let wanted = integer(command.arg(2))?;
    let chosen = match usize::try_from(wanted) {
        Ok(wanted) => different(wanted.min(length), length, on.random)?,
        Err(_) if length == 0 => indices(0)?,
        Err(_) => some(wanted.unsigned_abs(), length, on.random)?,
    };
    let members = || chosen.iter().filter_map(|at| member(*at));
    on.reply.room_for(members().map(<[u8]>::len))?;
    on.reply.array(chosen.len());
    for member in members() {
        on.reply.bulk(member);
    }
    Ok(())
}

/// Chooses `count` different indices below `length`: the first ones of a shuffle.
fn different(count: usize, length: usize, random: &mut Random) -> Result<Vec<usize>, Error> {
    let mut all = indices(length)?;
    all.extend(0..length);
    for at in 0..count {
        all.swap(at, at + random.below(length - at));
    }
    all.truncate(count);
    Ok(all)
}

/// Chooses `count` indices below `length`.
fn some(count: u64, length: usize, random: &mut Random) -> Result<Vec<usize>, Error> {
    let most = (super::MAX_REPLY / BULK_FRAME) as u64;
    if count > most {
        return Err(Error::ReplyTooLong);
    }
    let mut chosen = indices(count as usize)?;
    chosen.extend((0..count).map(|_| random.below(length)));
    Ok(chosen)
}
