//! Scenario relay: one failover after the other, and a new backup after each.

use std::thread;
use std::time::Duration;

use super::Scenario;
use super::ends::{served, statuses, suspicions};
use super::members::MemberId;
use super::stage::{BACKUP, Guest, PRIMARY, RunError, Stage};
use super::verdict::{Failover, Leg, Observation};
use lockstep_events::{Event, Stamped};

/// The scenario's entry in the list.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "relay",
    about: "a client counts with INCR; the primary is killed, the backup goes live, and a new backup joins it, as often as --runs says; the one connection must count on without a gap or a repeat, and no survivor holds more than the ones before",
    client: true,
    served: true,
    chain: true,
    play,
    check,
};

/// How many answers come between two deaths, and how many must follow each failover.
const ANSWERS_BEFORE: std::ops::RangeInclusive<u64> = 50..=300;
const ANSWERS_AFTER: u64 = 50;
/// How long after the last of them the kill comes, in microseconds.
const KILL_DELAY_US: std::ops::RangeInclusive<u64> = 0..=1000;
/// How long answers, a failover and a copy may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How much more memory, KiB, and how many more files the last survivors may use than the first.
const MORE_MEMORY_KIB: u64 = 24 << 10;
const MORE_FILES: u64 = 4;

/// A member of the chain.
#[derive(Debug, Clone, Copy)]
struct Link {
    name: &'static str,
    id: MemberId,
    host: usize,
}

fn play(stage: &mut Stage) -> Result<(), RunError> {
    let pair = stage.start_pair(Guest::Server)?;
    stage.start_client()?;
    let mut live = Link {
        name: PRIMARY,
        id: pair.primary,
        host: 0,
    };
    let mut next = Link {
        name: BACKUP,
        id: pair.backup,
        host: 1,
    };
    for leg in 0..stage.runs {
        let before = stage.answers() + stage.random.within(ANSWERS_BEFORE);
        let delay = stage.random.within(KILL_DELAY_US);
        if !stage.wait_for_answers(before, LIMIT)? {
            return Ok(());
        }
        // This sleep waits for no event: its length is the random moment.
        thread::sleep(Duration::from_micros(delay));
        stage.kill(live.name, live.id)?;
        let is_live = |e: &Event| matches!(e, Event::Live { .. });
        stage.wait_for(next.id, "the backup went live", LIMIT, is_live)?;
        let after = stage.answers() + ANSWERS_AFTER;
        if !stage.wait_for_answers(after, LIMIT)? {
            return Ok(());
        }
        let name = stage.name(format!("backup-{}", leg + 2));
        let joiner = Link {
            name,
            id: stage.join(name, live.host)?,
            host: live.host,
        };
        let protected = |e: &Event| matches!(e, Event::Protected { .. });
        stage.wait_for(next.id, "a new backup protects", LIMIT, protected)?;
        let joined = |e: &Event| matches!(e, Event::Joined { .. });
        stage.wait_for(joiner.id, "the new backup joined", LIMIT, joined)?;
        stage.note_leg(next.name, next.id)?;
        (live, next) = (next, joiner);
    }
    let enough = stage.answers() + ANSWERS_AFTER;
    stage.wait_for_answers(enough, LIMIT)?;
    Ok(())
}

fn check(seen: &Observation) -> Vec<String> {
    let mut violations = statuses(seen, &[]);
    if seen.legs.is_empty() {
        violations.push("no failover was survived".to_owned());
    }
    let first = seen.legs.first().map_or(u64::MAX, |leg| leg.killed_ns);
    violations.extend(suspicions(seen, first));
    for (index, leg) in seen.legs.iter().enumerate() {
        violations.extend(leg_violations(seen, index as u64 + 1, leg));
    }
    violations.extend(growth(&seen.legs));
    violations
}

