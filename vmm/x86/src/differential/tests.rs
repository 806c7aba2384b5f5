//! The campaigns.

use super::campaign::{run_everywhere, run_share};
use super::{Set, seed};
use std::time::Instant;

/// Cases of a campaign, if `LOCKSTEP_CASES` says no other number.
const CASES: u64 = 10_000_000;

fn cases() -> u64 {
    std::env::var("LOCKSTEP_CASES").map_or(CASES, |n| n.parse().expect("a number"))
}

/// Ten million cases on all cores; `LOCKSTEP_CASES` says how many others, `LOCKSTEP_SEED` where to begin.
#[test]
fn random_code_gives_the_same_as_on_the_host() {
    let began = Instant::now();
    let share = "differential::tests::one_share_of_the_random_code";
    let outcomes = run_everywhere(share);
    let mut differ = Vec::new();
    let (mut all, mut never) = (0, Vec::new());
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
        all += outcome.cases;
        never.extend(missing.iter().map(|code| format!("{code:?}")));
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = all as f64 / seconds / 1e3;
    println!(
        "seed {:#x}: {all} cases in {seconds:.1} s, {rate:.0} thousand a second",
        seed()
    );
    assert!(
        differ.is_empty(),
        "{} forms differ: {differ:?}",
        differ.len()
    );
    assert!(never.is_empty(), "never reached: {never:?}");
    assert!(all >= cases());
}

/// A process of the campaign above; without one it does nothing.
#[test]
#[ignore = "the test above runs it"]
fn one_share_of_the_random_code() {
    run_share(cases());
}
