//! Looks at the records of the member's own generation while nothing depends on them yet.

use super::{Arbiter, Unreachable, damaged, name, read_claim, read_open};
use crate::{EventLog, now, unix_ns};
use ft_protocol::Time;
use ft_protocol::arbiter::{Claim, Look, MemberId, RecordKind, Standing, judge_look};
use lockstep_events::Event;
use std::time::Duration;

/// How often a member looks at its records.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A problem that has not changed is reported again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// When a member looks at its records, and what it has reported about them.
#[derive(Debug, Default)]
pub struct Watch {
    last: Time,
    /// A look is under way, or records are being put back.
    busy: bool,
    /// The problem, and when it was reported.
    wrong: Option<(Told, Time)>,
}

/// A problem with a member's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// They are gone, and a claim waits for them.
    Held(String),
    /// They are gone, or records of other members are in their place.
    Wrong(String),
}

impl Told {
    fn why(&self) -> &str {
        match self {
            Told::Held(why) | Told::Wrong(why) => why,
        }
    }
}

impl Watch {
    /// When to look next; `None` while a look is under way.
    pub fn due(&self) -> Option<Time> {
        (!self.busy).then(|| self.last.after(LOOK_INTERVAL))
    }

    /// Notes that a look begins, or that records are being put back.
    pub fn begin(&mut self) {
        self.busy = true;
    }

    /// Notes that this has ended.
    pub fn end(&mut self) {
        (self.busy, self.last) = (false, now());
    }

    /// Reports the result of a look.
    pub fn found(&mut self, events: &mut EventLog, look: &Look) {
        match look {
            Look::Missing(why) => self.tell(events, Told::Wrong(why.clone())),
            Look::Others(why) => self.tell(events, Told::Wrong(why.clone())),
            Look::Sound => self.mend(events),
            // It is not needed now, and is looked at again later.
            Look::Unreachable(why) => tracing::debug!("{why}"),
        }
    }

    /// Reports that records are gone, at once and then from time to time.
    pub fn tell(&mut self, events: &mut EventLog, told: Told) {
        let (now, again) = (now(), TELL_AGAIN);
        let same = |(before, at): &(Told, Time)| *before == told && now.since(*at) < again;
        if self.wrong.as_ref().is_some_and(same) {
            return;
        }
        let why = told.why();
        match &told {
            Told::Held(_) => tracing::warn!("outputs are held: {why}"),
            Told::Wrong(_) => tracing::warn!("{why}"),
        }
        events.emit(Event::RecordMissing { why: why.into() });
        self.wrong = Some((told, now));
    }

    /// Reports that the records are as they should be again.
    pub fn mend(&mut self, events: &mut EventLog) {
        if self.wrong.take().is_some() {
            events.emit(Event::RecordBack {});
        }
    }

    /// The problem, for `lockstep status`.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_ref().map(|(told, _)| told.why())
    }

    /// Does a claim wait for a record that is gone?
    pub fn holds(&self) -> bool {
        matches!(self.wrong, Some((Told::Held(_), _)))
    }
}

/// Looks at the records that a member with this standing should have, and protects them from cleaners.
/// Without a standing it only does the latter.
pub fn look(
    arbiter: &dyn Arbiter,
    vm: &str,
    member: MemberId,
    standing: Option<&Standing>,
) -> Look {
    let Some(standing) = standing else {
        arbiter.keep(vm, &[]);
        return Look::Sound;
    };
    let generation = standing.right.generation;
    let attempt = || {
        let open = read_open(arbiter, vm, generation)?;
        let claim = read_claim(arbiter, vm, generation)?;
        Ok(judge_look(
            vm,
            standing,
            member,
            open.as_ref(),
            claim.as_ref(),
        ))
    };
    let found = attempt().unwrap_or_else(|e: Unreachable| Look::Unreachable(e.to_string()));
    let kinds: &[RecordKind] = match (&found, standing.won) {
        (Look::Sound, true) => &[RecordKind::Open, RecordKind::Claim],
        (Look::Sound, false) => &[RecordKind::Open],
        (Look::Missing(_) | Look::Others(_) | Look::Unreachable(_), _) => &[],
    };
    let names: Vec<_> = kinds.iter().map(|&kind| name(generation, kind)).collect();
    arbiter.keep(vm, &names);
    found
}

/// Writes vanished records again. The claim is first, so that the open record is never there without
/// it.
pub fn put_back(
    arbiter: &dyn Arbiter,
    vm: &str,
    member: MemberId,
    standing: &Standing,
) -> Result<(), Unreachable> {
    let generation = standing.right.generation;
    if standing.won {
        let ours = Claim {
            claimant: member,
            at: unix_ns(),
        };
        let claim = name(generation, RecordKind::Claim);
        let found = arbiter.create(vm, claim, &ours.encode(vm, generation))?;
        let found =
            Claim::decode(&found, vm, generation).map_err(|e| damaged(arbiter, vm, claim, &e))?;
        if found.claimant != member {
            let other = found.claimant;
            return Err(arbiter.damaged(&format!("member {other} claimed generation {generation}")));
        }
    }
    let text = standing.record(vm, unix_ns()).encode();
    arbiter.create(vm, name(generation, RecordKind::Open), &text)?;
    Ok(())
}
