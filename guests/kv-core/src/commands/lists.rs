//! Lists.

use super::{ANY, Context, ONE_KEY, Outcome, Spec, count, integer, range, specs};
use crate::data::{End, List};
use crate::error::Error;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "lpush" 3..=ANY Write ONE_KEY, |it, on| push(it, on, End::Left), "Puts items at the head of a list.";
    "rpush" 3..=ANY Write ONE_KEY, |it, on| push(it, on, End::Right), "Puts items at the tail of a list.";
    "lpop" 2..=3 Write ONE_KEY, |it, on| pop(it, on, End::Left), "Takes items from the head of a list.";
    "rpop" 2..=3 Write ONE_KEY, |it, on| pop(it, on, End::Right), "Takes items from the tail of a list.";
    "lrange" 4..=4 Read ONE_KEY, lrange, "Returns a part of a list.";
    "llen" 2..=2 Read ONE_KEY, llen, "Returns the length of a list.";
    "lindex" 3..=3 Read ONE_KEY, lindex, "Returns an item of a list.";
    "lset" 4..=4 Write ONE_KEY, lset, "Replaces an item of a list.";
    "ltrim" 4..=4 Write ONE_KEY, ltrim, "Keeps a part of a list.";
    "lpushx" 3..=ANY Write ONE_KEY, |it, on| pushx(it, on, End::Left), "Puts items at the head of a list that exists.";
    "rpushx" 3..=ANY Write ONE_KEY, |it, on| pushx(it, on, End::Right), "Puts items at the tail of a list that exists.";
};

fn push(command: Command, on: &mut Context, end: End) -> Outcome {
    let length = on
        .keys
        .change_or_make::<List, _>(command.arg(1), |list, budget| {
            for item in command.args_from(2) {
                list.push(end, item, budget)?;
            }
            Ok((true, list.len()))
        })?;
    on.reply.integer(length as i64);
    Ok(())
}

fn pushx(command: Command, on: &mut Context, end: End) -> Outcome {
    if on.keys.collection::<List>(command.arg(1))?.is_some() {
        return push(command, on, end);
    }
    on.reply.integer(0);
    Ok(())
}

/// Returns one item, or as many as requested.
fn pop(command: Command, on: &mut Context, end: End) -> Outcome {
    let wanted = match command.len() {
        3 => Some(count(command.arg(2))?),
        _ => None,
    };
    let key = command.arg(1);
    let Some(list) = on.keys.collection::<List>(key)? else {
        match wanted {
            Some(_) => on.reply.null_array(),
            None => on.reply.null(),
        }
        return Ok(());
    };
    let length = list.len();
    let several = wanted.unwrap_or(1).min(length);
    let (start, stop) = match end {
        End::Left => (0, several),
        End::Right => (length - several, length),
    };
    on.reply
        .room_for(list.range(start, stop).map(<[u8]>::len))?;
    if wanted.is_some() {
        on.reply.array(several);
    }
    let reply = &mut on.reply;
    on.keys.change::<List, _>(key, |list, budget| {
        for _ in 0..several {
            if let Some(item) = list.pop(end, budget) {
                reply.bulk(&item);
            }
        }
        Ok((several > 0, ()))
    })?;
    Ok(())
}

fn lrange(command: Command, on: &mut Context) -> Outcome {
    let (start, stop) = (integer(command.arg(2))?, integer(command.arg(3))?);
    let Some(list) = on.keys.collection::<List>(command.arg(1))? else {
        on.reply.array(0);
        return Ok(());
    };
    let (start, end) = range(start, stop, list.len());
    on.reply.room_for(list.range(start, end).map(<[u8]>::len))?;
    on.reply.array(end - start);
    for item in list.range(start, end) {
        on.reply.bulk(item);
    }
    Ok(())
}

fn llen(command: Command, on: &mut Context) -> Outcome {
    let list = on.keys.collection::<List>(command.arg(1))?;
    on.reply.integer(list.map_or(0, List::len) as i64);
    Ok(())
}

/// The place of `index` in a list of this length. A negative index counts from the end.
fn place(index: i64, length: usize) -> Option<usize> {
    let index = match index < 0 {
        true => index.checked_add(length as i64)?,
        false => index,
    };
    usize::try_from(index).ok().filter(|it| *it < length)
}

fn lindex(command: Command, on: &mut Context) -> Outcome {
    // As in Redis, the index is not checked if there is no list.
    let list = on.keys.collection::<List>(command.arg(1))?;
    let index = list.map_or(Ok(0), |_| integer(command.arg(2)))?;
    let item = list.and_then(|list| list.get(place(index, list.len())?));
    Ok(on.reply.long_or_null(item)?)
}

fn lset(command: Command, on: &mut Context) -> Outcome {
    let index = command.arg(2);
    let set = on.keys.change::<List, _>(command.arg(1), |list, budget| {
        let at = place(integer(index)?, list.len());
        let at = at.ok_or(Error::Said("ERR index out of range"))?;
        list.set(at, command.arg(3), budget)?;
        Ok((true, ()))
    })?;
    set.ok_or(Error::NoKey)?;
    on.reply.status("OK");
    Ok(())
}

fn ltrim(command: Command, on: &mut Context) -> Outcome {
    let (start, stop) = (integer(command.arg(2))?, integer(command.arg(3))?);
    on.keys.change::<List, _>(command.arg(1), |list, budget| {
        let (start, end) = range(start, stop, list.len());
        let (left, right) = (start, list.len() - end);
        for _ in 0..right {
            list.pop(End::Right, budget);
        }
        for _ in 0..left {
            list.pop(End::Left, budget);
        }
        Ok((left + right > 0, ()))
    })?;
    on.reply.status("OK");
    Ok(())
}
