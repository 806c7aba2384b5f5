//! What the arbiter is asked, and what its answers mean: the test-and-set on shared storage that
//! lets at most one member of a pair go on alone (paper, section 2.3; invariant I4).
//!
//! An arbiter keeps, for each VM and generation, three records that are written at most once:
//! *open* (the pair exists, these are its members), *claim* (this member goes on alone) and *close*
//! (the guest ended, nobody is to take over). The runtime reads and writes them, in a directory or
//! in etcd; what to write and how to judge what it finds is decided here.
//!
//! ```text
//! open(r)   create "open" unless it exists; read it back; judge_open
//! claim(m)  read "open" and "claim"; may_claim; create "claim" unless it exists, provided that "open"
//!           is still there; read it back; judge_claim
//! close(m)  create "close" unless it exists
//! ```
//!
//! An answer that was lost is asked for again: each of them gives the same answer twice.
//!
//! Storage may lose what it was given: see [`Look`].

mod text;
mod watch;

pub use watch::{Look, Standing, judge_look};

use bincode::{Decode, Encode};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use thiserror::Error;

/// Longest name of a VM, bytes.
pub const MAX_VM_NAME: usize = 64;

/// One process that may become half of a pair: random, new with every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct MemberId(pub u128);

/// Random, new with every generation: whoever reads it back reads the same storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Nonce(pub u128);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The members of a generation; only they may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Members {
    /// Who opened it.
    pub primary: MemberId,
    /// Who joined. None if the primary was told to run alone.
    pub backup: Option<MemberId>,
}

impl Members {
    /// Whether this is one of them.
    pub fn contains(&self, member: MemberId) -> bool {
        self.primary == member || self.backup == Some(member)
    }
}

/// The record of an opened generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRecord {
    /// The VM; see [`check_vm_name`].
    pub vm: String,
    /// Its generation, from 1.
    pub generation: u64,
    /// Who may ask.
    pub members: Members,
    /// What the backup has to read back.
    pub nonce: Nonce,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The record of a claim: its writer goes on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub claimant: MemberId,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The record of a clean end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Who wrote it.
    pub member: MemberId,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The record of a VM's founding: whoever listens there is the primary of its first generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartRecord {
    /// Where the founder listens. A member that is started again has a new id and the same address.
    pub listen: SocketAddr,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The generation that a VM's founder opens.
pub const FIRST_GENERATION: u64 = 1;
/// No VM gets beyond this: a record or a peer that says so is damaged, or lies. Beyond it there is room
/// to count on.
pub const MAX_GENERATION: u64 = u64::MAX / 2;

/// What a member is to be that takes its role from the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It founded the VM, which never ran: the primary of [`FIRST_GENERATION`].
    Founder,
    /// The other member founded the VM, or the VM may still run somewhere: the backup.
    Backup,
    /// Nothing: the VM has ended.
    Ended {
        /// In this generation.
        generation: u64,
    },
}

