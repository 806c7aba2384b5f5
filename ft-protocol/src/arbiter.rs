//! Questions to the arbiter, and the meaning of its answers: the test-and-set on shared storage that
//! lets at most one member of a pair go on alone (paper, section 2.3; invariant I4).
//!
//! For each VM and generation an arbiter keeps three records, each written at most once: *open* (the
//! pair exists, with these members), *claim* (this member goes on alone) and *close* (the guest ended,
//! so no member may take over). The runtime reads and writes them, in a directory or in etcd. This
//! module decides what to write, and how to judge what was found.
//!
//! ```text
//! open(r)   create "open" unless it exists; read it back; judge_open
//! claim(m)  read "open" and "claim"; may_claim; create "claim" unless it exists, provided that "open"
//!           is still there; read it back; judge_claim
//! close(m)  create "close" unless it exists
//! ```
//!
//! If an answer was lost, the question is asked again: each of them gives the same answer twice.
//!
//! Storage may lose records: see [`Look`].

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

/// A process that may become a member of a pair: a random number, new with every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct MemberId(pub u128);

/// A random number, new with every generation: a member that reads it back uses the same storage.
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

/// The members of a generation. Only they may claim it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Members {
    /// The member that opened it.
    pub primary: MemberId,
    /// The member that joined; `None` if the primary runs alone from the start.
    pub backup: Option<MemberId>,
}

impl Members {
    /// Is `member` one of them?
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
    /// The members, which may claim it.
    pub members: Members,
    /// The nonce that the backup must read back.
    pub nonce: Nonce,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The record of a claim: its writer goes on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The member that claimed.
    pub claimant: MemberId,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The record of a clean end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The member that wrote it.
    pub member: MemberId,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The record of a VM's founding: the member that listens at its address is the primary of the first
/// generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartRecord {
    /// The founder's address. A member that is started again has a new id, but the same address.
    pub listen: SocketAddr,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// The generation that a VM's founder opens.
pub const FIRST_GENERATION: u64 = 1;
/// No VM gets beyond this generation: a record or a peer with a higher number is damaged or wrong.
/// Counting on from here does not overflow.
pub const MAX_GENERATION: u64 = u64::MAX / 2;

/// The role of a member that learns it from the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It founded the VM, which has never run: it is the primary of [`FIRST_GENERATION`].
    Founder,
    /// The other member founded the VM, or the VM may still run somewhere: it is the backup.
    Backup,
    /// It has nothing to do: the VM has ended.
    Ended {
        /// The VM's last generation.
        generation: u64,
    },
}

/// The answer to opening a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenAnswer {
    /// It is open, with this pair in it.
    Opened,
    /// It was opened before, for others.
    AlreadyOpen {
        /// The record that is there.
        record: OpenRecord,
    },
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// The answer to claiming a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The asker goes on alone.
    Won,
    /// Another member does.
    Lost {
        /// That member.
        by: MemberId,
    },
    /// The asker has no right to claim, and will never have it.
    Refused(String),
    /// The generation's record is gone, and with it perhaps the winner's claim: no member may go on.
    /// Ask again.
    Missing(String),
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// The answer to reading a generation's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadBackAnswer {
    /// The record.
    Found(OpenRecord),
    /// There is none.
    Missing,
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// The answer to closing a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseAnswer {
    /// It is closed.
    Closed,
    /// Nobody knows: ask again.
    Unreachable(String),
}

/// Why a name, a record or a generation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum ArbiterError {
    /// A name that a VM cannot have.
    #[error(
        "{0:?} is no name for a VM: use 1 to {MAX_VM_NAME} letters, digits, '-', '_' and '.', \
         beginning with a letter or digit"
    )]
    BadName(String),
    /// A record that does not have the form of one.
    #[error("line {line} of an arbiter's record is {found:?}, where {wanted} belongs")]
    BadRecord {
        /// The line, from 1.
        line: usize,
        /// What the line contains.
        found: String,
        /// What it should contain.
        wanted: String,
    },
    /// A record for another VM or generation than the one that was asked for.
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
    /// A generation that no VM can reach.
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
    /// A generation that was not closed.
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
        /// Its members.
        members: Members,
        /// Did one of them go on alone?
        claimed: bool,
    },
}

/// Can this be the name of a VM? It becomes a part of paths, keys and records.
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

/// The kind of a record.
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

/// A record's name below its VM's name: the name of a file, or the end of a key. It can be parsed back.
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
        // Each record has one name only, although "+1" and "01" would parse too.
        if parsed.to_string() == name {
            Ok(parsed)
        } else {
            Err(())
        }
    }
}

/// Judges the record that was found after the attempt to write `wanted`. The member's own record counts
/// as opened, as the answer to an earlier attempt may have been lost.
pub fn judge_open(wanted: &OpenRecord, found: OpenRecord) -> OpenAnswer {
    let key = |r: &OpenRecord| (r.generation, r.members, r.nonce);
    if found.vm == wanted.vm && key(&found) == key(wanted) {
        OpenAnswer::Opened
    } else {
        OpenAnswer::AlreadyOpen { record: found }
    }
}

/// May `member` claim the generation that has this open record and this claim? Must be asked before a
/// claim is written.
///
/// If the open record is gone, no member may claim the generation, even if its own claim is there: the
/// claim of the real winner may have been lost with the record.
///
/// # Errors
/// The answer to give in place of a claim.
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

/// Judges the claim that was found after the attempt to write one. The member's own claim is a win, as
/// the answer to an earlier attempt may have been lost.
pub fn judge_claim(member: MemberId, found: &Claim) -> ClaimAnswer {
    if found.claimant == member {
        ClaimAnswer::Won
    } else {
        ClaimAnswer::Lost { by: found.claimant }
    }
}

/// A VM's latest generation, as a starting member finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its number.
    pub generation: u64,
    /// Its open record, unless it has vanished.
    pub record: Option<OpenRecord>,
    /// Did a member claim it?
    pub claimed: bool,
    /// Did it end cleanly?
    pub closed: bool,
}

/// The role that a VM's latest generation leaves to a member. Once there was a generation, a member has
/// no choice: an open one, claimed or not, may still run somewhere.
pub fn judge_latest(latest: &Latest) -> Role {
    let generation = latest.generation;
    match latest.closed {
        true => Role::Ended { generation },
        false => Role::Backup,
    }
}

/// Judges the start record that was found after the attempt to write one. The member listens on
/// `listen`, the other member on `other`. A record with the member's own address gives it the right to
/// found the VM, whichever process wrote it.
///
/// # Errors
/// If the founder's address is neither of the two.
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
/// If the latest one is still open and `force` does not say that its members are dead, or if no VM can
/// reach the next.
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
