//! The arbiter, judged by the same functions as the real ones.

use crate::arbiter::*;
use std::collections::BTreeMap;

/// What it knows of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub members: Members,
    nonce: Nonce,
    pub claimant: Option<MemberId>,
    pub closed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Storage {
    generations: BTreeMap<u64, Record>,
}

/// A question to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    Open(u64, Members, Nonce),
    ReadBack(u64),
    Claim(u64),
    Close(u64),
}

impl Storage {
    /// The last generation, and what is known of it.
    pub fn latest(&self) -> Option<(u64, &Record)> {
        self.generations.iter().next_back().map(|(&g, r)| (g, r))
    }

    pub fn of(&self, generation: u64) -> Option<&Record> {
        self.generations.get(&generation)
    }

    /// Whether the guest's end is on record.
    pub fn is_closed(&self) -> bool {
        self.latest().is_some_and(|(_, record)| record.closed)
    }

    /// Does what it is asked, as far as there is something to write and `who` may.
    pub fn write(&mut self, who: MemberId, ask: Ask) {
        match ask {
            Ask::Open(generation, members, nonce) => {
                self.generations.entry(generation).or_insert(Record {
                    members,
                    nonce,
                    claimant: None,
                    closed: false,
                });
            }
            Ask::Claim(generation) if self.may_claim(generation, who).is_ok() => {
                let record = self.generations.get_mut(&generation);
                let record = record.expect("who may claim is in its record");
                record.claimant.get_or_insert(who);
            }
            Ask::Close(generation) => {
                let record = self.generations.get_mut(&generation);
                record.expect("only what is open is closed").closed = true;
            }
            Ask::Claim(_) | Ask::ReadBack(_) => {}
        }
    }

    fn may_claim(&self, generation: u64, who: MemberId) -> Result<(), ClaimAnswer> {
        may_claim(self.read(generation).as_ref(), who)
    }

    pub fn opened(&self, generation: u64, members: Members, nonce: Nonce) -> OpenAnswer {
        let found = self.read(generation).expect("it was written");
        judge_open(&record(generation, members, nonce), found)
    }

    pub fn claimed(&self, generation: u64, who: MemberId) -> ClaimAnswer {
        if let Err(refusal) = self.may_claim(generation, who) {
            return refusal;
        }
        let claimant = self.generations[&generation].claimant;
        let claimant = claimant.expect("it was written");
        judge_claim(who, &Claim { claimant, at: 0 })
    }

    pub fn read_back(&self, generation: u64) -> ReadBackAnswer {
        match self.read(generation) {
            Some(record) => ReadBackAnswer::Found(record),
            None => ReadBackAnswer::Missing,
        }
    }

    /// The generation that a cold start would open.
    pub fn next_generation(&self) -> Result<u64, ArbiterError> {
        let latest = self.latest().map(|(generation, found)| Latest {
            record: record(generation, found.members, found.nonce),
            claimed: found.claimant.is_some(),
            closed: found.closed,
        });
        next_generation(latest.as_ref(), false)
    }

    fn read(&self, generation: u64) -> Option<OpenRecord> {
        let found = self.generations.get(&generation)?;
        Some(record(generation, found.members, found.nonce))
    }
}

fn record(generation: u64, members: Members, nonce: Nonce) -> OpenRecord {
    OpenRecord {
        vm: super::VM.into(),
        generation,
        members,
        nonce,
        at: 0,
    }
}
