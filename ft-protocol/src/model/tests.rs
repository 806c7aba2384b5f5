//! What is explored, how many states that is, and a proof that planted faults are found.
//!
//! The numbers of states are exact. A change of the protocol or of the model changes them: find out
//! why, and then enter the new ones.

use super::guest::Does::{End, Nothing, Output};
use super::properties::*;
use super::*;
use stateright::{Checker, HasDiscoveries, Path};

/// These faults, and no others.
macro_rules! faults {
    ($($kind:ident: $times:expr),*) => {
        Faults { $($kind: $times,)* ..Faults::NONE }
    };
}

mod vanishing;
mod waiting;

/// Two pieces that can be under way at the same time.
const GUEST: Guest = Guest {
    pieces: &[&[Nothing, Output], &[Output], &[End]],
};
/// For a machine that is joined at any position.
const COPIED: Guest = Guest {
    pieces: &[&[Output], &[Output], &[End]],
};
/// For events that take many steps by themselves.
const SMALL: Guest = Guest {
    pieces: &[&[Output], &[End]],
};

impl Setting {
    /// A pair with these faults.
    fn pair(guest: Guest, faults: Faults) -> Setting {
        Setting {
            guest,
            begins: Begins::Pair,
            faults,
            beats: false,
            pieces: 0,
            reaches: Vec::new(),
            mutant: None,
        }
    }

    /// Two processes that must become a pair, with these faults.
    fn strangers(guest: Guest, faults: Faults) -> Setting {
        Setting {
            begins: Begins::Strangers,
            ..Setting::pair(guest, faults)
        }
    }

    /// A primary that was started to run alone, and a backup that joins, with these faults.
    fn solo(guest: Guest, faults: Faults) -> Setting {
        Setting {
            begins: Begins::Solo,
            ..Setting::pair(guest, faults)
        }
    }

    /// A survivor and a backup that joins, with these faults.
    fn survivor(guest: Guest, faults: Faults) -> Setting {
        Setting {
            begins: Begins::Survivor,
            ..Setting::pair(guest, faults)
        }
    }

    fn with_beats(self) -> Setting {
        Setting {
            beats: true,
            ..self
        }
    }

    fn reaching(self, reaches: &[Named]) -> Setting {
        Setting {
            reaches: reaches.to_vec(),
            ..self
        }
    }

    /// Visits every state, and checks their number.
    fn explore(self, states: usize) {
        let visited = self.visit(1);
        assert_eq!(visited, states, "states of {:?}", self.faults);
    }

    /// Visits every state. Returns their number.
    fn visit(&self, threads: usize) -> usize {
        let checker = self.clone().checker().threads(threads).spawn_bfs().join();
        let states = checker.unique_state_count();
        println!(
            "{states} states, {} steps deep: {:?}",
            checker.max_depth(),
            self.faults
        );
        let mut names = ALWAYS.iter().map(|&(name, _)| name);
        let violated = names.find(|name| self.violates(name, &checker));
        assert!(violated.is_none(), "violated: {violated:?}");
        let reached = |name| checker.discovery(name).is_some();
        let missed = self.reaches.iter().find(|(name, _)| !reached(name));
        assert!(
            missed.is_none(),
            "never: {:?}",
            missed.map(|(name, _)| name)
        );
        states
    }

    /// Was this property violated? Then prints a counterexample.
    fn violates(&self, name: &'static str, checker: &impl Checker<Setting>) -> bool {
        let Some(path) = checker.discovery(name) else {
            return false;
        };
        println!("{name}\n  with {:?}", self.faults);
        println!("{}", report::tell(self.shorten(name, path)));
        true
    }

    /// Finds a shortest counterexample: the checker reports the last one that it found.
    fn shorten(&self, name: &'static str, path: Path<World, Step>) -> Path<World, Step> {
        let states = path.clone().into_states().len();
        let checker = self.clone().checker().target_max_depth(states);
        let checker = checker.finish_when(HasDiscoveries::AnyOf([name].into()));
        match checker.spawn_bfs().join().discovery(name) {
            Some(shorter) => self.shorten(name, shorter),
            None => path,
        }
    }

