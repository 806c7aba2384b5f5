//! How a member stands, as it answers `status` at its control socket: one JSON object on a line.

use crate::{CopyProgress, LinkState};
use ft_protocol::arbiter::{MemberId, Members, Nonce, Standing};
use ft_protocol::transfer::Right;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// How a member stands. A later version may tell more, which is left out here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its VM.
    pub vm: String,
    /// Its id.
    #[serde(with = "crate::hex")]
    pub member: MemberId,
    /// What it is doing, in words.
    pub state: String,
    /// The generation that it has a part in; 0 if it has none.
    pub generation: u64,
    /// The longest silence of the other side so far, ms.
    pub longest_silence_ms: f64,
    /// Its TAP; none without a network.
    pub network: Option<NetworkStatus>,
    /// What is wrong with its records in the arbiter, if anything.
    pub records: Option<String>,
    /// The record of its generation, as it knows it.
    pub record: Option<RecordStatus>,
    /// What only a member of its role tells.
    #[serde(flatten)]
    pub role: RoleStatus,
}

/// What depends on a member's role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RoleStatus {
    /// A primary, or a survivor.
    Primary(PrimaryStatus),
    /// A backup.
    Backup(BackupStatus),
}

/// What a primary or a survivor tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrimaryStatus {
    /// How far the backup's execution is behind, ms.
    pub lag_ms: f64,
    /// How much of its time the vCPU rests for that, percent.
    pub throttle_percent: u32,
    /// Outputs that wait in the gate.
    pub held_outputs: u64,
    /// How often the vCPU waited as the backup was a window behind.
    pub window_stalls: u64,
    /// How often it waited as the gate was full.
    pub gate_stalls: u64,
    /// How far the copy is, while a backup joins.
    pub copy: Option<CopyProgress>,
}

/// What a backup tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// The last entry of the log that it has.
    pub received: u64,
    /// Bytes of a copy that are in memory.
    pub copied_bytes: u64,
}

/// How a member's TAP stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its name.
    pub tap: String,
    /// How its interface is.
    pub link: LinkState,
    /// Frames that it did not take, or that were cut.
    pub dropped: u64,
    /// Frames that came and were for others.
    pub foreign: u64,
    /// Broadcasts and multicasts over the limit.
    pub over_rate: u64,
}

/// The record of a generation, as a member knows it: what an operator needs to put it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordStatus {
    /// The generation.
    pub generation: u64,
    /// Who opened it.
    #[serde(with = "crate::hex")]
    pub primary: MemberId,
    /// Who joined; none if the primary was told to run alone.
    #[serde(with = "crate::hex::option")]
    pub backup: Option<MemberId>,
    /// Its nonce.
    #[serde(with = "crate::hex")]
    pub nonce: Nonce,
    /// Whether the member won it.
    pub won: bool,
    /// Whether the member's claim waits for the record.
    pub holds: bool,
}

impl RecordStatus {
    /// The record of this generation, which the member has won or not, and waits for or not.
    pub fn new(standing: &Standing, holds: bool) -> RecordStatus {
        let Right {
            generation,
            members: Members { primary, backup },
            nonce,
        } = standing.right;
        RecordStatus {
            generation,
            primary,
            backup,
            nonce,
            won: standing.won,
            holds,
        }
    }

    /// What the arbiter had of the member.
    pub fn standing(&self) -> Standing {
        Standing {
            right: Right {
                generation: self.generation,
                members: Members {
                    primary: self.primary,
                    backup: self.backup,
                },
                nonce: self.nonce,
            },
            won: self.won,
        }
    }
}

/// A member's answer is not a status that this version can read.
#[derive(Debug, Error)]
#[error("a member's status cannot be read: {0}")]
pub struct StatusError(#[from] serde_json::Error);

impl MemberStatus {
    /// Reads a member's answer.
    ///
    /// # Errors
    /// If it is something else, or something is missing.
    pub fn read(line: &[u8]) -> Result<MemberStatus, StatusError> {
        Ok(serde_json::from_slice(line)?)
    }
}

/// One JSON object, its keys in alphabetical order.
impl fmt::Display for MemberStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        write!(f, "{object}")
    }
}
