//! The simulation: all members that a VM ever has, in a model of everything around them, under random
//! schedules with faults.
//!
//! The invariants are checked at every step ([`referee::Referee`]). At the end it is checked that the
//! guest got to its end if it had to. `LOCKSTEP_SEED` repeats one schedule and goes on from there.

mod arbiter;
mod backup_side;
mod copying;
mod fault;
mod link;
mod machine;
mod member;
mod primary_side;
mod referee;
mod seat;
mod tests;

use crate::arbiter::MemberId;
use crate::mutant::Mutant;
use crate::testing::Rng;
use crate::{Loss, Time};
use arbiter::Arbiter;
use fault::{Fault, random_fault};
use link::Link;
use member::{Member, Part};
use referee::Referee;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// A schedule that has not ended by then never ends.
const LIMIT: Time = Time(60_000_000_000);
/// No more members than these are started: otherwise some fault loses them again and again.
const MEMBERS: usize = 30;

/// The note for this situation.
const END_IN_TRANSFER: &str = "the guest ends during a transfer";

/// The kinds of schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// One primary and one backup; a lost member is not replaced.
    Pair,
    /// As many members as necessary: a lost member is replaced after a while.
    Relay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Running,
    Finished,
    /// Handed over: the backup goes on.
    HandedOver,
    /// Halted, because the peer goes on.
    Lost,
    /// Killed, or halted because of a divergence.
    Crashed,
    /// Halted, because the source of its copy was lost.
    NotArmed,
    Refused,
    /// Left, as its operator wanted.
    Left,
}

/// Everything around the members.
struct World {
    now: Time,
    rng: Rng,
    setup: Setup,
    mutant: Option<Mutant>,
    arbiter: Arbiter,
    referee: Referee,
    links: Vec<Rc<RefCell<Link>>>,
    /// The faults that are still to come, the next one last; and how many more faults may come when a
    /// transfer reaches its next stage.
    faults: Vec<(Time, Fault)>,
    ambushes: u64,
    copy_damaged: bool,
    copy_fails: bool,
    boot_fails: bool,
    /// The guest ends after this many entries, if it may.
    len: u64,
    may_end: bool,
    /// How often each situation occurred.
    seen: BTreeMap<String, u64>,
    /// What happened, to explain why a schedule fails.
    story: Vec<String>,
}

/// A random moment within `ms` milliseconds from now.
fn soon(now: Time, rng: &mut Rng, ms: u64) -> Time {
    now.after(Duration::from_micros(10 + rng.below(ms * 1000)))
}

impl World {
    fn tell(&mut self, who: MemberId, what: &impl std::fmt::Debug) {
        let (us, MemberId(who)) = (self.now.0 / 1000, who);
        self.story
            .push(format!("{us:>9} us, member {who}: {what:?}"));
    }

    fn note(&mut self, what: &str) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    /// Does the guest end with this entry?
    fn ends_after(&self, seq: u64) -> bool {
        self.may_end && seq >= self.len
    }

    /// A transfer reaches a stage, which is a good moment for a fault.
    fn reaches(&mut self, stage: &str) {
        self.note(stage);
        if self.ambushes > 0 && self.rng.one_in(8) {
            self.ambushes -= 1;
            let fault = random_fault(self.setup, &mut self.rng);
            let at = soon(self.now, &mut self.rng, 4);
            self.faults.push((at, fault));
            self.faults.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        }
    }

    /// A joiner that was not armed yet is lost.
    fn lost_joiner(&mut self, stage: &str, loss: &Loss) {
        let what = match loss {
            Loss::Unfit(why) if why.contains("differs") => "a bad copy is refused".into(),
            Loss::Unfit(why) if why.contains("ended") => END_IN_TRANSFER.into(),
            _ => format!("joiner lost when {stage}"),
        };
        self.note(&what);
        if ["opening", "arming"].contains(&stage) {
            self.note("a generation's number is burnt");
        }
    }

