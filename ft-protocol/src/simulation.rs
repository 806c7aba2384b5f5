//! Both halves, against a model of everything around them, under random schedules with faults.
//!
//! The invariants of the design are checked at every step ([`referee::Referee`]), and at the end,
//! that the guest got to its end wherever that was owed. `LOCKSTEP_SEED` repeats one schedule and
//! goes on from there.

mod backup_side;
mod link;
mod primary_side;
mod referee;

use crate::Time;
use crate::arbiter::{MemberId, Nonce};
use crate::backup::{Backup, BackupConfig, Expectations};
use crate::detector::Timing;
use crate::mutant::Mutant;
use crate::primary::{Primary, PrimaryConfig};
use crate::testing::{Rng, host};
use backup_side::BackupSide;
use link::{Arbiter, Link, Side};
use primary_side::PrimarySide;
use referee::{Guest, Referee};
use std::time::Duration;

const PRIMARY: MemberId = MemberId(1);
const BACKUP: MemberId = MemberId(2);

/// Schedules per test.
const RUNS: u64 = 2000;
/// A schedule that has not come to its end after so long never will.
const LIMIT: Time = Time(60_000_000_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Running,
    Finished,
    /// Handed over: the backup goes on.
    HandedOver,
    /// Halted, because the other side goes on.
    Lost,
    /// Killed, or halted for a divergence.
    Crashed,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Crash(Side),
    Hang(Side, Duration),
    Cut,
    Stall(Duration),
    /// A stall that never ends: the network is gone.
    Partition,
    ArbiterDown(Duration),
    Corrupt,
    Diverge,
    /// No fault: the operator wants the backup to take over.
    Switchover,
    /// The vCPU's thread of a side hangs for a while.
    Mute(Side, Duration),
}

/// Everything around the two sides.
struct World {
    now: Time,
    rng: Rng,
    link: Link,
    partitioned: bool,
    arbiter: Arbiter,
    referee: Referee,
}

/// A moment up to so many milliseconds from now.
fn soon(now: Time, rng: &mut Rng, ms: u64) -> Time {
    now.after(Duration::from_micros(10 + rng.below(ms * 1000)))
}

/// A fence that fails now and then.
fn random_fence(rng: &mut Rng) -> Result<(), String> {
    match rng.one_in(4) {
        true => Err("no power switch".into()),
        false => Ok(()),
    }
}

fn random_fault(rng: &mut Rng) -> Fault {
    let side = if rng.one_in(2) {
        Side::Primary
    } else {
        Side::Backup
    };
    let span = |rng: &mut Rng| Duration::from_millis(1 + rng.below(500));
    match rng.below(12) {
        0 | 1 => Fault::Crash(side),
        2 => Fault::Hang(side, span(rng)),
        3 => Fault::Cut,
        4 | 9 => Fault::Stall(Duration::from_millis(200 + rng.below(300))),
        5 => Fault::Partition,
        6 => Fault::ArbiterDown(span(rng) * 5),
        7 => Fault::Corrupt,
        10 => Fault::Switchover,
        11 => Fault::Mute(side, span(rng) * 2),
        _ => Fault::Diverge,
    }
}

struct Simulation {
    world: World,
    primary: PrimarySide,
    backup: BackupSide,
    faults: Vec<(Time, Fault)>,
    /// More has failed than a pair is built to survive: nobody owes the guest its end.
    excused: bool,
}

impl Simulation {
    fn new(seed: u64, mutant: Option<Mutant>) -> Simulation {
        let mut rng = Rng::new(seed);
        let timing = Timing::default();
        let vm = String::from("demo");
        let primary = PrimaryConfig {
            vm: vm.clone(),
            me: PRIMARY,
            host: host(),
            generation: 1,
            nonce: Nonce(u128::MAX),
            solo: false,
            timing,
            mutant,
        };
        let expect = Expectations::default();
        let backup = BackupConfig {
            vm,
            me: BACKUP,
            host: host(),
            expect,
            timing,
            mutant,
        };
        let when = if rng.one_in(3) { 60 } else { 400 };
        let mut faults: Vec<_> = (0..rng.below(4))
            .map(|_| (soon(Time(0), &mut rng, when), random_fault(&mut rng)))
            .collect();
        faults.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut link = Link::new();
        link.vanish(Side::Primary);
        link.vanish(Side::Backup);
        let len = 1 + rng.below(800);
        let lazy = [1, 1, 4, 16][rng.below(4) as usize];
        let referee = Referee::new(Guest::new(len, &mut rng));
        Simulation {
            primary: PrimarySide::new(Primary::new(primary, Time(0))),
            backup: BackupSide::new(Backup::new(backup, Time(0)), lazy),
            world: World {
                now: Time(0),
                rng,
                link,
                partitioned: false,
                arbiter: Arbiter::default(),
                referee,
            },
            faults,
            excused: false,
        }
    }

