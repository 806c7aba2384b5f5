//! Arbiters: the shared storage that decides which side may go on alone. [`ft_protocol::arbiter`]
//! defines what the records mean; this module reads and writes them.

mod ask;
mod etcd;
mod file;
mod survey;
mod watch;

pub use ask::{ANSWER_LIMIT, Asker, Question};
pub use etcd::{AccessError, EtcdAccess, EtcdArbiter};
pub use file::FileArbiter;
pub use survey::{Generation, NotRestored, Survey, forget, restore, survey};
pub use watch::{LOOK_INTERVAL, Told, Watch, look, put_back};

use super::unix_ns;
use ft_protocol::arbiter::{
    ArbiterError, Claim, ClaimAnswer, Close, CloseAnswer, FIRST_GENERATION, Latest, MemberId,
    OpenAnswer, OpenRecord, ReadBackAnswer, RecordKind, RecordName, StartRecord, judge_claim,
    judge_open, may_claim,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// The storage gives no answer now.
#[derive(Debug, Error)]
#[error("the arbiter {arbiter} cannot be reached ({why}); check the storage")]
pub struct Unreachable {
    /// Its URL.
    pub arbiter: String,
    /// The error.
    pub why: String,
}

/// `--arbiter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArbiterUrl {
    /// `file:DIR`: a directory on storage that both hosts share.
    File(PathBuf),
    /// `etcd:http://…`: endpoints of an etcd cluster.
    Etcd(Vec<String>),
}

/// Why a text is not an arbiter's URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// It is something else.
    #[error("`{0}` is no arbiter: give file:/DIR or etcd:http://HOST:PORT")]
    NotAnArbiter(String),
    /// This is not one of etcd's endpoints.
    #[error(
        "`{0}` is no endpoint of etcd: give etcd:http://HOST:PORT or etcd:https://HOST:PORT, more of them \
         after commas"
    )]
    NotAnEndpoint(String),
}

impl FromStr for ArbiterUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<ArbiterUrl, UrlError> {
        match url.split_once(':') {
            Some(("file", dir)) if dir.starts_with('/') => Ok(ArbiterUrl::File(dir.into())),
            Some(("etcd", endpoints)) => Ok(ArbiterUrl::Etcd(etcd::parse_endpoints(endpoints)?)),
            _ => Err(UrlError::NotAnArbiter(url.into())),
        }
    }
}

impl ArbiterUrl {
    /// Connects to the arbiter.
    ///
    /// # Errors
    /// If the access is not one to this arbiter.
    pub fn connect(&self, access: EtcdAccess) -> Result<Arc<dyn Arbiter>, AccessError> {
        Ok(match self {
            ArbiterUrl::File(_) if !access.is_empty() => return Err(AccessError::Directory),
            ArbiterUrl::File(dir) => Arc::new(FileArbiter::new(dir)),
            ArbiterUrl::Etcd(endpoints) => Arc::new(EtcdArbiter::new(endpoints.clone(), access)?),
        })
    }
}

/// Storage that writes each record at most once.
pub trait Arbiter: Send + Sync {
    /// Checks that this member can write, link and remove in the directory of a VM's records.
    fn prove(&self, vm: &str) -> Result<(), Unreachable>;

    /// Protects these records from cleaners of old files, as far as possible.
    fn keep(&self, vm: &str, names: &[RecordName]);

    /// A question without an answer after this time counts as unanswered.
    fn answer_limit(&self) -> Duration;

    /// Writes the record durably unless it exists, provided that another record, `guard`, exists before
    /// and afterwards. Returns the record that exists then, or `None` if the guard does not.
    fn create_under(
        &self,
        vm: &str,
        guard: RecordName,
        name: RecordName,
        text: &str,
    ) -> Result<Option<String>, Unreachable>;

    /// Removes a record. It may be missing already.
    fn remove(&self, vm: &str, name: RecordName) -> Result<(), Unreachable>;

    /// Writes the record durably unless it exists. Returns the record that exists then.
    fn create(&self, vm: &str, name: RecordName, text: &str) -> Result<String, Unreachable>;

    /// Reads a record.
    fn read(&self, vm: &str, name: RecordName) -> Result<Option<String>, Unreachable>;

    /// The names of all records of a VM.
    fn list(&self, vm: &str) -> Result<Vec<RecordName>, Unreachable>;

    /// The error for a record that is damaged.
    fn damaged(&self, why: &dyn std::fmt::Display) -> Unreachable;
}

fn name(generation: u64, kind: RecordKind) -> RecordName {
    RecordName { generation, kind }
}

/// The error for this record, with its name in the arbiter.
fn damaged(arbiter: &dyn Arbiter, vm: &str, name: RecordName, why: &ArbiterError) -> Unreachable {
    arbiter.damaged(&format!("{vm}/{name}: {why}"))
}

fn read_open(
    arbiter: &dyn Arbiter,
    vm: &str,
    generation: u64,
) -> Result<Option<OpenRecord>, Unreachable> {
    let name = name(generation, RecordKind::Open);
    let decode = |text: String| OpenRecord::decode(&text, vm, generation);
    let record = arbiter.read(vm, name)?.map(decode).transpose();
    record.map_err(|e| damaged(arbiter, vm, name, &e))
}

