//! Shared by both sides of a state transfer: how a copy is proved, and from what a survivor starts as a
//! primary.

use crate::arbiter::{MemberId, Members, Nonce};
use bincode::{Decode, Encode};

/// Digests of a machine's parts, by name, in the same order on both sides. They are equal if and only
/// if the copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct StateDigest(pub Vec<(String, u64)>);

impl StateDigest {
    /// The names of the parts in which two machines differ, including parts that only one of them has.
    pub fn differences(&self, other: &StateDigest) -> Vec<String> {
        let missing = |(name, digest): &&(String, u64), from: &StateDigest| {
            !from.0.iter().any(|(n, d)| n == name && d == digest)
        };
        let ours = self.0.iter().filter(|part| missing(part, other));
        let theirs = other.0.iter().filter(|part| missing(part, self));
        let mut names: Vec<String> = ours.chain(theirs).map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Where a running machine was stopped to be copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capture {
    /// The log's last entry before the stop.
    pub seq: u64,
    /// Number of the last output before the stop.
    pub outputs: u64,
    /// The digests that the copy must have.
    pub digest: StateDigest,
}

/// The right by which a side runs alone or is a member of a pair: a generation, as it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// The generation.
    pub generation: u64,
    /// Its members.
    pub members: Members,
    /// Its nonce.
    pub nonce: Nonce,
}

impl Right {
    /// May this member claim the generation?
    pub fn is_of(&self, member: MemberId) -> bool {
        self.members.primary == member || self.members.backup == Some(member)
    }
}

/// A backup that went live: with this it goes on as a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Survivor {
    /// The generation that it won.
    pub right: Right,
    /// The last entry of its log.
    pub seq: u64,
    /// Number of the last output that its guest emitted; all of them have left.
    pub outputs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(parts: &[(&str, u64)]) -> StateDigest {
        StateDigest(parts.iter().map(|(n, d)| (n.to_string(), *d)).collect())
    }

    #[test]
    fn what_differs_is_named_and_what_is_missing_differs() {
        let ours = digest(&[("memory", 1), ("8259", 2), ("FPU", 3)]);
        assert_eq!(ours.differences(&ours), [] as [&str; 0]);
        let theirs = digest(&[("memory", 1), ("8259", 9), ("8254", 3)]);
        assert_eq!(ours.differences(&theirs), ["8254", "8259", "FPU"]);
    }
}