/// The answer to open a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenAnswer {
    /// It is open, with this pair in it.
    Opened,
    /// It was opened before, for others.
    AlreadyOpen {
        /// What they wrote.
        record: OpenRecord,
    },
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The asker goes on alone.
    Won,
    /// Another does.
    Lost {
        /// Who.
        by: MemberId,
    },
    /// The asker has no right to ask, and will never have one.
    Refused(String),
    /// The generation's record is gone, and who won with it: nobody may assume anything. Ask again.
    Missing(String),
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// The answer to read a generation's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadBackAnswer {
    /// There it is.
    Found(OpenRecord),
    /// There is none.
    Missing,
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// The answer to close a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseAnswer {
    /// It is closed.
    Closed,
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// What an arbiter must not be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum ArbiterError {
    /// A name that is no name.
    #[error(
        "{0:?} is no name for a VM: use 1 to {MAX_VM_NAME} letters, digits, '-', '_' and '.', \
         beginning with a letter or digit"
    )]
    BadName(String),
    /// A record that is not as it was written.
    #[error("line {line} of an arbiter's record is {found:?}, where {wanted} belongs")]
    BadRecord {
        /// From 1.
        line: usize,
        /// What is there.
        found: String,
        /// What should be.
        wanted: String,
    },
    /// A record for something else than it was asked for.
    #[error("an arbiter's record for {wanted} is for {found}")]
    WrongRecord {
        /// VM and generation that were asked for.
        wanted: String,
        /// VM and generation in the record.
        found: String,
    },
    /// A VM that neither member of a pair founded.
    #[error(
        "VM {vm} was founded by a member that listens on {founder}, which is neither this one's --listen \
         nor its --channel: give both members the addresses that they had, or remove the record \
         {FIRST_GENERATION}.start if the VM never ran"
    )]
    FoundedElsewhere {
        /// The VM.
        vm: String,
        /// Where the founder listens.
        founder: SocketAddr,
    },
    /// A generation that no VM reaches.
    #[error(
        "VM {vm} has a record of generation {generation}, which no VM reaches: it is damaged, or somebody \
         else's; move {generation}.open and what belongs to it out of the arbiter"
    )]
    ImpossibleGeneration {
        /// The VM.
        vm: String,
        /// The generation.
        generation: u64,
    },
    /// A generation whose open record vanished.
    #[error(
        "the record {generation}.open of VM {vm} is gone from the arbiter, and a member may still run it: \
         look with `lockstep arbiter show`; stop its members, or say --force if they are surely dead"
    )]
    Vanished {
        /// The VM.
        vm: String,
        /// The generation.
        generation: u64,
    },
    /// A generation that nobody closed.
    #[error(
        "VM {vm} is open in generation {generation} (primary {}, {}): a member may still run it; stop \
         it, or say --force if it is surely dead", .members.primary,
        if *.claimed { "a survivor runs alone" } else { "nobody claimed it" }
    )]
    StillOpen {
        /// The VM.
        vm: String,
        /// The generation.
        generation: u64,
        /// Who opened it.
        members: Members,
        /// Whether one of them went on alone.
        claimed: bool,
    },
}

/// Whether this can name a VM: it becomes a part of paths, keys and records.
///
/// # Errors
/// If it is empty, too long, or has other characters than letters, digits, `-`, `_` and `.`.
pub fn check_vm_name(name: &str) -> Result<(), ArbiterError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.len() <= MAX_VM_NAME && name.chars().all(plain) {
        return Ok(());
    }
    Err(ArbiterError::BadName(
        name.chars().take(2 * MAX_VM_NAME).collect(),
    ))
}

/// Which of a generation's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// [`OpenRecord`].
    Open,
    /// [`Claim`].
    Claim,
    /// [`Close`].
    Close,
    /// [`StartRecord`].
    Start,
}

/// A record's name under its VM's: a file's name, or the end of a key. It can be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordName {
    /// The generation.
    pub generation: u64,
    /// Which record.
    pub kind: RecordKind,
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RecordKind::Open => "open",
            RecordKind::Claim => "claim",
            RecordKind::Close => "close",
            RecordKind::Start => "start",
        };
        write!(f, "{}.{kind}", self.generation)
    }
}

impl FromStr for RecordName {
    type Err = ();

    fn from_str(name: &str) -> Result<RecordName, ()> {
        let (generation, kind) = name.split_once('.').ok_or(())?;
        let kind = match kind {
            "open" => RecordKind::Open,
            "claim" => RecordKind::Claim,
            "close" => RecordKind::Close,
            "start" => RecordKind::Start,
            _ => return Err(()),
        };
        let parsed = RecordName {
            generation: generation.parse().map_err(|_| ())?,
            kind,
        };
        // One name per record: "+1" and "01" are numbers too.
        if parsed.to_string() == name {
            Ok(parsed)
        } else {
            Err(())
        }
    }
}

/// Judges what was found where `wanted` was to be written, after the attempt to write it. Its own
/// record counts as opened: the answer to an earlier attempt may have been lost.
pub fn judge_open(wanted: &OpenRecord, found: OpenRecord) -> OpenAnswer {
    let key = |r: &OpenRecord| (r.generation, r.members, r.nonce);
    if found.vm == wanted.vm && key(&found) == key(wanted) {
        OpenAnswer::Opened
    } else {
        OpenAnswer::AlreadyOpen { record: found }
    }
}

