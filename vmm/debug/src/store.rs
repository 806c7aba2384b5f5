//! Checkpoints: machines that were on the way, to go back to. They are a bounded number of bytes.

use crate::edge::EdgeState;
use crate::pages::{Image, Meter};
use lockstep_machine::MachineState;
use lockstep_vcpu::debug::When;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;

/// Bytes of memory that checkpoints hold, at most, unless the user says otherwise.
pub const MOST_BYTES: usize = 1 << 30;
/// Steps from one checkpoint to the next, at first: a fraction of a tenth of a second.
const FIRST_INTERVAL: u64 = 1 << 22;
/// Steps before a moment that was gone to, at which checkpoints are made too: whoever goes there is likely to
/// step back from it.
const NEAR: [u64; 2] = [1 << 16, 1 << 10];
/// Time that is looked through backwards gets so many in an interval: whoever looks there is likely to go on.
const LOOKED_THROUGH: u64 = 16;
/// So many of those are kept, the latest made.
const MOST_NEAR: usize = 64;

/// A machine at a moment.
#[derive(Debug)]
pub struct Checkpoint {
    /// The moment.
    pub when: When,
    /// All but its memory.
    pub state: MachineState,
    /// Its memory.
    pub memory: Image,
    /// How far the log was followed.
    pub edge: EdgeState,
}

impl Checkpoint {
    /// The exit behind which it is.
    pub fn exit(&self) -> u64 {
        self.state.position().exit
    }
}

/// The checkpoints.
#[derive(Debug)]
pub struct Store {
    all: BTreeMap<When, Rc<Checkpoint>>,
    near: VecDeque<Rc<Checkpoint>>,
    interval: u64,
    meter: Meter,
    most_bytes: usize,
}

impl Store {
    /// None yet. They hold `most_bytes` bytes of memory at most, besides the first one.
    pub fn new(most_bytes: usize) -> Store {
        Store {
            all: BTreeMap::new(),
            near: VecDeque::new(),
            interval: FIRST_INTERVAL,
            meter: Meter::default(),
            most_bytes,
        }
    }

    /// What their memories are counted by.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The first moment.
    pub fn first(&self) -> Option<Rc<Checkpoint>> {
        self.all.values().next().cloned()
    }

    /// The last moment that has one.
    pub fn last(&self) -> Option<Rc<Checkpoint>> {
        self.all.values().next_back().cloned()
    }

    /// The last checkpoint that is not after `when`.
    pub fn at_or_before(&self, when: When) -> Option<Rc<Checkpoint>> {
        let regular = self.all.range(..=when).next_back().map(|(_, it)| it);
        let near = self.near.iter().filter(|it| it.when <= when);
        regular
            .into_iter()
            .chain(near)
            .max_by_key(|it| it.when)
            .cloned()
    }

    /// The last checkpoint before `when`.
    pub fn before(&self, when: When) -> Option<Rc<Checkpoint>> {
        let regular = self.all.range(..when).next_back().map(|(_, it)| it);
        let near = self.near.iter().filter(|it| it.when < when);
        regular
            .into_iter()
            .chain(near)
            .max_by_key(|it| it.when)
            .cloned()
    }

    /// The first regular checkpoint after `when`.
    pub fn after(&self, when: When) -> Option<Rc<Checkpoint>> {
        let mut later = self.all.range((Excluded(when), Unbounded));
        later.next().map(|(_, it)| it.clone())
    }

    /// The step at which the next regular checkpoint is due, for a machine at `now`.
    pub fn due_at(&self, now: When) -> u64 {
        let last = self.all.range(..=now).next_back();
        last.map_or(0, |(when, _)| when.steps)
            .saturating_add(self.interval)
    }

    /// Where checkpoints near `to` are still to be made, for a machine that goes there from `now`: the steps,
    /// in ascending order.
    pub fn near_points(&self, now: When, to: When) -> impl Iterator<Item = u64> {
        NEAR.into_iter()
            .filter_map(move |back| to.steps.checked_sub(back))
            .filter(move |steps| *steps > now.steps)
    }

    /// The same for time from `now` to `until` that is looked through.
    pub fn points_between(&self, now: When, until: When) -> impl Iterator<Item = u64> {
        let part = (self.interval / LOOKED_THROUGH) as usize;
        (now.steps..until.steps).step_by(part).skip(1)
    }

    /// Adds one.
    pub fn add(&mut self, checkpoint: Checkpoint) {
        self.all.insert(checkpoint.when, Rc::new(checkpoint));
        while self.meter.bytes() > self.most_bytes && self.all.len() > 2 {
            self.thin();
        }
    }

    /// Adds one for a while.
    pub fn add_near(&mut self, checkpoint: Checkpoint) {
        if self.near.len() == MOST_NEAR {
            self.near.pop_front();
        }
        self.near.push_back(Rc::new(checkpoint));
    }

    /// Drops every second one, and those for a while. The first one stays.
    fn thin(&mut self) {
        self.near.clear();
        let mut count = 0;
        self.all.retain(|_, _| {
            count += 1;
            count % 2 == 1
        });
        self.interval = self.interval.saturating_mul(2);
    }

    /// A line about them.
    pub fn describe(&self) -> String {
        let steps = |it: Option<&When>| it.map_or(0, |when| when.steps);
        format!(
            "{} checkpoints from step {} to step {}, one each {} steps or more; {} of them near the last places; \
             {} KiB of memory, {} MiB at most",
            self.all.len() + self.near.len(),
            steps(self.all.keys().next()),
            steps(self.all.keys().next_back()),
            self.interval,
            self.near.len(),
            self.meter.bytes() >> 10,
            self.most_bytes >> 20,
        )
    }
}
