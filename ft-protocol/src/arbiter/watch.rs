//! Records may vanish: by a cleaner of old files, an etcd that is restarted empty, or a mistake of an
//! operator. So members look at their records from time to time, while nothing depends on them.
//!
//! What may be put back, and why that gives no member a right that another one has:
//!
//! - *That a member won*: by the member that runs alone. It stays true for ever, and only keeps others
//!   from winning. The claim is written first, so that the open record is never there without it.
//! - *The open record of a pair*: by its primary, after its backup has acknowledged an entry that was
//!   made after the record was found missing. A backup that acknowledges has not asked the arbiter, and
//!   since the record was missing there was nothing to claim: so no member has won this generation.
//! - Everything else: only by an operator, who knows that no member went on alone in this generation.

use super::{Claim, MemberId, Members, Nonce, OpenRecord};
use crate::transfer::Right;

/// The records that the arbiter should have of a member that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The generation, as it was opened.
    pub right: Right,
    /// Did this member win it? Then there is also its claim.
    pub won: bool,
}

/// The result of a look at the records of a member's own generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// They are as they should be.
    Sound,
    /// A record is gone.
    Missing(String),
    /// Records of other members are in their place: there is nothing to repair, but it must be
    /// reported.
    Others(String),
    /// The arbiter gave no answer.
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

/// Judges what `member` found, which has this standing.
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