    fn run(&mut self) {
        while self.world.now < LIMIT && !self.is_over() {
            self.world.now = soon(self.world.now, &mut self.world.rng, 2);
            if let Some((_, fault)) = self.faults.pop_if(|(at, _)| *at <= self.world.now) {
                self.fail(fault);
            }
            self.connect();
            if self.world.rng.one_in(2) {
                self.primary.step(&mut self.world);
                self.backup.step(&mut self.world);
            } else {
                self.backup.step(&mut self.world);
                self.primary.step(&mut self.world);
            }
        }
        let finished = [self.primary.fate, self.backup.fate].contains(&Fate::Finished);
        assert!(
            finished || self.is_excused(),
            "the guest did not get to its end"
        );
    }

    fn is_over(&self) -> bool {
        let over = self.primary.fate != Fate::Running && self.backup.fate != Fate::Running;
        over || self.excused && self.world.now > Time(LIMIT.0 / 10)
    }

    /// Whether nobody owes the guest its end; also where it never started, and cannot any more.
    fn is_excused(&self) -> bool {
        let no_backup = self.backup.fate != Fate::Running || self.world.partitioned;
        self.excused || !self.primary.started && no_backup
    }

    fn connect(&mut self) {
        let World {
            now,
            rng,
            link,
            partitioned,
            ..
        } = &mut self.world;
        let (primary, backup) = (&mut self.primary, &mut self.backup);
        let running = primary.fate == Fate::Running && backup.fate == Fate::Running;
        let hung = *now < primary.hung_until || *now < backup.hung_until;
        let wanted = primary.machine.accepts_connection() && backup.machine.wants_connection();
        if running && !hung && wanted && !*partitioned && rng.one_in(4) {
            *link = Link::new();
            primary.machine.handle_connected(*now);
            backup.machine.handle_connected(*now);
        }
    }

    fn fail(&mut self, fault: Fault) {
        let World {
            now,
            rng,
            link,
            arbiter,
            referee,
            partitioned,
        } = &mut self.world;
        let now = *now;
        let (primary, backup) = (&mut self.primary, &mut self.backup);
        match fault {
            Fault::Crash(side) => {
                match rng.one_in(3) {
                    true => link.vanish(side),
                    false => link.close(side, now, rng),
                }
                self.owe_after(side);
                let World { rng, arbiter, .. } = &mut self.world;
                match side {
                    Side::Primary if self.primary.fate == Fate::Running => {
                        self.primary.crash(now, rng, arbiter);
                    }
                    Side::Backup if self.backup.fate == Fate::Running => {
                        self.backup.crash(now, rng, arbiter);
                    }
                    _ => {}
                }
            }
            Fault::Hang(Side::Primary, time) => primary.hung_until = now.after(time),
            Fault::Hang(Side::Backup, time) => backup.hung_until = now.after(time),
            Fault::Cut => link.cut(now, rng),
            Fault::Stall(time) => {
                link.stalled_until = link.stalled_until.max(now.after(time));
                link.beats_pass = rng.one_in(2);
            }
            Fault::Switchover => {
                if primary.fate == Fate::Running && primary.hung_until <= now {
                    primary.machine.handle_switchover(now);
                }
            }
            Fault::Mute(Side::Primary, time) => primary.mute_until = now.after(time),
            Fault::Mute(Side::Backup, time) => backup.mute_until = now.after(time),
            Fault::Partition => {
                (*partitioned, link.stalled_until) = (true, Time(u64::MAX));
                link.beats_pass = false;
            }
            Fault::ArbiterDown(time) => arbiter.down_until = now.after(time),
            Fault::Corrupt => link.corrupt(rng),
            Fault::Diverge
                if backup.armed
                    && !referee.is_alone(Side::Backup)
                    // Who hangs executes nothing.
                    && backup.hung_until <= now =>
            {
                self.owe_after(Side::Backup);
                self.backup.diverge(now);
            }
            Fault::Diverge => {}
        }
    }

