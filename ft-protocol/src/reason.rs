//! Why a side gives its peer up, and why a side stops.

use crate::arbiter::{ArbiterError, MemberId};
use crate::detector::Suspicion;
use crate::log::Position;
use thiserror::Error;

/// Why the peer counts as lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum Loss {
    /// The detector suspects it.
    #[error("{0}")]
    Suspected(Suspicion),
    /// It sent something that the protocol does not allow.
    #[error("it broke the protocol: {0}")]
    Broke(String),
    /// It refused this pair.
    #[error("it refused: {0}")]
    Refused(String),
    /// The copy of the machine failed.
    #[error("{0}")]
    Unfit(String),
    /// The backup leaves, because its operator wants it to.
    #[error("it was told to leave")]
    Left,
    /// The backup's execution differs from the log.
    #[error("it diverged at position {at}: {what}")]
    Diverged {
        /// Where that showed.
        at: Position,
        /// How.
        what: String,
    },
}

/// Why a side stops for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum HaltReason {
    /// The peer goes on alone.
    #[error("halted: member {by} won generation {generation} and goes on alone")]
    LostArbitration {
        /// The generation.
        generation: u64,
        /// The winner.
        by: MemberId,
    },
    /// This backup's execution differs from the log.
    #[error("diverged at position {at}: {what}")]
    Diverged {
        /// Where that showed.
        at: Position,
        /// How.
        what: String,
    },
    /// One side refuses the other, so there cannot be a pair.
    #[error("{0}")]
    Refused(String),
    /// The generation was opened by other members.
    #[error(transparent)]
    NotFree(ArbiterError),
    /// The arbiter says that this side has no right to claim.
    #[error("{0}")]
    NoRight(String),
    /// The source of the copy was lost before this joiner was armed.
    #[error(
        "the primary was lost while its machine was copied here ({0}), and this side may not go on \
         with it: start it again to join, if the VM still runs"
    )]
    NotArmed(Loss),
}

#[cfg(test)]
impl HaltReason {
    /// The exit status that a process is to end with: the command decides it, and tests expect it.
    pub fn status(&self) -> u8 {
        match self {
            HaltReason::NoRight(_) | HaltReason::NotArmed(_) => 1,
            HaltReason::Refused(_) | HaltReason::NotFree(_) => 2,
            HaltReason::Diverged { .. } => 3,
            HaltReason::LostArbitration { .. } => 4,
        }
    }
}