    /// A joiner has lost its source.
    fn lost_source(&mut self, joiner: MemberId, stage: &str) {
        match self.referee.protector() == Some(joiner) {
            true => self.note("source lost with Armed under way"),
            false => self.note(&format!("source lost when {stage}")),
        }
    }
}

/// An id that no member has.
const NOBODY: MemberId = MemberId(0);

struct Simulation {
    world: World,
    members: Vec<Member>,
    /// The pairs of members that never reach each other again.
    partitions: Vec<[MemberId; 2]>,
    /// When the next member is started.
    next_start: Option<Time>,
    /// The guest goes on until all faults are over and a backup protects it again.
    patient: bool,
    /// More members have failed than can be survived: the guest need not get to its end.
    excused: bool,
    /// No fault has happened yet.
    peaceful: bool,
}

impl Simulation {
    fn new(seed: u64, setup: Setup, mutant: Option<Mutant>) -> Simulation {
        let mut rng = Rng::new(seed);
        let (faults, within) = match setup {
            Setup::Pair => (rng.below(4), if rng.one_in(3) { 60 } else { 400 }),
            Setup::Relay => (rng.below(8), if rng.one_in(3) { 200 } else { 1500 }),
        };
        let mut faults: Vec<_> = (0..faults)
            .map(|_| {
                let at = soon(Time(0), &mut rng, within);
                (at, random_fault(setup, &mut rng))
            })
            .collect();
        faults.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let relay = setup == Setup::Relay;
        let world = World {
            now: Time(0),
            setup,
            mutant,
            arbiter: Arbiter::default(),
            referee: Referee::default(),
            links: Vec::new(),
            faults,
            ambushes: if relay { rng.below(4) } else { 0 },
            copy_damaged: false,
            copy_fails: false,
            boot_fails: false,
            len: 1 + rng.below(if relay { 1500 } else { 800 }),
            may_end: true,
            seen: BTreeMap::new(),
            story: Vec::new(),
            rng,
        };
        let mut simulation = Simulation {
            world,
            members: Vec::new(),
            partitions: Vec::new(),
            next_start: None,
            patient: false,
            excused: false,
            peaceful: true,
        };
        let world = &mut simulation.world;
        simulation.patient = relay && world.rng.one_in(2);
        let solo = relay && world.rng.one_in(4);
        let primary = Member::primary(MemberId(1), solo, world);
        simulation.members.push(primary);
        simulation.start_backup();
        if relay && simulation.world.rng.one_in(4) {
            simulation.start_backup();
        }
        simulation
    }

    fn run(&mut self) {
        while self.world.now < LIMIT && !self.is_over() {
            self.world.now = soon(self.world.now, &mut self.world.rng, 2);
            let now = self.world.now;
            if let Some((_, fault)) = self.world.faults.pop_if(|(at, _)| *at <= now) {
                self.world.tell(NOBODY, &fault);
                self.peaceful = false;
                self.fail(fault);
            }
            self.connect();
            self.replace_the_lost();
            self.world.may_end = !self.patient || self.is_calm();
            let (count, first) = (self.members.len(), self.world.rng.next() as usize);
            for turn in 0..count {
                let member = &mut self.members[first.wrapping_add(turn) % count];
                member.step(&mut self.world);
            }
        }
        assert!(
            self.world.referee.finished || self.is_excused(),
            "the guest did not get to its end"
        );
        // A backup that joins when the guest ends may lose the message that says so with the
        // connection.
        let ended = self.world.seen.contains_key(END_IN_TRANSFER);
        let lost = |member: &Member| member.seat.fate == Fate::NotArmed;
        assert!(
            !self.peaceful || ended || !self.members.iter().any(lost),
            "somebody was lost although nothing failed"
        );
    }

