//! The events: their names, fields and meanings, as `docs/operations.md` lists them.

use ft_protocol::arbiter::MemberId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strum::VariantNames;

/// What a member tells when it happens. [`Event::VARIANTS`] are the names.
///
/// Events without fields have braces, so that a field that does not belong there is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, VariantNames)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
#[strum(serialize_all = "snake_case")]
pub enum Event {
    /// The primary waits for a backup.
    Waiting {
        /// Its id.
        #[serde(with = "crate::hex")]
        member: MemberId,
    },
    /// The primary's guest executes.
    Started {
        /// Its generation.
        generation: u64,
    },
    /// How far the backup is behind, while that matters, and once when it is over.
    Lag {
        /// The age of the oldest entry that the backup has not executed, ms.
        lag_ms: f64,
        /// How much of its time the primary's vCPU rests, percent.
        throttle_percent: u32,
    },
    /// The primary handed over as planned, and ends.
    HandedOver {
        /// The generation in which the backup goes on.
        generation: u64,
    },
    /// The backup counts as lost; the arbiter decides the rest.
    BackupLost {
        /// Why, as a sentence.
        reason: String,
    },
    /// The primary goes on without its backup.
    Solo {
        /// The generation that it won.
        generation: u64,
    },
    /// The other side won; this one halts.
    ClaimLost {
        /// The generation.
        generation: u64,
    },
    /// The backup tries to reach its primary.
    Connecting {
        /// Its id.
        #[serde(with = "crate::hex")]
        member: MemberId,
    },
    /// The backup is half of a pair: from here on it may go live.
    Joined {
        /// The generation of the two.
        generation: u64,
    },
    /// A backup has room for the copy of a VM that runs alone.
    Joining {
        /// The generation in which it does.
        generation: u64,
    },
    /// A round of copying begins at the source.
    Copying(CopyProgress),
    /// The source was stopped, and is copied.
    Copied {
        /// How long it was stopped, ms.
        pause_ms: f64,
        /// What was sent in all.
        progress: CopyProgress,
    },
    /// The source's new backup is armed.
    Protected {
        /// The generation of the two.
        generation: u64,
    },
    /// The copy came to nothing.
    CopyEnded {},
    /// The backup thinks the primary dead.
    Suspect {
        /// Why, as a sentence.
        reason: String,
    },
    /// The primary was heard again.
    Withdraw {},
    /// The backup has executed everything that it has acknowledged, and asks the arbiter.
    CaughtUp {
        /// The position that it reached.
        position: u64,
        /// The branch edges by then; 0 if a progress mark came last.
        edges: u64,
    },
    /// The primary handed over to this backup.
    TakesOver {},
    /// The arbiter gave this member the right to go on alone.
    ClaimWon {
        /// The generation.
        generation: u64,
    },
    /// The other side was silent longer than ever before.
    Silence {
        /// For so long, ms.
        longest_ms: f64,
    },
    /// The arbiter is needed and cannot be asked.
    Unreachable {
        /// Why, as a sentence.
        why: String,
    },
    /// A record of the member's generation is gone, or another one is in its place.
    RecordMissing {
        /// Which, as a sentence.
        why: String,
    },
    /// The record is as it should be again.
    RecordBack {},
    /// The fence failed, and is run again.
    FenceFailed {
        /// How, as a sentence.
        why: String,
    },
    /// The backup left, as it was told to.
    Left {},
    /// The backup is live.
    Live {
        /// The generation that it won.
        generation: u64,
        /// Outputs that were emitted again.
        reemitted: u64,
        /// Frames of its own TAP that it goes on with.
        shadowed: u64,
    },
    /// The TAP's interface came, went, or is not as it should be from the start.
    Network {
        /// The TAP's name.
        tap: String,
        /// How its interface is.
        link: LinkState,
        /// Why it is gone, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The backup's execution differs from the log; it halts.
    Diverged {
        /// The position at which that showed.
        position: u64,
        /// The branch edges there.
        edges: u64,
        /// How, as a sentence.
        what: String,
        /// A digest of each part of its machine, in hexadecimal; none if they cannot be seen.
        parts: Option<BTreeMap<String, String>>,
    },
    /// Events that belong here were lost.
    EventsLost {
        /// How many.
        count: u64,
        /// Why, in words.
        why: String,
    },
    /// The guest ended on this side.
    Ended {
        /// Its own status; 1 if it died, 0 if it was stopped.
        status: u32,
    },
}

/// How far the copy of a machine that runs is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyProgress {
    /// Number of rounds that have begun.
    pub round: u32,
    /// Pages that this round sends.
    pub pages: u64,
    /// Pages sent in all.
    pub pages_sent: u64,
    /// Zero pages among them, of which only the number is sent.
    pub zero_pages: u64,
    /// Bytes sent in all.
    pub bytes_sent: u64,
    /// Memory copied per second in the round before, MiB.
    pub rate_mib_s: f64,
    /// Memory written per second during the round before, MiB.
    pub dirty_mib_s: f64,
    /// How long a stop now would take, milliseconds.
    pub estimated_pause_ms: f64,
}

/// How a TAP's interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// There, and up.
    Up,
    /// There, and down.
    Down,
    /// Not there, or not to be had.
    Gone,
}