    /// Does this property fail when `mutant` is planted into the protocol?
    fn catches(&self, mutant: Mutant, property: &'static str) -> bool {
        println!("{mutant:?}:");
        let setting = Setting {
            mutant: Some(mutant),
            ..self.clone()
        };
        let checker = setting.clone().checker();
        let checker = checker.finish_when(HasDiscoveries::AnyOf([property].into()));
        setting.violates(property, &checker.spawn_bfs().join())
    }
}

/// Without faults there is one way to end.
#[test]
fn a_pair_is_made_and_ends() {
    let setting = Setting::strangers(GUEST, Faults::NONE);
    setting.reaching(&[BOTH_FINISH]).explore(1_006);
}

#[test]
fn one_side_dies() {
    let faults = faults!(crashes: 1, silent_crashes: 1, cuts: 1, unanswered: 1);
    let reaches = [BACKUP_LIVE, PRIMARY_SOLO, LOSER_HALTS, STALE_REPEAT];
    let setting = Setting::pair(GUEST, faults);
    setting.reaching(&reaches).explore(114_406);
}

#[test]
fn both_live_and_do_not_hear_each_other() {
    let faults = faults!(silences: 1, cuts: 1);
    let reaches = [LOSER_HALTS, STALE_REPEAT, WITHDRAWN];
    let setting = Setting::pair(GUEST, faults);
    setting.reaching(&reaches).explore(128_160);
}

#[test]
fn both_suspect_each_other_or_one_does_twice() {
    let faults = faults!(silences: 2);
    let reaches = [LOSER_HALTS, STALE_REPEAT, WITHDRAWN];
    let setting = Setting::pair(GUEST, faults);
    setting.reaching(&reaches).explore(65_924);
}

#[test]
fn a_side_is_stopped_and_the_network_goes() {
    let faults = faults!(silences: 1, stops: 1, partitions: 1);
    let reaches = [LOSER_HALTS, STALE_REPEAT, WITHDRAWN];
    let setting = Setting::pair(SMALL, faults);
    setting.reaching(&reaches).explore(103_517);
}

#[test]
fn a_side_is_stopped_twice_hangs_and_hands_over() {
    let faults = faults!(stops: 2, hangs: 1, switchovers: 1, crashes: 1);
    let reaches = [TRUSTS_AGAIN, HANDED_OVER, BACKUP_LIVE];
    let setting = Setting::pair(SMALL, faults);
    setting.reaching(&reaches).explore(249_732);
}

#[test]
fn the_arbiter_is_away_and_the_fence_fails() {
    let faults = faults!(silent_crashes: 1, cuts: 1, unanswered: 2, failed_fences: 1);
    let reaches = [WITHHELD, BACKUP_LIVE, PRIMARY_SOLO];
    let setting = Setting::pair(GUEST, faults);
    setting.reaching(&reaches).explore(309_185);
}

#[test]
fn the_guest_is_handed_over() {
    let faults = faults!(switchovers: 1, crashes: 1, cuts: 1, unanswered: 1);
    let reaches = [HANDED_OVER, TAKEN_BACK, BACKUP_LIVE];
    let setting = Setting::pair(GUEST, faults);
    setting.reaching(&reaches).explore(275_679);
}

#[test]
fn the_backup_diverges_or_leaves() {
    let faults = faults!(divergences: 1, leaves: 1, crashes: 1, cuts: 1);
    let reaches = [DIVERGED, LEFT, PRIMARY_SOLO];
    let setting = Setting::pair(GUEST, faults);
    setting.reaching(&reaches).explore(31_578);
}

#[test]
fn beats_are_late_and_withdraw_a_suspicion() {
    let faults = faults!(silences: 1, ticks: 1);
    let setting = Setting::pair(SMALL, faults).with_beats();
    setting.reaching(&[LOSER_HALTS, WITHDRAWN]).explore(76_231);
}