    /// Are all faults over, and is the VM protected?
    fn is_calm(&self) -> bool {
        let protector = self.world.referee.protector();
        let protects = |member: &Member| Some(member.seat.me) == protector && member.is_armed();
        self.world.faults.is_empty() && self.members.iter().any(protects)
    }

    fn is_over(&self) -> bool {
        let active = |member: &Member| member.seat.is_running() && !member.is_waiting();
        !self.members.iter().any(active) || self.is_excused() && self.world.now > Time(LIMIT.0 / 10)
    }

    /// Need the guest not get to its end? Also true if it never started, and cannot any more.
    fn is_excused(&self) -> bool {
        let stuck = self.world.setup == Setup::Pair
            && !self.world.referee.is_started()
            && !self.members.iter().any(|member| self.is_of_use(member));
        self.excused || stuck
    }

    fn are_parted(&self, a: MemberId, b: MemberId) -> bool {
        self.partitions.contains(&[a, b]) || self.partitions.contains(&[b, a])
    }

    /// Is this a backup that the member which runs the VM can reach?
    fn is_of_use(&self, member: &Member) -> bool {
        let me = member.seat.me;
        let mut primaries = self.members.iter().filter(|m| m.as_primary().is_some());
        member.seat.is_running()
            && matches!(member.part, Part::Backup(_))
            && !primaries.any(|primary| self.are_parted(primary.seat.me, me))
    }

    fn start_backup(&mut self) {
        assert!(self.members.len() < MEMBERS, "members are lost for nothing");
        let id = MemberId(self.members.len() as u128 + 1);
        self.members.push(Member::backup(id, &mut self.world));
    }

    /// Starts a new backup a while after there is none of use.
    fn replace_the_lost(&mut self) {
        let wanted = self.world.setup == Setup::Relay
            && !self.world.referee.finished
            && !self.members.iter().any(|member| self.is_of_use(member));
        let World { now, rng, .. } = &mut self.world;
        if !wanted {
            self.next_start = None;
        } else if *self.next_start.get_or_insert_with(|| soon(*now, rng, 100)) <= *now {
            self.next_start = None;
            self.start_backup();
        }
    }

    /// Connects members that wait for the VM with a member that listens.
    fn connect(&mut self) {
        let World {
            now, rng, links, ..
        } = &mut self.world;
        links.retain(|link| Rc::strong_count(link) > 2);
        if !rng.one_in(4) {
            return;
        }
        let (now, first) = (*now, rng.next() as usize);
        let awake = |member: &&Member| member.seat.is_running() && member.seat.hung_until <= now;
        let listens = |member: &&Member| {
            let side = member.as_primary();
            side.is_some_and(|side| side.machine.accepts_connection())
        };
        let count = self.members.len();
        let order = (0..count).map(|turn| first.wrapping_add(turn) % count);
        let found = order.clone().find_map(|b| {
            let backup = Some(&self.members[b]).filter(|m| m.is_waiting() && awake(m))?;
            let mut primaries = order.clone().filter(|&p| {
                let primary = &self.members[p];
                let parted = self.are_parted(primary.seat.me, backup.seat.me);
                awake(&primary) && listens(&primary) && !parted
            });
            Some((primaries.next()?, b))
        });
        if let Some((primary, backup)) = found {
            self.join(primary, backup);
        }
    }

    fn join(&mut self, primary: usize, backup: usize) {
        let ids = [primary, backup].map(|index| self.members[index].seat.me);
        let wires = link::connect(ids[0], ids[1]);
        self.world.links.push(Rc::clone(&wires[0].link));
        for (index, wire) in [primary, backup].into_iter().zip(wires) {
            let member = &mut self.members[index];
            member.seat.wire = Some(wire);
            match &mut member.part {
                Part::Primary(side) => side.machine.handle_connected(self.world.now),
                Part::Backup(side) => side.machine.handle_connected(self.world.now),
            }
        }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        if std::thread::panicking() && self.world.mutant.is_none() {
            println!("{}", self.world.story.join("\n"));
        }
    }
}
