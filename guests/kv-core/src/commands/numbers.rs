//! Commands for strings that are numbers.

use super::{Context, ONE_KEY, Outcome, Spec, integer, specs};
use crate::error::Error;
use crate::long_double::LongDouble;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "incr" 2..=2 Write ONE_KEY, |it, on| add(it, on, 1), "Adds one to the number at a key.";
    "incrby" 3..=3 Write ONE_KEY, |it, on| add(it, on, integer(it.arg(2))?), "Adds to the number at a key.";
    "decr" 2..=2 Write ONE_KEY, |it, on| add(it, on, -1), "Subtracts one from the number at a key.";
    "decrby" 3..=3 Write ONE_KEY, decrby, "Subtracts from the number at a key.";
    "incrbyfloat" 3..=3 Write ONE_KEY, incrbyfloat, "Adds to the floating-point number at a key.";
};

fn add(command: Command, on: &mut Context, amount: i64) -> Outcome {
    let sum = on.keys.add(command.arg(1), amount)?;
    on.reply.integer(sum);
    Ok(())
}

fn decrby(command: Command, on: &mut Context) -> Outcome {
    let amount = integer(command.arg(2))?;
    let negated = amount.checked_neg();
    let negated = negated.ok_or(Error::Said("ERR decrement would overflow"))?;
    add(command, on, negated)
}

fn incrbyfloat(command: Command, on: &mut Context) -> Outcome {
    let key = command.arg(1);
    let old = on.keys.text(key)?.unwrap_or(b"0");
    let number = |text| LongDouble::parse(text).ok_or(Error::NoFloat);
    let sum = number(old)?.plus(number(command.arg(2))?);
    let endless = Error::Said("ERR increment would produce NaN or Infinity");
    let sum = sum.ok_or(endless)?.text();
    // A large number has thousands of digits.
    on.reply.reserve(sum.len())?;
    on.keys.set(key, sum.as_bytes())?;
    on.reply.bulk(sum.as_bytes());
    Ok(())
}