    /// Whether the guest's end is still owed once this side is gone, which is now still there.
    fn owe_after(&mut self, side: Side) {
        let (primary, backup) = (&self.primary, &self.backup);
        let running = |fate| fate == Fate::Running;
        let owed = match side {
            Side::Primary if !running(primary.fate) => true,
            // Nobody else can win, and the backup is one.
            Side::Primary => {
                let unclaimed = primary.started && !primary.claimed;
                running(backup.fate) && backup.armed && unclaimed
                    || backup.machine.is_live()
                    || backup.fate == Fate::Finished
            }
            Side::Backup if !running(backup.fate) => true,
            Side::Backup => {
                running(primary.fate) && primary.started && !backup.claimed
                    || primary.fate == Fate::Finished
            }
        };
        self.excused |= !owed;
    }
}

/// How often what was exercised; a schedule that exercises nothing proves nothing.
#[derive(Debug, Default)]
struct Tally {
    both_finished: u64,
    primary_alone: u64,
    backup_alone: u64,
    primary_lost: u64,
    backup_lost: u64,
    withdrawn: u64,
    later_generation: u64,
    handed_over: u64,
    taken_back: u64,
    excused: u64,
}

#[test]
fn whatever_fails_the_invariants_hold_and_the_guest_gets_to_its_end() {
    let first = Rng::seed(1_000_000);
    let mut tally = Tally::default();
    for seed in first..first + RUNS {
        // The last one that is printed is the one that failed.
        println!("LOCKSTEP_SEED={seed}");
        let mut simulation = Simulation::new(seed, None);
        simulation.run();
        let Simulation {
            world,
            primary,
            backup,
            ..
        } = &simulation;
        let fates = (primary.fate, backup.fate);
        tally.both_finished += u64::from(fates == (Fate::Finished, Fate::Finished));
        tally.primary_alone += u64::from(world.referee.is_alone(Side::Primary));
        tally.backup_alone += u64::from(world.referee.is_alone(Side::Backup));
        tally.primary_lost += u64::from(primary.fate == Fate::Lost);
        tally.backup_lost += u64::from(backup.fate == Fate::Lost);
        tally.withdrawn += backup.withdrawn;
        tally.later_generation += u64::from(primary.machine.generation() > 1 && primary.started);
        tally.handed_over += u64::from(primary.fate == Fate::HandedOver);
        tally.taken_back += u64::from(primary.taken_back);
        tally.excused += u64::from(simulation.is_excused());
    }
    println!("{tally:?}");
    let Tally {
        both_finished,
        primary_alone,
        backup_alone,
        primary_lost,
        ..
    } = tally;
    let Tally {
        backup_lost,
        withdrawn,
        later_generation,
        handed_over,
        taken_back,
        excused,
        ..
    } = tally;
    let exercised = [both_finished, primary_alone, backup_alone, primary_lost];
    let rare = [
        backup_lost,
        withdrawn,
        later_generation,
        handed_over,
        taken_back,
    ];
    assert!(exercised.iter().all(|&n| n >= RUNS / 100), "{tally:?}");
    assert!(
        rare.iter().all(|&n| n > 0) && excused < RUNS / 2,
        "{tally:?}"
    );
}

/// What objects to a planted fault.
fn caught(mutant: Mutant) -> Option<String> {
    (0..RUNS).find_map(|seed| {
        let played = std::panic::catch_unwind(|| Simulation::new(seed, Some(mutant)).run());
        let panic = played.err()?;
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
    })
}

#[test]
fn every_planted_fault_is_caught_by_the_invariant_that_it_breaks() {
    let planted = [
        (Mutant::AckBeforeReceipt, "I2"),
        (Mutant::ReleaseBeforeAck, "I2"),
        (Mutant::SoloWithoutClaim, "I4"),
        (Mutant::IgnoresLostClaim, "I4"),
        (Mutant::GenerationNotRaised, "I4"),
        (Mutant::AsksBeforeCaughtUp, "I3"),
        (Mutant::NotEmittedAgain, "I5"),
        (Mutant::ForgetsTooMuch, "I5"),
        (Mutant::LiveBeforeFence, "before the fence"),
        (Mutant::ResumesWithoutRight, "without the right"),
        (Mutant::GoesOnDiverged, "I6"),
        (Mutant::AsksOnlyOnce, "did not get to its end"),
    ];
    for (mutant, invariant) in planted {
        let caught = caught(mutant).unwrap_or_else(|| panic!("{mutant:?} survives"));
        assert!(caught.contains(invariant), "{mutant:?}: {caught}");
    }
}
