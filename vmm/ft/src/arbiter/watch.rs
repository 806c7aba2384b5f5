//! Looking at the records of one's own generation while nothing depends on them yet.

use super::{Arbiter, Unreachable, damaged, name, read_claim, read_open};
use crate::{EventLog, now, unix_ns};
use ft_protocol::Time;
use ft_protocol::arbiter::{Claim, Look, MemberId, RecordKind, Standing, judge_look};
use lockstep_events::Event;
use std::time::Duration;

/// A member looks at its records this often.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// What is as bad as it was is told again after this.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// When a member looks, and what it has told of what it found.
#[derive(Debug, Default)]
pub struct Watch {
    last: Time,
    /// A look, or something that is put back, is on its way.
    busy: bool,
    /// What is wrong, and when that was told.
    wrong: Option<(Told, Time)>,
}

/// What is told of a member's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// They are gone, and a claim waits for them.
    Held(String),
    /// They are gone, or others'.
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
    /// When to look next; not while it is busy.
    pub fn due(&self) -> Option<Time> {
        (!self.busy).then(|| self.last.after(LOOK_INTERVAL))
    }

    /// Looks, or puts something back.
    pub fn begin(&mut self) {
        self.busy = true;
    }

    /// That is done.
    pub fn end(&mut self) {
        (self.busy, self.last) = (false, now());
    }

    /// Tells what a look found.
    pub fn found(&mut self, events: &mut EventLog, look: &Look) {
        match look {
            Look::Missing(why) => self.tell(events, Told::Wrong(why.clone())),
            Look::Others(why) => self.tell(events, Told::Wrong(why.clone())),
            Look::Sound => self.mend(events),
            // It is not needed now, and is looked at again.
            Look::Unreachable(why) => tracing::debug!("{why}"),
        }
    }

    /// Tells of records that are gone, at once and now and then.
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

    /// All is well again.
    pub fn mend(&mut self, events: &mut EventLog) {
        if self.wrong.take().is_some() {
            events.emit(Event::RecordBack {});
        }
    }

    /// What is wrong, for `lockstep status`.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_ref().map(|(told, _)| told.why())
    }

    /// Whether a claim waits for a record that is gone.
    pub fn holds(&self) -> bool {
        matches!(self.wrong, Some((Told::Held(_), _)))
    }
}

/// Looks at the records of who stands like this, and keeps them from cleaners; only that, if they are none.
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

/// Writes again what vanished. The claim goes first: the open record is never there without it.
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
