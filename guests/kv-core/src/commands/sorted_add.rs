//! Sorted sets: new members and changed scores.

use super::sorted::Sorted;
use super::{ANY, Context, ONE_KEY, Outcome, Spec, is, specs};
use crate::buffer::Budget;
use crate::data::Score;
use crate::error::Error;
use crate::float;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "zadd" 4..=ANY Write ONE_KEY, zadd, "Adds members to a sorted set, or changes their scores.";
    "zincrby" 4..=4 Write ONE_KEY, zincrby, "Adds to the score of a member.";
};

/// Which scores ZADD sets, and what it returns.
#[derive(Clone, Copy, Default)]
struct AddOptions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    /// Changed scores count like new members.
    changed: bool,
    /// The score is an increment, and the reply the sum.
    increment: bool,
}

impl AddOptions {
    /// Reads the options. Returns them and the index of the first argument after them.
    fn parse(command: Command) -> Result<(Self, usize), Error> {
        let mut options = Self::default();
        let mut at = 2;
        for option in command.args_from(2) {
            let flag = match option {
                it if is(it, "nx") => &mut options.nx,
                it if is(it, "xx") => &mut options.xx,
                it if is(it, "gt") => &mut options.gt,
                it if is(it, "lt") => &mut options.lt,
                it if is(it, "ch") => &mut options.changed,
                it if is(it, "incr") => &mut options.increment,
                _ => break,
            };
            *flag = true;
            at += 1;
        }
        Ok((options, at))
    }

    /// Finds errors in the same order as Redis.
    fn check(self, rest: usize) -> Outcome {
        if rest == 0 || !rest.is_multiple_of(2) {
            return Err(Error::Syntax);
        }
        if self.nx && self.xx {
            return Err(Error::Said(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if self.gt && self.lt || self.nx && (self.gt || self.lt) {
            return Err(Error::Said(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increment && rest > 2 {
            return Err(Error::Said(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }

    /// The new score of a member; `None` if its score does not change.
    fn score(self, old: Option<Score>, given: f64) -> Result<Option<Score>, Error> {
        let unwanted = match old {
            Some(_) => self.nx,
            None => self.xx,
        };
        if unwanted {
            return Ok(None);
        }
        let sum = match old {
            Some(old) if self.increment => old.value() + given,
            Some(_) | None => given,
        };
        let new =
            Score::new(sum).ok_or(Error::Said("ERR resulting score is not a number (NaN)"))?;
        let wrong_way = old.is_some_and(|old| self.gt && new <= old || self.lt && new >= old);
        Ok((!wrong_way).then_some(new))
    }
}

/// What ZADD did.
#[derive(Default)]
struct Done {
    added: i64,
    changed: i64,
    /// The last score that was set.
    score: Option<Score>,
}

impl Done {
    /// Sets the score of `member`.
    fn add(
        &mut self,
        set: &mut Sorted,
        member: &[u8],
        options: AddOptions,
        given: f64,
        budget: &mut Budget,
    ) -> Outcome {
        let old = set.score(member);
        self.score = options.score(old, given)?;
        if let Some(new) = self.score {
            set.set(member, new, budget)?;
            self.added += i64::from(old.is_none());
            self.changed += i64::from(old.is_some_and(|old| old != new));
        }
        Ok(())
    }
}

fn number(argument: &[u8]) -> Result<f64, Error> {
    float::parse(argument).ok_or(Error::NoFloat)
}

/// Sets the scores of the members from argument `first` on; each score precedes its member.
fn add(
    command: Command,
    on: &mut Context,
    first: usize,
    options: AddOptions,
) -> Result<Done, Error> {
    // If one score is not a number, nothing is changed.
    for at in (first..command.len()).step_by(2) {
        number(command.arg(at))?;
    }
    let key = command.arg(1);
    if options.xx && on.keys.collection::<Sorted>(key)?.is_none() {
        return Ok(Done::default());
    }
    on.keys.change_or_make::<Sorted, _>(key, |set, budget| {
        let mut done = Done::default();
        for at in (first..command.len()).step_by(2) {
            let given = number(command.arg(at))?;
            done.add(set, command.arg(at + 1), options, given, budget)?;
        }
        Ok((done.added + done.changed > 0, done))
    })
}

fn zadd(command: Command, on: &mut Context) -> Outcome {
    let (options, first) = AddOptions::parse(command)?;
    options.check(command.len() - first)?;
    let done = add(command, on, first, options)?;
    match (options.increment, done.score) {
        (true, Some(score)) => on.reply.double(score.value()),
        (true, None) => on.reply.null(),
        (false, _) if options.changed => on.reply.integer(done.added + done.changed),
        (false, _) => on.reply.integer(done.added),
    }
    Ok(())
}

fn zincrby(command: Command, on: &mut Context) -> Outcome {
    let options = AddOptions {
        increment: true,
        ..AddOptions::default()
    };
    let done = add(command, on, 2, options)?;
    let sum = done.score.map_or(0.0, Score::value);
    on.reply.double(sum);
    Ok(())
}
