//! Scenario kill-computing: SIGKILL to the primary of a guest that only computes.
//!
//! The guest `threads` prints a numbered line from time to time, with sums that depend on where its
//! timer interrupts came. The output of both members together must be one history.

use std::thread;
use std::time::Duration;

use lockstep_events::Event;
use thiserror::Error;

use super::Scenario;
use super::ends::ends;
use super::stage::{BACKUP, Guest, PRIMARY, RunError, Stage};
use super::verdict::Observation;

/// The scenario's entry in the list.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill-computing",
    about: "a guest without a network switches threads on its timer while it computes; the primary's process is killed with SIGKILL at a random moment; what the survivor prints must continue the primary's lines",
    client: false,
    served: false,
    chain: false,
    play,
    check,
};

/// How long the guest has run when the primary is killed, in microseconds.
const KILL_AFTER_US: std::ops::RangeInclusive<u64> = 50_000..=800_000;
/// How long the backup may take to go live, and the guest to end after that.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(60);

fn play(stage: &mut Stage) -> Result<(), RunError> {
    let kill_after = Duration::from_micros(stage.random.within(KILL_AFTER_US));
    let pair = stage.start_pair(Guest::Threads)?;
    // This sleep waits for no event: its length is the random moment.
    thread::sleep(kill_after);
    stage.kill(PRIMARY, pair.primary)?;
    stage.wait_for(pair.backup, "the backup went live", FAILOVER_LIMIT, |e| {
        matches!(e, Event::Live { .. })
    })?;
    stage.wait_for(pair.backup, "the guest ended", END_LIMIT, |e| {
        matches!(e, Event::Ended { .. })
    })?;
    Ok(())
}

fn check(observation: &Observation) -> Vec<String> {
    let survivor = observation.events(BACKUP);
    let mut violations = ends(observation, Some(BACKUP), &[], 0);
    if !survivor
        .iter()
        .any(|e| e.event == Event::Ended { status: 0 })
    {
        violations.push("the guest did not end with status 0".to_owned());
    }
    let (before, after) = (observation.printed(PRIMARY), observation.printed(BACKUP));
    if let Err(why) = one_history(before, after) {
        violations.push(why.to_string());
    }
    violations
}

/// Why what two members printed is not one history.
#[derive(Debug, PartialEq, Eq, Error)]
enum NotOne {
    #[error("the survivor printed nothing")]
    Mute,
    #[error("the survivor's last line does not say that the guest is done")]
    NotDone,
    #[error("lines after `{0}` differ between the members")]
    Fork(String),
    #[error("after switch {0} came switch {1}")]
    Gap(u64, u64),
}

/// Does `after` continue `before` where it was cut? Lines that were under way at the kill may come
/// again, but none may be missing. The last line of `before` may be incomplete.
fn one_history(before: &str, after: &str) -> Result<(), NotOne> {
    let whole = before.rfind('\n').map_or("", |end| &before[..end]);
    let before: Vec<&str> = whole.lines().collect();
    let after: Vec<&str> = after.lines().collect();
    let Some(first) = after.first() else {
        return Err(NotOne::Mute);
    };
    if !after
        .last()
        .is_some_and(|line| line.starts_with("threads: done"))
    {
        return Err(NotOne::NotDone);
    }
    let again = before.iter().position(|line| line == first);
    if let Some(start) = again {
        let overlap = &before[start..];
        return match after.starts_with(overlap) {
            true => numbers_follow(&after),
            false => Err(NotOne::Fork((*first).to_owned())),
        };
    }
    let all: Vec<&str> = before.iter().chain(&after).copied().collect();
    numbers_follow(&all)
}

/// The numbers of the lines `threads: switch N …` must rise by the same step throughout.
fn numbers_follow(lines: &[&str]) -> Result<(), NotOne> {
    let number = |line: &&str| -> Option<u64> {
        let rest = line.strip_prefix("threads: switch ")?;
        rest.split(' ').next()?.parse().ok()
    };
    let numbers: Vec<u64> = lines.iter().filter_map(number).collect();
    let steps: Vec<u64> = numbers
        .windows(2)
        .map(|w| w[1].wrapping_sub(w[0]))
        .collect();
    match steps.iter().position(|step| *step != steps[0]) {
        Some(at) => Err(NotOne::Gap(numbers[at], numbers[at + 1])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = "threads: done, checksum 1\n";

    fn lines(numbers: impl IntoIterator<Item = u64>) -> String {
        let line = |n: u64| format!("threads: switch {n} sum {:x}\n", n * 77);
        numbers.into_iter().map(line).collect()
    }

    #[test]
    fn a_continued_history_passes_with_and_without_lines_that_come_again() {
        let after = lines([300, 400]) + DONE;
        for before in [
            lines([100, 200]),
            lines([100, 200, 300]),
            lines([100, 200, 300, 400]),
        ] {
            assert_eq!(one_history(&before, &after), Ok(()), "{before}");
        }
        let cut = lines([100, 200]) + "threads: swi";
        assert_eq!(one_history(&cut, &after), Ok(()));
        let from_the_start = lines([100, 200, 300]) + DONE;
        assert_eq!(one_history("", &from_the_start), Ok(()));
    }

    #[test]
    fn a_gap_a_fork_and_an_early_end_are_found() {
        let after = lines([400, 500]) + DONE;
        assert!(one_history(&lines([100, 200]), &after).is_err());
        let forked = lines([200]) + "threads: switch 300 sum 0\n" + DONE;
        assert!(one_history(&lines([100, 200, 300]), &forked).is_err());
        assert!(one_history(&lines([100]), &lines([200])).is_err());
        assert!(one_history(&lines([100]), "").is_err());
        let repeated = lines([200, 200, 300]) + DONE;
        assert!(one_history(&lines([100]), &repeated).is_err());
    }
}
