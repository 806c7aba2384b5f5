//! Arbiters: the shared storage that decides who may go on alone. What the records mean is
//! [`ft_protocol::arbiter`]'s; here they are read and written.

mod etcd;
mod file;

pub use etcd::EtcdArbiter;
pub use file::FileArbiter;

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
use thiserror::Error;

/// The storage cannot be asked now.
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

impl FromStr for ArbiterUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<ArbiterUrl, String> {
        match url.split_once(':') {
            Some(("file", dir)) if dir.starts_with('/') => Ok(ArbiterUrl::File(dir.into())),
            Some(("etcd", endpoints)) => Ok(ArbiterUrl::Etcd(etcd::parse_endpoints(endpoints)?)),
            _ => Err(format!(
                "`{url}` is no arbiter: give file:/DIR or etcd:http://HOST:PORT"
            )),
        }
    }
}

impl ArbiterUrl {
    /// The arbiter there.
    pub fn connect(&self) -> Arc<dyn Arbiter> {
        match self {
            ArbiterUrl::File(dir) => Arc::new(FileArbiter::new(dir)),
            ArbiterUrl::Etcd(endpoints) => Arc::new(EtcdArbiter::new(endpoints.clone())),
        }
    }
}

/// Storage that writes each record at most once.
pub trait Arbiter: Send + Sync {
    /// Writes the record durably unless it is there; returns what is there then.
    fn create(&self, vm: &str, name: RecordName, text: &str) -> Result<String, Unreachable>;

    /// Reads a record.
    fn read(&self, vm: &str, name: RecordName) -> Result<Option<String>, Unreachable>;

    /// The names of all records of a VM.
    fn list(&self, vm: &str) -> Result<Vec<RecordName>, Unreachable>;

    /// The error of a record that is not as it was written.
    fn damaged(&self, why: &dyn std::fmt::Display) -> Unreachable;
}

fn name(generation: u64, kind: RecordKind) -> RecordName {
    RecordName { generation, kind }
}

/// The error of this record, by its name in the arbiter.
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

/// Opens a generation.
pub fn open(arbiter: &dyn Arbiter, record: &OpenRecord) -> OpenAnswer {
    let attempt = || {
        let name = name(record.generation, RecordKind::Open);
        let found = arbiter.create(&record.vm, name, &record.encode())?;
        let found = OpenRecord::decode(&found, &record.vm, record.generation)
            .map_err(|e| damaged(arbiter, &record.vm, name, &e))?;
        Ok(judge_open(record, found))
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
        if let Err(refused) = may_claim(read_open(arbiter, vm, generation)?.as_ref(), member) {
            return Ok(refused);
        }
        let ours = Claim {
            claimant: member,
            at: unix_ns(),
        };
        let name = name(generation, RecordKind::Claim);
        let found = arbiter.create(vm, name, &ours.encode(vm, generation))?;
        let found =
            Claim::decode(&found, vm, generation).map_err(|e| damaged(arbiter, vm, name, &e))?;
        Ok(judge_claim(member, &found))
    };
    attempt().unwrap_or_else(|e: Unreachable| ClaimAnswer::Unreachable(e.to_string()))
}

/// Notes that a generation ended cleanly.
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
    // Who founds a VM has not opened a generation yet.
    let generations = names.iter().filter(|n| n.kind != RecordKind::Start);
    let Some(generation) = generations.map(|n| n.generation).max() else {
        return Ok(None);
    };
    let Some(record) = read_open(arbiter, vm, generation)? else {
        return Err(arbiter.damaged(&format!("generation {generation} has no open record")));
    };
    let has = |kind| names.contains(&name(generation, kind));
    Ok(Some(Latest {
        record,
        claimed: has(RecordKind::Claim),
        closed: has(RecordKind::Close),
    }))
}

/// Founds a VM from where the asking member listens, unless somebody has; who did is in the answer.
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