/// Whether `member` may claim the generation with this record, of which this claim is there. To be
/// asked before a claim is written.
///
/// A generation whose record is gone is nobody's, also if there is a claim of one's own: who won it
/// may have been lost with it.
///
/// # Errors
/// The answer to give instead.
pub fn may_claim(
    vm: &str,
    generation: u64,
    record: Option<&OpenRecord>,
    claim: Option<&Claim>,
    member: MemberId,
) -> Result<(), ClaimAnswer> {
    match (record, claim) {
        (Some(record), _) if record.members.contains(member) => Ok(()),
        (Some(record), _) => Err(ClaimAnswer::Refused(format!(
            "generation {} of VM {} belongs to others: {member} is not a member",
            record.generation, record.vm
        ))),
        (None, Some(claim)) if claim.claimant != member => {
            Err(ClaimAnswer::Lost { by: claim.claimant })
        }
        (None, _) => Err(ClaimAnswer::Missing(format!(
            "the record {generation}.open of VM {vm} is gone from the arbiter: nobody goes on before it \
             is there again; see `lockstep arbiter restore`"
        ))),
    }
}

/// Judges the claim that was found after the attempt to write one. One's own is a win: the answer
/// to an earlier attempt may have been lost.
pub fn judge_claim(member: MemberId, found: &Claim) -> ClaimAnswer {
    if found.claimant == member {
        ClaimAnswer::Won
    } else {
        ClaimAnswer::Lost { by: found.claimant }
    }
}

/// A VM's latest generation, as a cold start finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its number.
    pub generation: u64,
    /// Its open record, unless that has vanished.
    pub record: Option<OpenRecord>,
    /// Whether a member claimed it.
    pub claimed: bool,
    /// Whether it ended cleanly.
    pub closed: bool,
}

/// The role that a VM's latest generation leaves to a member: none of its own choice once there was
/// one. An open generation, claimed or not, may still run somewhere.
pub fn judge_latest(latest: &Latest) -> Role {
    let generation = latest.generation;
    match latest.closed {
        true => Role::Ended { generation },
        false => Role::Backup,
    }
}

/// Judges the start record that was found after the attempt to write one, for a member that listens on
/// `listen` and whose other side listens on `other`. One's own address is the right to found the VM,
/// whichever process wrote it.
///
/// # Errors
/// If the founder is neither.
pub fn judge_start(
    vm: &str,
    listen: SocketAddr,
    other: SocketAddr,
    found: &StartRecord,
) -> Result<Role, ArbiterError> {
    if found.listen == listen {
        Ok(Role::Founder)
    } else if found.listen == other {
        Ok(Role::Backup)
    } else {
        Err(ArbiterError::FoundedElsewhere {
            vm: vm.into(),
            founder: found.listen,
        })
    }
}

/// The generation that a cold start opens.
///
/// # Errors
/// If the latest one is still open and `force` does not say that its members are dead, or if no VM
/// reaches it.
pub fn next_generation(
    vm: &str,
    latest: Option<&Latest>,
    force: bool,
) -> Result<u64, ArbiterError> {
    match latest {
        None => Ok(FIRST_GENERATION),
        Some(latest) if latest.generation > MAX_GENERATION => {
            Err(ArbiterError::ImpossibleGeneration {
                vm: vm.into(),
                generation: latest.generation,
            })
        }
        Some(latest) if latest.closed || force => Ok(latest.generation + 1),
        Some(Latest {
            generation,
            record: Some(record),
            claimed,
            ..
        }) => Err(ArbiterError::StillOpen {
            vm: vm.into(),
            generation: *generation,
            members: record.members,
            claimed: *claimed,
        }),
        Some(latest) => Err(ArbiterError::Vanished {
            vm: vm.into(),
            generation: latest.generation,
        }),
    }
}

#[cfg(test)]
mod tests;