/// Violations in one leg: the survivor must be live in the next generation, and protected in the one
/// after it.
fn leg_violations(seen: &Observation, generation: u64, leg: &Leg) -> Vec<String> {
    let events = seen.events(leg.survivor);
    let mut violations = Vec::new();
    if let Err(reason) = Failover::measure(leg.killed_ns, events) {
        violations.push(format!("leg {generation}: {reason}"));
    }
    let live = |e: &&Stamped| matches!(e.event, Event::Live { .. });
    let went: Vec<&Stamped> = events.iter().filter(live).collect();
    match went[..] {
        [live] => {
            let wanted = matches!(live.event, Event::Live { generation: g, .. } if g == generation);
            if !wanted {
                violations.push(format!("leg {generation}: live as {:?}", live.event));
            }
            let moment = format!("the {} went live", leg.survivor);
            violations.extend(served(seen, live.mono_ns, ANSWERS_AFTER, &moment));
        }
        _ => violations.push(format!(
            "the {} went live {} times",
            leg.survivor,
            went.len()
        )),
    }
    let protected = Event::Protected {
        generation: generation + 1,
    };
    if !events.iter().any(|e| e.event == protected) {
        violations.push(format!(
            "the {} was not protected in generation {}",
            leg.survivor,
            generation + 1
        ));
    }
    violations
}

/// Violations if the survivors use more and more of a resource.
fn growth(legs: &[Leg]) -> Vec<String> {
    let (Some(first), Some(last)) = (legs.first(), legs.last()) else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    if last.memory_kib > first.memory_kib + MORE_MEMORY_KIB {
        violations.push(format!(
            "the survivors' memory grew from {} to {} KiB",
            first.memory_kib, last.memory_kib
        ));
    }
    if last.open_files > first.open_files + MORE_FILES {
        violations.push(format!(
            "the survivors' open files grew from {} to {}",
            first.open_files, last.open_files
        ));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::client::{Answer, End, Record};
    use super::super::samples;
    use super::*;

    fn survivor(generation: u64, killed_ns: u64) -> Vec<Stamped> {
        let reason = "closed".to_owned();
        let kinds = [
            samples::joined(generation),
            Event::Suspect { reason },
            samples::caught_up(),
            Event::ClaimWon { generation },
            samples::live(generation),
            Event::Protected {
                generation: generation + 1,
            },
        ];
        let at = |(i, event)| Stamped {
            mono_ns: killed_ns + i as u64,
            event,
        };
        kinds.into_iter().enumerate().map(at).collect()
    }

    fn good() -> Observation {
        let leg = |killed, killed_ns, survivor| Leg {
            killed,
            killed_ns,
            survivor,
            memory_kib: 90_000,
            open_files: 20,
        };
        let answer = |value: i64| Answer {
            sent_ns: 9_000,
            answered_ns: 9_000 + value as u64,
            value,
        };
        Observation {
            members: vec![
                (PRIMARY, vec![]),
                (BACKUP, survivor(1, 1_000)),
                ("backup-2", survivor(2, 2_000)),
            ],
            killed: Some((BACKUP, 2_000)),
            legs: vec![leg(PRIMARY, 1_000, BACKUP), leg(BACKUP, 2_000, "backup-2")],
            client: Some(Record {
                answers: (1..=ANSWERS_AFTER as i64).map(answer).collect(),
                end: End::Told,
            }),
            ..Observation::default()
        }
    }

    #[test]
    fn a_chain_that_holds_passes() {
        assert_eq!(check(&good()), [] as [String; 0]);
    }

    #[test]
    fn a_generation_that_does_not_count_up_is_found() {
        let mut run = good();
        run.members[2].1 = survivor(1, 2_000);
        let violations = check(&run);
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[1].contains("not protected in generation 3"));
    }

    #[test]
    fn a_survivor_that_was_not_protected_or_never_live_is_found() {
        let mut run = good();
        run.members[1].1.pop();
        assert!(check(&run)[0].contains("not protected"));
        run.members[1].1.pop();
        assert!(check(&run)[0].contains("did not go live"));
        run.legs.clear();
        assert_eq!(check(&run)[0], "no failover was survived");
    }

    #[test]
    fn survivors_that_hold_more_and_more_are_found() {
        let mut run = good();
        run.legs[1].memory_kib += MORE_MEMORY_KIB + 1;
        assert!(check(&run)[0].contains("memory grew"));
        let mut run = good();
        run.legs[1].open_files += MORE_FILES + 1;
        assert!(check(&run)[0].contains("open files grew"));
    }

    #[test]
    fn too_few_answers_after_a_failover_and_an_unasked_end_are_found() {
        let mut run = good();
        run.client.as_mut().unwrap().answers.pop();
        assert_eq!(check(&run).len(), 2);
        let mut run = good();
        run.statuses = vec![("backup-2", Some(0))];
        assert!(check(&run)[0].contains("was not to"));
    }
}