#[test]
fn beats_pass_where_the_channel_does_not() {
    let faults = faults!(stalls: 1, crashes: 1, unanswered: 1);
    let setting = Setting::pair(GUEST, faults).with_beats();
    setting
        .reaching(&[LOSER_HALTS, STALE_REPEAT])
        .explore(220_548);
}

#[test]
fn a_vcpu_hangs() {
    let faults = faults!(hangs: 1, silences: 1, cuts: 1);
    let reaches = [LOSER_HALTS, BACKUP_LIVE, PRIMARY_SOLO];
    let setting = Setting::pair(SMALL, faults);
    setting.reaching(&reaches).explore(43_977);
}

#[test]
fn who_died_is_started_anew() {
    let faults = faults!(crashes: 1, restarts: 1, cuts: 1, unanswered: 1);
    let reaches = [SECOND_GENERATION, COLD_START_REFUSED, REFUSED];
    let setting = Setting::strangers(SMALL, faults);
    setting.reaching(&reaches).explore(148_739);
}

#[test]
fn a_backup_lost_before_the_start_costs_a_generation() {
    let faults = faults!(cuts: 2);
    let reaches = [SECOND_GENERATION, SECOND_FAILOVER, LIVE_FROM_THE_START];
    let setting = Setting::strangers(GUEST, faults);
    setting.reaching(&reaches).explore(63_227);
}

#[test]
fn the_network_goes_while_a_pair_is_made() {
    let faults = faults!(partitions: 1, silent_crashes: 1, silences: 1, unanswered: 1);
    let setting = Setting::strangers(SMALL, faults);
    let reaches = [SECOND_GENERATION, LIVE_FROM_THE_START, LOSER_HALTS];
    setting.reaching(&reaches).explore(234_960);
}

#[test]
fn a_backup_cannot_build_the_machine() {
    let faults = faults!(failed_boots: 1, restarts: 1, cuts: 1, unanswered: 1);
    let setting = Setting::strangers(SMALL, faults);
    let reaches = [REFUSED, SECOND_GENERATION, SECOND_FAILOVER];
    setting.reaching(&reaches).explore(26_173);
}

#[test]
fn who_was_to_make_a_pair_leaves() {
    let faults = faults!(leaves: 1, cuts: 1, unanswered: 1, crashes: 1);
    let setting = Setting::strangers(SMALL, faults);
    let reaches = [LEFT, LOSER_HALTS, SECOND_GENERATION];
    setting.reaching(&reaches).explore(23_943);
}

/// Without faults: the backup joins at any position, or comes too late.
#[test]
fn who_runs_alone_is_joined() {
    let setting = Setting::solo(COPIED, Faults::NONE);
    let reaches = [PROTECTED_AGAIN, BOTH_FINISH, REFUSED];
    setting.reaching(&reaches).explore(2_735);
}

#[test]
fn a_survivor_is_joined() {
    let faults = faults!(silent_crashes: 1, cuts: 1, unanswered: 1, failed_fences: 1);
    let setting = Setting::survivor(COPIED, faults);
    let reaches = [PROTECTED_AGAIN, JOINER_LIVE, SOURCE_LOST_UNARMED];
    setting.reaching(&reaches).explore(50_896);
}

#[test]
fn a_side_dies_while_somebody_joins() {
    let faults = faults!(crashes: 1, cuts: 1);
    let reaches = [
        PROTECTED_AGAIN,
        SOURCE_LOST_UNARMED,
        JOINER_LIVE,
        SOURCE_WINS_AGAIN,
        LOSER_HALTS,
        STALE_REPEAT,
        LOST_OFFERED,
        LOST_COPYING,
        LOST_PROVING,
        LOST_OPENING,
        LOST_ARMING,
        LOST_ARMED,
    ];
    let setting = Setting::solo(COPIED, faults);
    setting.reaching(&reaches).explore(50_007);
}

