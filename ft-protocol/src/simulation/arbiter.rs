//! The arbiter, as a model. If an answer is lost, the question may have been acted on or not.

use crate::Time;
use crate::arbiter::*;
use crate::testing::Rng;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Arbiter {
    open: BTreeMap<u64, OpenRecord>,
    claims: BTreeMap<u64, Claim>,
    closed: BTreeSet<u64>,
    /// Until then it does not answer, but may act on questions.
    pub down_until: Time,
}

impl Arbiter {
    /// Does it answer? And does it act on the question?
    fn answers(&self, now: Time, rng: &mut Rng) -> (bool, bool) {
        let answers = now >= self.down_until && !rng.one_in(20);
        (answers, answers || rng.one_in(2))
    }

    pub fn open(&mut self, record: OpenRecord, now: Time, rng: &mut Rng) -> OpenAnswer {
        let (answers, acts) = self.answers(now, rng);
        if acts {
            self.open
                .entry(record.generation)
                .or_insert_with(|| record.clone());
        }
        match answers {
            true => judge_open(&record, self.open[&record.generation].clone()),
            false => OpenAnswer::Unreachable("down".into()),
        }
    }

    pub fn claim(
        &mut self,
        generation: u64,
        claimant: MemberId,
        now: Time,
        rng: &mut Rng,
    ) -> ClaimAnswer {
        let (answers, acts) = self.answers(now, rng);
        if acts {
            let (open, claim) = (self.open.get(&generation), self.claims.get(&generation));
            if let Err(answer) = may_claim("demo", generation, open, claim, claimant) {
                return answer;
            }
            self.claims.entry(generation).or_insert(Claim {
                claimant,
                at: now.0,
            });
        }
        match answers {
            true => judge_claim(claimant, &self.claims[&generation]),
            false => ClaimAnswer::Unreachable("down".into()),
        }
    }

    pub fn read(&self, generation: u64, now: Time, rng: &mut Rng) -> ReadBackAnswer {
        match self.open.get(&generation) {
            _ if !self.answers(now, rng).0 => ReadBackAnswer::Unreachable("down".into()),
            Some(record) => ReadBackAnswer::Found(record.clone()),
            None => ReadBackAnswer::Missing,
        }
    }

    pub fn close(&mut self, generation: u64, now: Time, rng: &mut Rng) -> CloseAnswer {
        let (answers, acts) = self.answers(now, rng);
        if acts {
            self.closed.insert(generation);
        }
        match answers {
            true => CloseAnswer::Closed,
            false => CloseAnswer::Unreachable("down".into()),
        }
    }

    /// The open record of a generation.
    pub fn record(&self, generation: u64) -> Option<&OpenRecord> {
        self.open.get(&generation)
    }

    /// Does a cold start find the records of a clean end?
    pub fn is_clean(&self) -> bool {
        let last = self.open.keys().max().max(self.closed.iter().max());
        last.is_some_and(|last| {
            let latest = self.open.get(last).map(|record| Latest {
                generation: *last,
                record: Some(record.clone()),
                claimed: self.claims.contains_key(last),
                closed: self.closed.contains(last),
            });
            latest.is_some() && next_generation("demo", latest.as_ref(), false).is_ok()
        })
    }
}
