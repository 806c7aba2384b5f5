//! Strings.

use super::expiry::{Expiry, deadline};
use super::{ALL_KEYS, ANY, Context, ONE_KEY, Outcome, Spec, integer, is, range, specs};
use crate::error::Error;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "get" 2..=2 Read ONE_KEY, get, "Returns the string value of a key.";
    "set" 3..=ANY Write ONE_KEY, set, "Sets the string value of a key, whatever it was.";
    "mget" 2..=ANY Read ALL_KEYS, mget, "Returns the string values of one or more keys.";
    "mset" 3..=ANY Write (1, -1, 2), mset, "Sets the string values of one or more keys.";
    "msetnx" 3..=ANY Write (1, -1, 2), msetnx, "Sets keys if none of them exists.";
    "setnx" 3..=3 Write ONE_KEY, setnx, "Sets a key if it does not exist.";
    "setex" 4..=4 Write ONE_KEY, |it, on| set_for(it, on, Expiry::Seconds, "setex"), "Sets a key that expires after so many seconds.";
    "psetex" 4..=4 Write ONE_KEY, |it, on| set_for(it, on, Expiry::Milliseconds, "psetex"), "Sets a key that expires after so many milliseconds.";
    "getset" 3..=3 Write ONE_KEY, getset, "Sets a key and returns its old value.";
    "getdel" 2..=2 Write ONE_KEY, getdel, "Returns a key's value and deletes the key.";
    "getex" 2..=ANY Write ONE_KEY, getex, "Returns a key's value and changes when it expires.";
    "getrange" 4..=4 Read ONE_KEY, getrange, "Returns a part of a string.";
    "substr" 4..=4 Read ONE_KEY, getrange, "Returns a part of a string.";
    "setrange" 4..=4 Write ONE_KEY, setrange, "Overwrites a part of a string.";
    "append" 3..=3 Write ONE_KEY, append, "Appends to a string.";
    "strlen" 2..=2 Read ONE_KEY, strlen, "Returns the length of a string.";
};

fn get(command: Command, on: &mut Context) -> Outcome {
    let text = on.keys.text(command.arg(1))?;
    Ok(on.reply.long_or_null(text)?)
}

/// The conditions of SET, and when the new value expires.
#[derive(Default)]
struct SetOptions {
    /// Set only if the key exists (true), or only if it does not (false).
    if_exists: Option<bool>,
    /// Return the old value.
    get: bool,
    /// The expiry time stays as before.
    keep_ttl: bool,
    expiry: Option<(Expiry, i64)>,
}

impl SetOptions {
    fn parse(command: Command) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut args = command.args_from(3);
        while let Some(option) = args.next() {
            if is(option, "nx") && options.if_exists != Some(true) {
                options.if_exists = Some(false);
            } else if is(option, "xx") && options.if_exists != Some(false) {
                options.if_exists = Some(true);
            } else if is(option, "get") {
                options.get = true;
            } else if is(option, "keepttl") && options.expiry.is_none() {
                options.keep_ttl = true;
            } else if let Some(expiry) = Expiry::named(option)
                && options.expiry.is_none()
                && !options.keep_ttl
            {
                let time = args.next().ok_or(Error::Syntax)?;
                options.expiry = Some((expiry, integer(time)?));
            } else {
                return Err(Error::Syntax);
            }
        }
        Ok(options)
    }
}

fn set(command: Command, on: &mut Context) -> Outcome {
    let key = command.arg(1);
    if command.len() == 3 {
        on.keys.set(key, command.arg(2))?;
        on.keys.persist(key);
        on.reply.status("OK");
        return Ok(());
    }
    let options = SetOptions::parse(command)?;
    let until = match options.expiry {
        Some((expiry, time)) => Some(deadline(expiry, time, on.keys.now_ms(), "set")?),
        None => None,
    };
    let exists = on.keys.get(key).is_some();
    let sets = options.if_exists.is_none_or(|wanted| wanted == exists);
    if options.get {
        let old = on.keys.text(key)?;
        on.reply.long_or_null(old)?;
    }
    if sets {
        on.keys.set(key, command.arg(2))?;
        match until {
            Some(until) => on.keys.expire(key, until)?,
            None if options.keep_ttl => {}
            None => drop(on.keys.persist(key)),
        }
    }
    match (options.get, sets) {
        (true, _) => {}
        (false, true) => on.reply.status("OK"),
        (false, false) => on.reply.null(),
    }
    Ok(())
}

fn set_for(command: Command, on: &mut Context, unit: Expiry, name: &'static str) -> Outcome {
    let time = integer(command.arg(2))?;
    let until = deadline(unit, time, on.keys.now_ms(), name)?;
    on.keys.set(command.arg(1), command.arg(3))?;
    on.keys.expire(command.arg(1), until)?;
    on.reply.status("OK");
    Ok(())
}

