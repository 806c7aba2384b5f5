//! How a member ends. What exit status that is, the command decides.

use crate::arbiter::Unreachable;
use ft_protocol::HaltReason;
use ft_protocol::log::EndReason;
use lockstep_machine::drive::DriveError;
use lockstep_replay::{FollowError, RecordError};
use thiserror::Error;

/// How a member ended.
#[derive(Debug)]
pub enum Outcome {
    /// The guest ended.
    Ended(EndReason),
    /// It left: before the guest ran, or as a backup.
    Left,
    /// It handed over to the backup, as an operator requested.
    HandedOver,
    /// The guest ended, and a generation that could not be closed is still open.
    LeftOpen(EndReason, StillOpen),
    /// Stopped for good.
    Halted(Halt),
}

/// A generation whose guest has ended could not be closed.
#[derive(Debug, Error)]
#[error(
    "the guest has ended, and generation {generation} is still open: {why}; then start the VM with \
     `lockstep primary --force`"
)]
pub struct StillOpen {
    /// The generation.
    pub generation: u64,
    /// What the arbiter says.
    pub why: String,
}

/// Why a member stopped for good.
#[derive(Debug, Error)]
pub enum Halt {
    /// The protocol says so.
    #[error(transparent)]
    Protocol(#[from] HaltReason),
    /// Its host cannot go on with the machine.
    #[error(transparent)]
    Machine(#[from] MachineFailed),
    /// A second signal did not wait for a guest that reaches no position.
    #[error("cut off before the guest reached its next position")]
    CutOff,
    /// A second signal did not wait for the arbiter.
    #[error("cut off before the generation was closed: start again with --force")]
    CutOffOpen,
    /// It left, and a generation that it had won could not be closed.
    #[error(
        "it left before anything ran, and generation {generation} is still open: {why}; then start the VM \
         with `lockstep primary --force`"
    )]
    NotClosed {
        /// The generation.
        generation: u64,
        /// What the arbiter says.
        why: Unreachable,
    },
}

/// Why a machine does not go on.
#[derive(Debug, Error)]
pub enum MachineFailed {
    /// It ran from live inputs.
    #[error(transparent)]
    Live(#[from] DriveError<RecordError>),
    /// It followed a log.
    #[error(transparent)]
    Following(#[from] DriveError<FollowError>),
    /// Nobody had told it to stop.
    #[error("the machine stopped unasked")]
    Unasked,
}

impl Outcome {
    /// The guest ended. If a generation is still open, `why` says why.
    pub(crate) fn of_end(reason: EndReason, open: Option<u64>, why: Option<String>) -> Outcome {
        let Some(generation) = open else {
            return Outcome::Ended(reason);
        };
        let why = why.unwrap_or_else(|| "the arbiter did not answer".into());
        Outcome::LeftOpen(reason, StillOpen { generation, why })
    }
}
