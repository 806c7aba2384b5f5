//! The schedules, and planted faults that show that the checks work.

use super::{END_IN_TRANSFER, Fate, Setup, Simulation};
use crate::mutant::Mutant;
use crate::testing::Rng;
use std::collections::BTreeMap;

/// Schedules per test.
const RUNS: u64 = 2000;

/// Plays all schedules. Returns how often each noted event happened.
fn play(setup: Setup, first: u64) -> BTreeMap<String, u64> {
    let first = Rng::seed(first);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for seed in first..first + RUNS {
        // The last seed that is printed is the one that failed.
        println!("LOCKSTEP_SEED={seed}");
        let mut simulation = Simulation::new(seed, setup, None);
        simulation.run();
        simulation.tally();
        for (what, times) in &simulation.world.seen {
            *seen.entry(what.clone()).or_default() += times;
        }
    }
    println!("{seen:#?}");
    seen
}

impl Simulation {
    fn tally(&mut self) {
        let excused = self.is_excused();
        let world = &mut self.world;
        for member in &self.members {
            world.note(&format!("{:?}", member.seat.fate));
        }
        let fates = |fate| self.members.iter().filter(|m| m.seat.fate == fate).count();
        if fates(Fate::Finished) > 1 {
            world.note("both finished");
        }
        if excused {
            world.note("excused");
        }
        let joined = world.seen.get("joined").copied().unwrap_or_default();
        if self.members.len() >= 5 {
            world.note("five members and more");
        }
        if joined >= 3 {
            world.note("joined three times and more");
        }
    }
}

fn assert_seen(seen: &BTreeMap<String, u64>, what: &[&str], times: u64) {
    for what in what {
        let n = seen.get(*what).copied().unwrap_or_default();
        assert!(n >= times, "{what:?}: seen {n} times");
    }
}

#[test]
fn whatever_fails_the_invariants_hold_and_the_guest_gets_to_its_end() {
    let seen = play(Setup::Pair, 1_000_000);
    let often = ["both finished", "primary alone", "backup live", "Lost"];
    let rare = [
        "withdrawn",
        "started in a later generation",
        "HandedOver",
        "parked and ran on",
        "a fence fails",
    ];
    assert_seen(&seen, &often, RUNS / 400);
    assert_seen(&seen, &rare, 1);
    assert!(seen["excused"] < RUNS / 4, "{}", seen["excused"]);
}

#[test]
fn whoever_is_lost_is_replaced_and_the_vm_runs_on() {
    let seen = play(Setup::Relay, 2_000_000);
    let often = [
        "joined",
        "joiner live",
        "joined three times and more",
        "five members and more",
        "a bad copy is refused",
        "a generation's number is burnt",
        "the copy's window is full",
        "joiner lost when offered",
        "joiner lost when copying",
        "joiner lost when captured",
        "joiner lost when opening",
        "source lost when receiving",
        "source lost when restoring",
        "source lost when with a copy",
        END_IN_TRANSFER,
    ];
    let rare = [
        "joiner lost when arming",
        "source lost with Armed under way",
        "a joiner takes over as planned",
        "parked and ran on",
        "withdrawn",
        "Left",
    ];
    assert_seen(&seen, &often, RUNS / 400);
    assert_seen(&seen, &rare, 1);
    assert!(seen["excused"] < RUNS / 4, "{}", seen["excused"]);
}

/// The message with which a check fails on a planted fault.
fn caught(setup: Setup, mutant: Mutant) -> Option<String> {
    (0..RUNS).find_map(|seed| {
        let play = || Simulation::new(seed, setup, Some(mutant)).run();
        let panic = std::panic::catch_unwind(play).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
    })
}

#[test]
fn every_planted_fault_is_caught_by_the_invariant_that_it_breaks() {
    let planted = [
        (Setup::Pair, Mutant::AckBeforeReceipt, "I2"),
        (Setup::Pair, Mutant::ReleaseBeforeAck, "I2"),
        (Setup::Pair, Mutant::SoloWithoutClaim, "I4"),
        (Setup::Pair, Mutant::IgnoresLostClaim, "I4"),
        (Setup::Pair, Mutant::GenerationNotRaised, "I4"),
        (Setup::Pair, Mutant::AsksBeforeCaughtUp, "I3"),
        (Setup::Pair, Mutant::NotEmittedAgain, "I5"),
        (Setup::Pair, Mutant::ForgetsTooMuch, "I5"),
        (Setup::Pair, Mutant::LiveBeforeFence, "before the fence"),
        (
            Setup::Pair,
            Mutant::ResumesWithoutRight,
            "without the right",
        ),
        (Setup::Pair, Mutant::GoesOnDiverged, "I6"),
        (Setup::Pair, Mutant::AsksOnlyOnce, "did not get to its end"),
        (Setup::Pair, Mutant::TrustsOldWords, "who was away"),
        (Setup::Relay, Mutant::ArmsTooEarly, "I4"),
        (Setup::Relay, Mutant::ReleasesTooEarly, "I2"),
        (Setup::Relay, Mutant::AsksUnarmed, "I4"),
        (Setup::Relay, Mutant::ArmsUnacknowledged, "I2"),
        (Setup::Relay, Mutant::ArmsOverOldOutputs, "I5"),
        (Setup::Relay, Mutant::AcceptsAnyCopy, "I1"),
        (
            Setup::Relay,
            Mutant::OvertakesCopy,
            "although nothing failed",
        ),
        (Setup::Relay, Mutant::IgnoresWindow, "the window"),
        (Setup::Relay, Mutant::NumberUsedAgain, "I4"),
        (Setup::Relay, Mutant::LeavesOneOpen, "a cold start's way"),
    ];
    for (setup, mutant, invariant) in planted {
        let caught = caught(setup, mutant).unwrap_or_else(|| panic!("{mutant:?} survives"));
        assert!(caught.contains(invariant), "{mutant:?}: {caught}");
    }
}
