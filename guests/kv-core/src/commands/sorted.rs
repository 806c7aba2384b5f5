//! Sorted sets: all commands but ZADD and ZINCRBY.

use super::{ANY, Context, ONE_KEY, Outcome, Spec, count, count_args, integer, is, range, specs};
use crate::data::{Ranked, Score};
use crate::error::Error;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "zpopmin" 2..=3 Write ONE_KEY, |it, on| pop(it, on, Order::Up), "Takes the members with the lowest scores.";
    "zpopmax" 2..=3 Write ONE_KEY, |it, on| pop(it, on, Order::Down), "Takes the members with the highest scores.";
    "zrange" 4..=6 Read ONE_KEY, |it, on| zrange(it, on, Order::Up), "Returns members by their ranks.";
    "zrevrange" 4..=5 Read ONE_KEY, |it, on| zrange(it, on, Order::Down), "Returns members by their ranks, the highest score first.";
    "zcard" 2..=2 Read ONE_KEY, zcard, "Returns the number of members of a sorted set.";
    "zscore" 3..=3 Read ONE_KEY, zscore, "Returns the score of a member.";
    "zmscore" 3..=ANY Read ONE_KEY, zmscore, "Returns the scores of members.";
    "zrank" 3..=3 Read ONE_KEY, |it, on| zrank(it, on, Order::Up), "Returns the rank of a member.";
    "zrevrank" 3..=3 Read ONE_KEY, |it, on| zrank(it, on, Order::Down), "Returns the rank of a member, the highest score first.";
    "zrem" 3..=ANY Write ONE_KEY, zrem, "Removes members from a sorted set.";
};

/// A sorted set.
pub type Sorted = Ranked<Score>;

/// Which score comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The lowest.
    Up,
    /// The highest.
    Down,
}

impl Order {
    /// The rank, counted from the lowest score, of the member at `place` in this order.
    fn rank(self, place: usize, length: usize) -> usize {
        match self {
            Order::Up => place,
            Order::Down => length - 1 - place,
        }
    }
}

/// Reserves room for the members at these places, and for their scores.
fn room(on: &mut Context, key: &[u8], order: Order, start: usize, end: usize) -> Outcome {
    let Some(set) = on.keys.collection::<Sorted>(key)? else {
        return Ok(());
    };
    let length = |place| {
        set.at(order.rank(place, set.len()))
            .map_or(0, |it| it.0.len())
    };
    // A score takes at most twice the frame of a string, and so does the head of a pair.
    let lengths = (start..end).flat_map(|place| [length(place), 0, 0]);
    on.reply.room_for(lengths)
}

/// Removes one member, or as many as requested. A single one is not returned as a pair.
fn pop(command: Command, on: &mut Context, order: Order) -> Outcome {
    let wanted = match command.len() {
        3 => Some(count(command.arg(2))?),
        _ => None,
    };
    let key = command.arg(1);
    let length = on.keys.collection::<Sorted>(key)?.map_or(0, Ranked::len);
    let several = wanted.unwrap_or(1).min(length);
    room(on, key, order, 0, several)?;
    match wanted {
        Some(_) => on.reply.pairs(several),
        None => on.reply.array(2 * several),
    }
    let reply = &mut on.reply;
    on.keys.change::<Sorted, _>(key, |set, budget| {
        for _ in 0..several {
            let rank = order.rank(0, set.len());
            if let Some((member, score)) = set.remove_at(rank, budget) {
                if wanted.is_some() {
                    reply.pair();
                }
                reply.bulk(&member);
                reply.double(score.value());
            }
        }
        Ok((several > 0, ()))
    })?;
    Ok(())
}

fn zrange(command: Command, on: &mut Context, mut order: Order) -> Outcome {
    let (start, stop) = (integer(command.arg(2))?, integer(command.arg(3))?);
    let mut with_scores = false;
    for option in command.args_from(4) {
        match option {
            it if is(it, "withscores") => with_scores = true,
            it if is(it, "rev") && is(command.arg(0), "zrange") => order = Order::Down,
            _ => return Err(Error::Syntax),
        }
    }
    let key = command.arg(1);
    let length = on.keys.collection::<Sorted>(key)?.map_or(0, Ranked::len);
    let (start, end) = range(start, stop, length);
    room(on, key, order, start, end)?;
    match with_scores {
        true => on.reply.pairs(end - start),
        false => on.reply.array(end - start),
    }
    let set = on.keys.collection::<Sorted>(key)?;
    for place in start..end {
        let rank = order.rank(place, length);
        if let Some((member, score)) = set.and_then(|set| set.at(rank)) {
            if with_scores {
                on.reply.pair();
            }
            on.reply.bulk(member);
            if with_scores {
                on.reply.double(score.value());
            }
        }
    }
    Ok(())
}

fn zcard(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Sorted>(command.arg(1))?;
    on.reply.integer(set.map_or(0, Ranked::len) as i64);
    Ok(())
}

fn zscore(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Sorted>(command.arg(1))?;
    match set.and_then(|set| set.score(command.arg(2))) {
        Some(score) => on.reply.double(score.value()),
        None => on.reply.null(),
    }
    Ok(())
}

fn zmscore(command: Command, on: &mut Context) -> Outcome {
    let set = on.keys.collection::<Sorted>(command.arg(1))?;
    // As in `room`: a score takes two frames.
    on.reply
        .room_for(command.args_from(2).flat_map(|_| [0, 0]))?;
    on.reply.array(command.len() - 2);
    for member in command.args_from(2) {
        match set.and_then(|set| set.score(member)) {
            Some(score) => on.reply.double(score.value()),
            None => on.reply.null(),
        }
    }
    Ok(())
}

fn zrank(command: Command, on: &mut Context, order: Order) -> Outcome {
    let set = on.keys.collection::<Sorted>(command.arg(1))?;
    let rank = set.and_then(|set| Some(order.rank(set.rank(command.arg(2))?, set.len())));
    match rank {
        Some(rank) => on.reply.integer(rank as i64),
        None => on.reply.null(),
    }
    Ok(())
}

fn zrem(command: Command, on: &mut Context) -> Outcome {
    let removed = on.keys.change::<Sorted, _>(command.arg(1), |set, budget| {
        let removed = count_args(command, 2, |it| set.remove(it, budget).is_some());
        Ok((removed > 0, removed))
    })?;
    on.reply.integer(removed.unwrap_or(0));
    Ok(())
}
