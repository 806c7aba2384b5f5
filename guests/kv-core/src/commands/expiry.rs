//! Keys that expire, by the guest's time.

use super::{ANY, Context, ONE_KEY, Outcome, Spec, integer, is, specs, text};
use crate::error::Error;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "expire" 3..=ANY Write ONE_KEY, |it, on| expire(it, on, Expiry::Seconds, "expire"), "Lets a key expire after so many seconds.";
    "pexpire" 3..=ANY Write ONE_KEY, |it, on| expire(it, on, Expiry::Milliseconds, "pexpire"), "Lets a key expire after so many milliseconds.";
    "expireat" 3..=ANY Write ONE_KEY, |it, on| expire(it, on, Expiry::AtSeconds, "expireat"), "Lets a key expire at this time, seconds since 1970.";
    "pexpireat" 3..=ANY Write ONE_KEY, |it, on| expire(it, on, Expiry::AtMilliseconds, "pexpireat"), "Lets a key expire at this time, milliseconds since 1970.";
    "ttl" 2..=2 Read ONE_KEY, |it, on| tell(it, on, |until, now| (until - now + 500) / 1000), "Returns in how many seconds a key expires.";
    "pttl" 2..=2 Read ONE_KEY, |it, on| tell(it, on, |until, now| until - now), "Returns in how many milliseconds a key expires.";
    "expiretime" 2..=2 Read ONE_KEY, |it, on| tell(it, on, |until, _| until.saturating_add(500) / 1000), "Returns when a key expires, seconds since 1970.";
    "pexpiretime" 2..=2 Read ONE_KEY, |it, on| tell(it, on, |until, _| until), "Returns when a key expires, milliseconds since 1970.";
    "persist" 2..=2 Write ONE_KEY, persist, "Lets a key expire no more.";
};

/// The answers of TTL and similar commands for a key that does not exist, or never expires.
const NO_KEY: i64 = -2;
const NEVER: i64 = -1;

/// The unit and the beginning of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Seconds from now on.
    Seconds,
    /// Milliseconds from now on.
    Milliseconds,
    /// Seconds since 1970.
    AtSeconds,
    /// Milliseconds since 1970.
    AtMilliseconds,
}

impl Expiry {
    /// The option of SET and GETEX with this name.
    pub fn named(option: &[u8]) -> Option<Self> {
        let names = [
            ("ex", Self::Seconds),
            ("px", Self::Milliseconds),
            ("exat", Self::AtSeconds),
            ("pxat", Self::AtMilliseconds),
        ];
        let found = names.into_iter().find(|(name, _)| is(option, name));
        found.map(|(_, expiry)| expiry)
    }

    /// The time as milliseconds since 1970; `None` if it does not fit 64 bits.
    fn until(self, time: i64, now_ms: i64) -> Option<i64> {
        match self {
            Self::Seconds => time.checked_mul(1000)?.checked_add(now_ms),
            Self::Milliseconds => time.checked_add(now_ms),
            Self::AtSeconds => time.checked_mul(1000),
            Self::AtMilliseconds => Some(time),
        }
    }
}

/// The time in the argument of `command`, which must be above 0.
pub fn deadline(
    expiry: Expiry,
    time: i64,
    now_ms: i64,
    command: &'static str,
) -> Result<i64, Error> {
    let until = expiry.until(time, now_ms).filter(|_| time > 0);
    until.ok_or(Error::Expire(command))
}

/// The conditions under which EXPIRE and similar commands set a time.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    /// Are they fulfilled? A key that never expires counts as one that expires later than any other.
    fn hold(&self, old: Option<i64>, new: i64) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

/// The conditions after the first three arguments; `None` if an error was answered.
fn conditions(command: Command, on: &mut Context) -> Result<Option<Conditions>, Error> {
    let mut found = Conditions::default();
    for option in command.args_from(3) {
        let flag = match option {
            it if is(it, "nx") => &mut found.nx,
            it if is(it, "xx") => &mut found.xx,
            it if is(it, "gt") => &mut found.gt,
            it if is(it, "lt") => &mut found.lt,
            _ => {
                let option = text(option);
                on.reply
                    .error(format_args!("ERR Unsupported option {option}"));
                return Ok(None);
            }
        };
        *flag = true;
    }
    if found.nx && (found.xx || found.gt || found.lt) {
        return Err(Error::Said(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if found.gt && found.lt {
        return Err(Error::Said(
            "ERR GT and LT options at the same time are not compatible",
        ));
    }
    Ok(Some(found))
}

fn expire(command: Command, on: &mut Context, unit: Expiry, name: &'static str) -> Outcome {
    let Some(conditions) = conditions(command, on)? else {
        return Ok(());
    };
    let (key, time) = (command.arg(1), integer(command.arg(2))?);
    let until = unit.until(time, on.keys.now_ms());
    let until = until.ok_or(Error::Expire(name))?;
    let sets = on.keys.get(key).is_some() && conditions.hold(on.keys.deadline(key), until);
    if sets {
        on.keys.expire(key, until)?;
    }
    on.reply.integer(i64::from(sets));
    Ok(())
}

fn tell(command: Command, on: &mut Context, time: fn(i64, i64) -> i64) -> Outcome {
    let key = command.arg(1);
    let answer = match (on.keys.get(key), on.keys.deadline(key)) {
        (None, _) => NO_KEY,
        (Some(_), None) => NEVER,
        (Some(_), Some(until)) => time(until, on.keys.now_ms()),
    };
    on.reply.integer(answer);
    Ok(())
}

fn persist(command: Command, on: &mut Context) -> Outcome {
    let would = on.keys.persist(command.arg(1));
    on.reply.integer(i64::from(would));
    Ok(())
}