#[test]
fn the_arbiter_is_away_while_somebody_joins() {
    let faults = faults!(unanswered: 1, crashes: 1);
    let setting = Setting::solo(COPIED, faults);
    let reaches = [LOST_OPENING, JOINER_LIVE, SOURCE_LOST_UNARMED];
    setting.reaching(&reaches).explore(21_500);
}

#[test]
fn source_and_joiner_do_not_hear_each_other() {
    let faults = faults!(silences: 1, partitions: 1);
    let setting = Setting::solo(COPIED, faults);
    let reaches = [JOINER_LIVE, SOURCE_WINS_AGAIN, SOURCE_LOST_UNARMED];
    setting.reaching(&reaches).explore(323_236);
}

#[test]
fn a_copy_is_damaged_or_cannot_be_built_and_another_one_joins() {
    let faults = faults!(damaged_copies: 1, failed_boots: 1, restarts: 1);
    let setting = Setting::solo(SMALL, faults);
    let reaches = [COPY_REFUSED, PROTECTED_AGAIN];
    setting.reaching(&reaches).explore(2_459);
}

#[test]
fn a_lost_joiners_generation_is_not_used_again() {
    let faults = faults!(crashes: 1, restarts: 1, unanswered: 1);
    let setting = Setting::solo(SMALL, faults);
    let reaches = [NUMBER_BURNT, SOURCE_WINS_AGAIN];
    setting.reaching(&reaches).explore(27_286);
}

#[test]
fn who_joined_leaves_diverges_or_takes_over() {
    let faults = faults!(leaves: 1, divergences: 1, switchovers: 1, cuts: 1);
    let setting = Setting::solo(COPIED, faults);
    let reaches = [LEFT, DIVERGED, HANDED_OVER, JOINER_LIVE, TAKEN_BACK];
    setting.reaching(&reaches).explore(116_029);
}

/// More faults of every kind.
#[test]
#[ignore = "explores for some minutes"]
fn far() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let settings = [
        Setting::pair(
            GUEST,
            faults!(crashes: 1, silent_crashes: 1, cuts: 1, unanswered: 2, silences: 1, failed_fences: 1),
        ),
        Setting::pair(
            GUEST,
            faults!(crashes: 1, silent_crashes: 1, cuts: 1, unanswered: 1, switchovers: 1, leaves: 1),
        ),
        Setting::pair(GUEST, faults!(cuts: 1, silences: 1, stops: 1)),
        Setting::pair(
            SMALL,
            faults!(crashes: 1, silent_crashes: 1, cuts: 1, unanswered: 1, silences: 1, stops: 1,
                hangs: 1, divergences: 1),
        ),
        Setting::pair(SMALL, faults!(silences: 2, ticks: 1)).with_beats(),
        Setting::strangers(
            GUEST,
            faults!(crashes: 1, cuts: 1, unanswered: 1, restarts: 1),
        ),
        Setting::strangers(SMALL, faults!(crashes: 2, cuts: 2, restarts: 2)),
        Setting::solo(
            COPIED,
            faults!(crashes: 2, cuts: 1, unanswered: 1, restarts: 1),
        ),
        Setting::solo(
            COPIED,
            faults!(silences: 1, stops: 1, partitions: 1, crashes: 1),
        ),
        Setting::survivor(
            COPIED,
            faults!(crashes: 1, silent_crashes: 1, cuts: 1, unanswered: 2, failed_fences: 1),
        ),
        Setting::pair(
            GUEST,
            faults!(vanishes: 1, looks: 2, restores: 1, silences: 1, cuts: 1),
        ),
        Setting::pair(
            SMALL,
            faults!(vanishes: 1, looks: 1, restores: 1, unanswered: 1, switchovers: 1, hangs: 1),
        ),
    ];
    let states: usize = settings.iter().map(|setting| setting.visit(threads)).sum();
    println!("{states} states in all");
}