fn read_claim(
    arbiter: &dyn Arbiter,
    vm: &str,
    generation: u64,
) -> Result<Option<Claim>, Unreachable> {
    let name = name(generation, RecordKind::Claim);
    let decode = |text: String| Claim::decode(&text, vm, generation);
    let claim = arbiter.read(vm, name)?.map(decode).transpose();
    claim.map_err(|e| damaged(arbiter, vm, name, &e))
}

/// Opens a generation.
pub fn open(arbiter: &dyn Arbiter, record: &OpenRecord) -> OpenAnswer {
    let attempt = || {
        let name = name(record.generation, RecordKind::Open);
        let found = arbiter.create(&record.vm, name, &record.encode())?;
        let found = OpenRecord::decode(&found, &record.vm, record.generation)
            .map_err(|e| damaged(arbiter, &record.vm, name, &e))?;
        let answer = judge_open(record, found);
        // A generation before the VM's last one must not be opened. That could be tried when a VM is
        // started for the first time again, after its early records have vanished.
        let later = latest(arbiter, &record.vm)?
            .filter(|latest| answer == OpenAnswer::Opened && latest.generation > record.generation);
        match later {
            None => Ok(answer),
            Some(Latest {
                record: Some(last), ..
            }) => Ok(OpenAnswer::AlreadyOpen { record: last }),
            Some(Latest { generation, .. }) => Err(arbiter.damaged(&format!(
                "{}/{generation}.open is gone, though the VM reached that generation; look with \
                 `lockstep arbiter show`",
                record.vm
            ))),
        }
    };
    attempt().unwrap_or_else(|e: Unreachable| OpenAnswer::Unreachable(e.to_string()))
}

/// Reads a generation's record.
pub fn read_back(arbiter: &dyn Arbiter, vm: &str, generation: u64) -> ReadBackAnswer {
    match read_open(arbiter, vm, generation) {
        Ok(Some(record)) => ReadBackAnswer::Found(record),
        Ok(None) => ReadBackAnswer::Missing,
        Err(e) => ReadBackAnswer::Unreachable(e.to_string()),
    }
}

/// The test-and-set: claims a generation for `member`.
pub fn claim(arbiter: &dyn Arbiter, vm: &str, generation: u64, member: MemberId) -> ClaimAnswer {
    let attempt = || {
        let gone = || {
            let claim = read_claim(arbiter, vm, generation)?;
            let judged = may_claim(vm, generation, None, claim.as_ref(), member);
            Ok(judged.expect_err("nobody may claim what is gone"))
        };
        let Some(record) = read_open(arbiter, vm, generation)? else {
            return gone();
        };
        if let Err(refused) = may_claim(vm, generation, Some(&record), None, member) {
            return Ok(refused);
        }
        let ours = Claim {
            claimant: member,
            at: unix_ns(),
        };
        let [open, claim] =
            [RecordKind::Open, RecordKind::Claim].map(|kind| name(generation, kind));
        let text = ours.encode(vm, generation);
        // A claim does not win if the generation's open record vanished just before.
        let Some(found) = arbiter.create_under(vm, open, claim, &text)? else {
            return gone();
        };
        let found =
            Claim::decode(&found, vm, generation).map_err(|e| damaged(arbiter, vm, claim, &e))?;
        Ok(judge_claim(member, &found))
    };
    attempt().unwrap_or_else(|e: Unreachable| ClaimAnswer::Unreachable(e.to_string()))
}

/// Records that a generation ended cleanly.
pub fn close(arbiter: &dyn Arbiter, vm: &str, generation: u64, member: MemberId) -> CloseAnswer {
    let record = Close {
        member,
        at: unix_ns(),
    };
    let text = record.encode(vm, generation);
    match arbiter.create(vm, name(generation, RecordKind::Close), &text) {
        Ok(_) => CloseAnswer::Closed,
        Err(e) => CloseAnswer::Unreachable(e.to_string()),
    }
}

/// The latest generation of a VM.
pub fn latest(arbiter: &dyn Arbiter, vm: &str) -> Result<Option<Latest>, Unreachable> {
    let names = arbiter.list(vm)?;
    // A VM that was only founded has no generation yet.
    let generations = names.iter().filter(|n| n.kind != RecordKind::Start);
    let Some(generation) = generations.map(|n| n.generation).max() else {
        return Ok(None);
    };
    let record = read_open(arbiter, vm, generation)?;
    let has = |kind| names.contains(&name(generation, kind));
    Ok(Some(Latest {
        generation,
        record,
        claimed: has(RecordKind::Claim),
        closed: has(RecordKind::Close),
    }))
}

/// Founds a VM with the address on which the asking member listens, unless it was founded before. The
/// answer says by which address.
pub fn found(
    arbiter: &dyn Arbiter,
    vm: &str,
    listen: SocketAddr,
) -> Result<StartRecord, Unreachable> {
    let ours = StartRecord {
        listen,
        at: unix_ns(),
    };
    let name = name(FIRST_GENERATION, RecordKind::Start);
    let found = arbiter.create(vm, name, &ours.encode(vm))?;
    StartRecord::decode(&found, vm).map_err(|e| damaged(arbiter, vm, name, &e))
}

/// A record for [`open`], made now.
pub fn open_record(
    vm: &str,
    generation: u64,
    members: ft_protocol::arbiter::Members,
    nonce: ft_protocol::arbiter::Nonce,
) -> OpenRecord {
    OpenRecord {
        vm: vm.into(),
        generation,
        members,
        nonce,
        at: unix_ns(),
    }
}

#[cfg(test)]
mod tests;