fn setnx(command: Command, on: &mut Context) -> Outcome {
    let new = on.keys.get(command.arg(1)).is_none();
    if new {
        on.keys.set(command.arg(1), command.arg(2))?;
    }
    on.reply.integer(i64::from(new));
    Ok(())
}

fn mget(command: Command, on: &mut Context) -> Outcome {
    let keys = &on.keys;
    let value = |key| keys.text(key).ok().flatten();
    let lengths = command
        .args_from(1)
        .map(|key| value(key).map_or(0, <[u8]>::len));
    on.reply.room_for(lengths)?;
    on.reply.array(command.len() - 1);
    for key in command.args_from(1) {
        match value(key) {
            Some(text) => on.reply.bulk(text),
            None => on.reply.null(),
        }
    }
    Ok(())
}

/// Sets all pairs; if memory runs out, only the first ones.
fn set_pairs(command: Command, on: &mut Context) -> Outcome {
    for at in (1..command.len()).step_by(2) {
        on.keys.set(command.arg(at), command.arg(at + 1))?;
        on.keys.persist(command.arg(at));
    }
    Ok(())
}

fn mset(command: Command, on: &mut Context) -> Outcome {
    if command.len().is_multiple_of(2) {
        return Err(Error::WrongNumber("mset"));
    }
    set_pairs(command, on)?;
    on.reply.status("OK");
    Ok(())
}

fn msetnx(command: Command, on: &mut Context) -> Outcome {
    if command.len().is_multiple_of(2) {
        return Err(Error::WrongNumber("msetnx"));
    }
    let mut keys = (1..command.len()).step_by(2);
    let new = keys.all(|at| on.keys.get(command.arg(at)).is_none());
    if new {
        set_pairs(command, on)?;
    }
    on.reply.integer(i64::from(new));
    Ok(())
}

fn getset(command: Command, on: &mut Context) -> Outcome {
    let key = command.arg(1);
    let old = on.keys.text(key)?;
    on.reply.long_or_null(old)?;
    on.keys.set(key, command.arg(2))?;
    on.keys.persist(key);
    Ok(())
}

fn getdel(command: Command, on: &mut Context) -> Outcome {
    get(command, on)?;
    on.keys.remove(command.arg(1));
    Ok(())
}

fn getex(command: Command, on: &mut Context) -> Outcome {
    let (key, now) = (command.arg(1), on.keys.now_ms());
    let persists = command.len() == 3 && is(command.arg(2), "persist");
    let until = match command.len() {
        4 => {
            let expiry = Expiry::named(command.arg(2)).ok_or(Error::Syntax)?;
            Some(deadline(expiry, integer(command.arg(3))?, now, "getex")?)
        }
        2 => None,
        3 if persists => None,
        _ => return Err(Error::Syntax),
    };
    get(command, on)?;
    if let Some(until) = until {
        on.keys.expire(key, until)?;
    } else if persists {
        on.keys.persist(key);
    }
    Ok(())
}

fn getrange(command: Command, on: &mut Context) -> Outcome {
    let (start, stop) = (integer(command.arg(2))?, integer(command.arg(3))?);
    let text = on.keys.text(command.arg(1))?.unwrap_or_default();
    // An end before the first byte means the first byte, unlike in a list; except when it is before a
    // start that also counts from the end.
    let backwards = start < 0 && stop < start;
    let stop = match backwards {
        true => stop,
        false => stop.max(-(text.len() as i64)),
    };
    let (start, end) = range(start, stop, text.len());
    Ok(on.reply.long(&text[start..end])?)
}

fn setrange(command: Command, on: &mut Context) -> Outcome {
    let (key, bytes) = (command.arg(1), command.arg(3));
    let offset = usize::try_from(integer(command.arg(2))?)
        .map_err(|_| Error::Said("ERR offset is out of range"))?;
    let length = match on.keys.text(key)? {
        text if bytes.is_empty() => text.map_or(0, <[u8]>::len),
        _ => on.keys.write(key, offset, bytes)?,
    };
    on.reply.integer(length as i64);
    Ok(())
}

fn append(command: Command, on: &mut Context) -> Outcome {
    let key = command.arg(1);
    let offset = on.keys.text(key)?.map_or(0, <[u8]>::len);
    let length = on.keys.write(key, offset, command.arg(2))?;
    on.reply.integer(length as i64);
    Ok(())
}

fn strlen(command: Command, on: &mut Context) -> Outcome {
    let length = on.keys.text(command.arg(1))?.map_or(0, <[u8]>::len);
    on.reply.integer(length as i64);
    Ok(())
}
