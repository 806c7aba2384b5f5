//! Records may vanish: a cleaner of old files, an etcd that was restarted empty, a mistaken hand. Members
//! look at theirs now and then, while nothing depends on it.
//!
//! What may be put back, and why that gives nobody a right that another one has:
//!
//! - *That it won*, by whoever runs alone: it stays true for ever, and only keeps others from winning. Its
//!   claim goes first, so that the open record is never there without it.
//! - *The open record of a pair*, by its primary, once its backup has acknowledged an entry that was made
//!   after the record was found missing. Who acknowledges has not asked the arbiter, and who had not asked
//!   by then found no record to claim since: nobody has won this generation.
//! - Anything else only by an operator, who knows that nobody went on alone in this generation.

use super::{Claim, MemberId, Members, Nonce, OpenRecord};
use crate::transfer::Right;

/// What the arbiter has of a side that runs, if nothing was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The generation, as it was opened.
    pub right: Right,
    /// Whether this side won it: then its claim is there as well.
    pub won: bool,
}

/// What a look at the records of one's own generation found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// They are as they should be.
    Sound,
    /// Something is gone.
    Missing(String),
    /// Others' are in their place: nothing to mend, but to be told.
    Others(String),
    /// Nobody knows.
    Unreachable(String),
}

impl Standing {
    /// The open record that belongs there.
    pub fn record(&self, vm: &str, at: u64) -> OpenRecord {
        let Right {
            generation,
            members,
            nonce,
        } = self.right;
        OpenRecord {
            vm: vm.into(),
            generation,
            members,
            nonce,
            at,
        }
    }

    fn is_in(&self, record: &OpenRecord) -> bool {
        let key: (Members, Nonce) = (record.members, record.nonce);
        key == (self.right.members, self.right.nonce)
    }
}

/// Judges what `member` finds, which stands like this.
pub fn judge_look(
    vm: &str,
    standing: &Standing,
    member: MemberId,
    open: Option<&OpenRecord>,
    claim: Option<&Claim>,
) -> Look {
    let generation = standing.right.generation;
    if let Some(other) = claim.filter(|claim| claim.claimant != member || !standing.won) {
        return Look::Others(format!(
            "generation {generation} of VM {vm} is claimed by member {}, in the arbiter",
            other.claimant
        ));
    }
    let missing = |kind: &str| {
        Look::Missing(format!(
            "the record {generation}.{kind} of VM {vm} is gone from the arbiter: look who removes files \
             there"
        ))
    };
    match open {
        Some(record) if !standing.is_in(record) => Look::Others(format!(
            "generation {generation} of VM {vm} belongs to others, in the arbiter"
        )),
        None => missing("open"),
        Some(_) if standing.won && claim.is_none() => missing("claim"),
        Some(_) => Look::Sound,
    }
}
