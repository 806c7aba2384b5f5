//! The campaigns.

use super::campaign::{Outcome, run_everywhere, run_share};
use super::{Set, seed};
use std::time::Instant;

/// Cases of a campaign, if `LOCKSTEP_CASES` says no other number.
const CASES: u64 = 10_000_000;

fn cases() -> u64 {
    std::env::var("LOCKSTEP_CASES").map_or(CASES, |n| n.parse().expect("a number"))
}

/// Cases of a round; between two rounds something is printed.
const ROUND: u64 = 10_000_000;

/// Runs so many cases in rounds, each from a seed of its own. What came of each set.
fn rounds(cases: u64) -> Vec<Outcome> {
    let share = "differential::tests::one_share_of_the_random_code";
    let began = Instant::now();
    let mut all: Vec<Outcome> = Set::ALL.iter().map(|_| Outcome::default()).collect();
    for (round, first) in (0..cases).step_by(ROUND as usize).enumerate() {
        let seed = seed().wrapping_add((round as u64) << 32);
        let outcomes = run_everywhere(share, (seed, ROUND.min(cases - first)));
        for (all, outcome) in all.iter_mut().zip(outcomes) {
            all.add(outcome);
        }
        let done: u64 = all.iter().map(|outcome| outcome.cases).sum();
        let seconds = began.elapsed().as_secs_f64();
        let rate = done as f64 / seconds / 1e3;
        println!("seed {seed:#x}: {done} cases in {seconds:.1} s, {rate:.0} thousand a second");
        if all.iter().any(|outcome| !outcome.found.is_empty()) {
            break;
        }
    }
    all
}

/// Ten million cases on all cores; `LOCKSTEP_CASES` says how many others, `LOCKSTEP_SEED` where to begin.
#[test]
fn random_code_gives_the_same_as_on_the_host() {
    let outcomes = rounds(cases());
    let (mut differ, mut never) = (Vec::new(), Vec::new());
    for (set, outcome) in Set::ALL.iter().zip(&outcomes) {
        for words in outcome.found.values() {
            println!("{words}");
        }
        let forms = set.forms();
        let missing = outcome.missing(&forms);
        println!(
            "{set:?}: {} cases, {} instructions, {} of {} forms reached, {} differ",
            outcome.cases,
            outcome.steps,
            forms.len() - missing.len(),
            forms.len(),
            outcome.found.len(),
        );
        differ.extend(outcome.found.keys());
        never.extend(missing.iter().map(|code| format!("{code:?}")));
    }
    assert!(
        differ.is_empty(),
        "{} forms differ: {differ:?}",
        differ.len()
    );
    assert!(never.is_empty(), "never reached: {never:?}");
    assert!(outcomes.iter().map(|outcome| outcome.cases).sum::<u64>() >= cases());
}

/// A process of the campaign above; without one it does nothing.
#[test]
#[ignore = "the test above runs it"]
fn one_share_of_the_random_code() {
    run_share(cases());
}