#[test]
fn every_planted_fault_is_caught_by_the_property_that_it_breaks() {
    let cut = faults!(cuts: 1);
    let pair = Setting::pair(GUEST, cut);
    let dies = Setting::pair(GUEST, faults!(crashes: 1));
    let diverges = Setting::pair(GUEST, faults!(cuts: 1, divergences: 1));
    let unanswered = Setting::pair(SMALL, faults!(cuts: 1, unanswered: 1));
    let switches = Setting::pair(SMALL, faults!(cuts: 1, switchovers: 1));
    let joins = Setting::solo(COPIED, faults!(crashes: 1));
    let damaged = Setting::solo(SMALL, faults!(damaged_copies: 1));
    let again = Setting::solo(SMALL, faults!(crashes: 1, restarts: 1));
    let sleeps = Setting::pair(GUEST, faults!(silences: 1, stops: 1));
    let vanish = Setting::pair(SMALL, faults!(vanishes: 1, looks: 1, silences: 1));
    let gone = Setting::pair(SMALL, faults!(vanishes: 1, cuts: 1));
    let planted = [
        (Mutant::PutsBackUnagreed, &vanish, I4),
        (Mutant::PutsBackUnclaimed, &vanish, I4),
        (Mutant::GoesOnUnrecorded, &gone, I4),
        (Mutant::ArmsTooEarly, &joins, I4),
        (Mutant::ReleasesTooEarly, &joins, I2),
        (Mutant::AsksUnarmed, &joins, I6),
        (Mutant::ArmsUnacknowledged, &joins, I2),
        (Mutant::ArmsOverOldOutputs, &joins, I5),
        (Mutant::AcceptsAnyCopy, &damaged, I1),
        (Mutant::NumberUsedAgain, &again, I4),
        (Mutant::LeavesOneOpen, &joins, CLEAN),
        (Mutant::AckBeforeReceipt, &pair, I2),
        (Mutant::ReleaseBeforeAck, &pair, I2),
        (Mutant::SoloWithoutClaim, &pair, I4),
        (Mutant::IgnoresLostClaim, &pair, I4),
        (
            Mutant::GenerationNotRaised,
            &Setting::strangers(SMALL, cut),
            I4,
        ),
        (Mutant::AsksBeforeCaughtUp, &pair, I3),
        (Mutant::NotEmittedAgain, &dies, I5),
        (Mutant::ForgetsTooMuch, &pair, I5),
        (Mutant::LiveBeforeFence, &dies, FENCE),
        (Mutant::ResumesWithoutRight, &switches, HANDOVER),
        (Mutant::GoesOnDiverged, &diverges, I6),
        (Mutant::AsksOnlyOnce, &unanswered, GOES_ON),
        (Mutant::TrustsOldWords, &sleeps, AWAY),
    ];
    for (mutant, setting, property) in planted {
        let caught = setting.catches(mutant, property);
        assert!(caught, "{mutant:?} does not break {property}");
    }
}

#[test]
fn an_assertion_that_fails_is_a_counterexample() {
    let setting = Setting::pair(SMALL, Faults::NONE);
    let world = World::paired(&setting);
    let nothing = Step::Deliver {
        connection: 0,
        to: super::channel::End::Primary,
    };
    let failed = world.after(&setting, nothing).expect("the flaw is new");
    let holds = |name| {
        ALWAYS
            .iter()
            .all(|(n, c)| *n != name || c(&setting, &failed))
    };
    assert!(!holds(SOUND) && holds(I2) && holds(GOES_ON));
    assert_eq!(failed.steps(setting.guest), []);
}

#[test]
fn who_cannot_be_joined_is_a_counterexample() {
    let setting = Setting::solo(SMALL, Faults::NONE);
    let joinable = |world: &World| {
        let mut all = ALWAYS.iter();
        all.all(|(name, condition)| *name != JOINABLE || condition(&setting, world))
    };
    let world = World::solo(&setting);
    let connects = Step::Connect {
        primary: 0,
        backup: 1,
    };
    let mut world = world.after(&setting, connects).expect("somebody joins");
    assert!(joinable(&world));
    // The joiner is gone, and the primary does not notice it.
    world.around.connections.clear();
    assert!(!joinable(&world));
}
