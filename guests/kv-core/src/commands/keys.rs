//! Commands for keys with values of any type.

use super::{ALL_KEYS, ANY, Context, NO_KEY, ONE_KEY, Outcome, Spec, count_args, specs};
use crate::error::Error;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "del" 2..=ANY Write ALL_KEYS, del, "Deletes keys.";
    "unlink" 2..=ANY Write ALL_KEYS, del, "Deletes keys.";
    "exists" 2..=ANY Read ALL_KEYS, exists, "Returns how many of the keys exist.";
    "touch" 2..=ANY Read ALL_KEYS, exists, "Returns how many of the keys exist.";
    "type" 2..=2 Read ONE_KEY, kind, "Returns the type of a key's value.";
    "randomkey" 1..=1 Read NO_KEY, randomkey, "Returns one of the keys.";
    "rename" 3..=3 Write (1, 2, 1), rename, "Gives a key another name.";
    "renamenx" 3..=3 Write (1, 2, 1), renamenx, "Gives a key another name if no key has it.";
};

fn del(command: Command, on: &mut Context) -> Outcome {
    let removed = count_args(command, 1, |key| on.keys.remove(key));
    on.reply.integer(removed);
    Ok(())
}

fn exists(command: Command, on: &mut Context) -> Outcome {
    let found = count_args(command, 1, |key| on.keys.get(key).is_some());
    on.reply.integer(found);
    Ok(())
}

fn kind(command: Command, on: &mut Context) -> Outcome {
    let value = on.keys.get(command.arg(1));
    on.reply.status(value.map_or("none", |value| value.kind()));
    Ok(())
}

fn randomkey(_: Command, on: &mut Context) -> Outcome {
    let table = on.keys.table();
    let key = match table.len() {
        0 => None,
        length => table.at(on.random.below(length)).map(|(key, _)| key),
    };
    Ok(on.reply.long_or_null(key)?)
}

fn rename(command: Command, on: &mut Context) -> Outcome {
    on.keys.get(command.arg(1)).ok_or(Error::NoKey)?;
    on.keys.rename(command.arg(1), command.arg(2))?;
    on.reply.status("OK");
    Ok(())
}

fn renamenx(command: Command, on: &mut Context) -> Outcome {
    on.keys.get(command.arg(1)).ok_or(Error::NoKey)?;
    let free = on.keys.get(command.arg(2)).is_none();
    if free {
        on.keys.rename(command.arg(1), command.arg(2))?;
    }
    on.reply.integer(i64::from(free));
    Ok(())
}
