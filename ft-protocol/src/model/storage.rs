//! The arbiter as a model. The functions that judge its answers are those of the real arbiters. It may
//! lose its records, but the model remembers what they were, to check the invariants.

use crate::arbiter::*;
use crate::transfer::Right;
use std::collections::BTreeMap;

/// The records of one generation, those that are there and those that once were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub members: Members,
    nonce: Nonce,
    /// Is the open record there?
    open: bool,
    claimant: Option<MemberId>,
    closed: bool,
    /// The member that won the generation, also if its claim has vanished.
    pub winner: Option<MemberId>,
    /// The generation was closed, also if the close record has vanished.
    ended: bool,
}

impl Record {
    /// Is none of its records there any more?
    fn is_gone(&self) -> bool {
        !self.open && self.claimant.is_none() && !self.closed
    }
}

/// Which records vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vanishes {
    /// All records.
    All,
    /// The open records, which are the oldest.
    Opens,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Storage {
    generations: BTreeMap<u64, Record>,
}

/// A question to the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    Open(u64, Members, Nonce),
    ReadBack(u64),
    Claim(u64),
    Close(u64),
}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Won,
    Lost(MemberId),
    Refused,
    Missing,
}

impl Verdict {
    pub fn answer(self) -> ClaimAnswer {
        match self {
            Verdict::Won => ClaimAnswer::Won,
            Verdict::Lost(by) => ClaimAnswer::Lost { by },
            Verdict::Refused => ClaimAnswer::Refused(String::new()),
            Verdict::Missing => ClaimAnswer::Missing(String::new()),
        }
    }
}

impl Storage {
    /// The last generation that ever existed, with its records.
    pub fn latest(&self) -> Option<(u64, &Record)> {
        self.generations.iter().next_back().map(|(&g, r)| (g, r))
    }

    /// Are there records that can vanish?
    pub fn can_vanish(&self, what: Vanishes) -> bool {
        let mut records = self.generations.values();
        records.any(|record| match what {
            Vanishes::All => !record.is_gone(),
            Vanishes::Opens => record.open,
        })
    }

    pub fn vanish(&mut self, what: Vanishes) {
        for record in self.generations.values_mut() {
            record.open = false;
            if what == Vanishes::All {
                (record.claimant, record.closed) = (None, false);
            }
        }
    }

    /// Writes the records that vanished again, as a member remembers them.
    pub fn put_back(&mut self, who: MemberId, standing: Standing) {
        let Right {
            generation,
            members,
            nonce,
        } = standing.right;
        let record = self.generations.get_mut(&generation);
        let record = record.expect("what was never there cannot vanish");
        if standing.won {
            record.claimant.get_or_insert(who);
        }
        if !record.open && (!standing.won || record.claimant == Some(who)) {
            (record.open, record.members, record.nonce) = (true, members, nonce);
        }
    }

    /// May an operator put the last generation's record back? It must have vanished, and unless he is
    /// `careless` no member may ever have won the generation.
    pub fn is_restorable(&self, careless: bool) -> bool {
        self.latest()
            .is_some_and(|(_, record)| !record.open && (record.winner.is_none() || careless))
    }

    pub fn restore(&mut self) {
        if let Some(mut last) = self.generations.last_entry() {
            last.get_mut().open = true;
        }
    }

    /// The result of a look of `who` at its records.
    pub fn look(&self, who: MemberId, standing: &Standing) -> Look {
        let generation = standing.right.generation;
        let (open, claim) = (self.read(generation), self.claim(generation));
        judge_look(super::VM, standing, who, open.as_ref(), claim.as_ref())
    }

    pub fn of(&self, generation: u64) -> Option<&Record> {
        self.generations.get(&generation)
    }

    /// Was the end of the guest recorded?
    pub fn is_closed(&self) -> bool {
        self.latest().is_some_and(|(_, record)| record.ended)
    }

    /// Writes what the question asks for, if there is something to write and `who` may write it.
    pub fn write(&mut self, who: MemberId, ask: Ask) {
        match ask {
            Ask::Open(generation, members, nonce) => {
                let record = self.generations.entry(generation).or_insert(Record {
                    members,
                    nonce,
                    open: true,
                    claimant: None,
                    closed: false,
                    winner: None,
                    ended: false,
                });
                if !record.open {
                    (record.open, record.members, record.nonce) = (true, members, nonce);
                }
            }
            Ask::Claim(generation) if self.may_claim(generation, who).is_ok() => {
                let record = self.generations.get_mut(&generation);
                let record = record.expect("who may claim is in its record");
                record.winner = Some(*record.claimant.get_or_insert(who));
            }
            Ask::Close(generation) => {
                let record = self.generations.get_mut(&generation);
                let record = record.expect("only what was open is closed");
                (record.closed, record.ended) = (true, true);
            }
            Ask::Claim(_) | Ask::ReadBack(_) => {}
        }
    }

    fn may_claim(&self, generation: u64, who: MemberId) -> Result<(), ClaimAnswer> {
        let (record, claim) = (self.read(generation), self.claim(generation));
        may_claim(super::VM, generation, record.as_ref(), claim.as_ref(), who)
    }

    pub fn opened(&self, generation: u64, members: Members, nonce: Nonce) -> OpenAnswer {
        let found = self.read(generation).expect("it was written");
        judge_open(&record(generation, members, nonce), found)
    }

    pub fn claimed(&self, generation: u64, who: MemberId) -> Verdict {
        let judged = match self.may_claim(generation, who) {
            Err(instead) => instead,
            Ok(()) => judge_claim(who, &self.claim(generation).expect("it was written")),
        };
        match judged {
            ClaimAnswer::Won => Verdict::Won,
            ClaimAnswer::Lost { by } => Verdict::Lost(by),
            ClaimAnswer::Refused(_) => Verdict::Refused,
            ClaimAnswer::Missing(_) => Verdict::Missing,
            ClaimAnswer::Unreachable(_) => unreachable!("it was reached"),
        }
    }

    /// Would a claim get another answer than that the record is missing?
    pub fn knows(&self, generation: u64, who: MemberId) -> bool {
        !matches!(
            self.may_claim(generation, who),
            Err(ClaimAnswer::Missing(_))
        )
    }

    fn claim(&self, generation: u64) -> Option<Claim> {
        let claimant = self.generations.get(&generation)?.claimant?;
        Some(Claim { claimant, at: 0 })
    }

    pub fn read_back(&self, generation: u64) -> ReadBackAnswer {
        match self.read(generation) {
            Some(record) => ReadBackAnswer::Found(record),
            None => ReadBackAnswer::Missing,
        }
    }

    /// The generation that a cold start would open.
    pub fn next_generation(&self) -> Result<u64, ArbiterError> {
        let mut there = self.generations.iter().rev();
        let latest = there.find(|(_, found)| !found.is_gone());
        let latest = latest.map(|(&generation, found)| Latest {
            generation,
            record: self.read(generation),
            claimed: found.claimant.is_some(),
            closed: found.closed,
        });
        next_generation(super::VM, latest.as_ref(), false)
    }

    fn read(&self, generation: u64) -> Option<OpenRecord> {
        let found = self.generations.get(&generation)?;
        found
            .open
            .then(|| record(generation, found.members, found.nonce))
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
