//! Judges the observations of a run. These are pure functions, so that each check is tested with
//! planted faults.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use super::client::{Answer, End, Record};
use super::lane::Counts;
use lockstep_events::{Event, Stamped};

/// Most messages of one kind that a run reports; the others are only counted.
const VIOLATIONS_LIMIT: usize = 10;

/// Everything that was seen in one run.
#[derive(Debug, Clone, Default)]
pub(super) struct Observation {
    /// Each member's name and events.
    pub(super) members: Vec<(&'static str, Vec<Stamped>)>,
    /// What could not be read of their events in the end.
    pub(super) unread: Vec<String>,
    /// Each member's name and what its guest printed.
    pub(super) printed: Vec<(&'static str, String)>,
    /// The member that was killed, and when (CLOCK_MONOTONIC, in nanoseconds).
    pub(super) killed: Option<(&'static str, u64)>,
    /// The statuses of members and commands that ended by themselves; `None` for a signal.
    pub(super) statuses: Vec<(&'static str, Option<i32>)>,
    /// The client's record, if it ever connected.
    pub(super) client: Option<Record>,
    /// Changes of the links between the members' hosts, if each has its own.
    pub(super) links: Links,
    /// The names of the arbiter's records at the end, in order.
    pub(super) records: Vec<String>,
    /// The legs of a chain of failovers.
    pub(super) legs: Vec<Leg>,
}

/// One failover of a chain, and the survivor once it was protected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) killed: &'static str,
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub(super) killed_ns: u64,
    pub(super) survivor: &'static str,
    pub(super) memory_kib: u64,
    pub(super) open_files: u64,
}

/// Changes of links, and their effects.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    /// When the last change was made (CLOCK_MONOTONIC, in nanoseconds).
    pub(super) changed_ns: Option<u64>,
    /// The least time that a message and its answer take then, in nanoseconds.
    pub(super) round_trip_ns: u64,
    /// Counts of the frames of the primary's host, and of those of the backup's.
    pub(super) counts: [Counts; 2],
}

impl Observation {
    /// The events of the member `name`.
    pub(super) fn events(&self, name: &str) -> &[Stamped] {
        let found = self.members.iter().find(|(member, _)| *member == name);
        found.map_or(&[], |(_, events)| events)
    }

    /// What the guest printed through the member `name`.
    pub(super) fn printed(&self, name: &str) -> &str {
        let found = self.printed.iter().find(|(member, _)| *member == name);
        found.map_or("", |(_, text)| text)
    }

    /// The answers that the client got.
    pub(super) fn answers(&self) -> &[Answer] {
        self.client.as_ref().map_or(&[], |record| &record.answers)
    }
}

/// The client's counts. All but `acked` must be zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    /// Requests answered.
    pub(super) acked: u64,
    /// Numbers that are missing: the answers must be 1, 2, 3, …
    pub(super) lost: u64,
    /// Answers with a number that had come before.
    pub(super) repeated: u64,
    /// Broken connections, each of which would have made a client reconnect.
    pub(super) reconnects: u64,
}

impl Tally {
    pub(super) fn of(record: &Record) -> Self {
        let mut tally = Self {
            acked: record.answers.len() as u64,
            reconnects: matches!(record.end, End::Broken(_)).into(),
            ..Self::default()
        };
        let mut reached = 0;
        for answer in &record.answers {
            if answer.value <= reached {
                tally.repeated += 1;
            } else {
                tally.lost += answer.value.abs_diff(reached) - 1;
                reached = answer.value;
            }
        }
        tally
    }

    pub(super) fn add(&mut self, other: Self) {
        self.acked += other.acked;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reconnects += other.reconnects;
    }
}

/// The longest time between two answers, in nanoseconds.
pub(super) fn longest_gap_ns(answers: &[Answer]) -> Option<u64> {
    let gap = |pair: &[Answer]| pair[1].answered_ns.saturating_sub(pair[0].answered_ns);
    answers.windows(2).map(gap).max()
}

/// Why a failover cannot be measured.
#[derive(Debug, Error)]
pub(super) enum Unmeasured {
    #[error("the survivor did not {0} in its turn")]
    Missing(&'static str),
    #[error("the survivor's step '{0}' ended before it began")]
    Early(&'static str),
}

/// How long a failover took, from the kill on, in nanoseconds. The parts add up to `vmm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failover {
    pub(super) vmm: u64,
    pub(super) detect: u64,
    pub(super) catch_up: u64,
    pub(super) arbitrate: u64,
    pub(super) go_live: u64,
}

impl Failover {
    /// Measures it from the survivor's events. The error says what is missing or out of order.
    pub(super) fn measure(killed_ns: u64, survivor: &[Stamped]) -> Result<Self, Unmeasured> {
        // It goes backwards, from each step to the one before: a suspicion may have been withdrawn and
        // come again, and a second reason may be reported while the first takes effect.
        let (rest, live) = last(survivor, "go live", |e| matches!(e, Event::Live { .. }))?;
        let (rest, won) = last(rest, "win the claim", |e| {
            matches!(e, Event::ClaimWon { .. })
        })?;
        let (rest, caught_up) = last(rest, "catch up", |e| matches!(e, Event::CaughtUp { .. }))?;
        let (_, suspect) = last(rest, "suspect", |e| matches!(e, Event::Suspect { .. }))?;
        let step = |name, from: u64, to: u64| to.checked_sub(from).ok_or(Unmeasured::Early(name));
        Ok(Self {
            detect: step("detect", killed_ns, suspect)?,
            catch_up: step("catch up", suspect, caught_up)?,
            arbitrate: step("arbitrate", caught_up, won)?,
            go_live: step("go live", won, live)?,
            vmm: live - killed_ns,
        })
    }
}

/// The time of the last event that `wanted` accepts, and the events before it.
fn last<'a>(
    events: &'a [Stamped],
    what: &'static str,
    wanted: impl Fn(&Event) -> bool,
) -> Result<(&'a [Stamped], u64), Unmeasured> {
    let found = events.iter().rposition(|e| wanted(&e.event));
    let found = found.ok_or(Unmeasured::Missing(what))?;
    Ok((&events[..found], events[found].mono_ns))
}

/// How many members too many had the right to go on alone: in each generation, all but one of those
/// that won the claim, went live or went solo (invariant I4).
pub(super) fn split_brains(members: &[(&'static str, Vec<Stamped>)]) -> u64 {
    let mut alone: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, events) in members {
        let mut mine: Vec<u64> = Vec::new();
        for told in events {
            let (Event::ClaimWon {
                generation: survived,
            }
            | Event::Live {
                generation: survived,
                ..
            }
            | Event::Solo {
                generation: survived,
            }) = told.event
            else {
                continue;
            };
            if !mine.contains(&survived) {
                mine.push(survived);
            }
        }
        for generation in mine {
            *alone.entry(generation).or_default() += 1;
        }
    }
    alone.values().map(|members| members - 1).sum()
}

/// How many divergences were reported.
pub(super) fn divergences(members: &[(&'static str, Vec<Stamped>)]) -> u64 {
    let all = members.iter().flat_map(|(_, events)| events);
    all.filter(|e| matches!(e.event, Event::Diverged { .. }))
        .count() as u64
}

/// The checks of every scenario: if there is a client, its answers are 1, 2, 3, … on one connection; no
/// member went on alone beside another; and the executions never differed.
pub(super) fn common(observation: &Observation) -> Vec<String> {
    let mut violations = match &observation.client {
        Some(record) => answers(record),
        None => Vec::new(),
    };
    violations.extend(observation.unread.iter().cloned());
    let split = split_brains(&observation.members);
    if split > 0 {
        violations.push(format!(
            "split brain: {split} member(s) too many went on alone"
        ));
    }
    for (name, events) in &observation.members {
        for told in events {
            if let Event::Diverged { position, .. } = told.event {
                violations.push(format!("the {name} diverged at position {position}"));
            }
        }
    }
    violations
}

fn answers(record: &Record) -> Vec<String> {
    let mut violations = Vec::new();
    let mut due = 1;
    for answer in &record.answers {
        if answer.value != due && violations.len() < VIOLATIONS_LIMIT {
            violations.push(format!("answer {} came where {due} was due", answer.value));
        }
        // Only the first answer that is wrong counts as a finding, not all that follow it.
        due = answer.value.saturating_add(1);
    }
    let after = record.answers.len();
    match &record.end {
        End::Told => {}
        End::Broken(why) => {
            violations.push(format!("the connection broke after {after} answers: {why}"))
        }
        End::Unexpected(what) => violations.push(format!(
            "after {after} answers came an unexpected one: {what}"
        )),
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn record(values: &[i64]) -> Record {
        let answer = |(i, &value): (usize, &i64)| Answer {
            sent_ns: i as u64 * 100,
            answered_ns: i as u64 * 100 + 50,
            value,
        };
        Record {
            answers: values.iter().enumerate().map(answer).collect(),
            end: End::Told,
        }
    }

    fn observation(record: Record) -> Observation {
        Observation {
            members: vec![("primary", vec![]), ("backup", vec![])],
            client: Some(record),
            ..Observation::default()
        }
    }

    fn at(mono_ns: u64, event: Event) -> Stamped {
        Stamped { mono_ns, event }
    }

    fn survivor() -> Vec<Stamped> {
        let reason = "closed".to_owned();
        vec![
            at(10, samples::joined(1)),
            at(1_100, Event::Suspect { reason }),
            at(1_300, samples::caught_up()),
            at(1_700, Event::ClaimWon { generation: 1 }),
            at(2_500, samples::live(1)),
        ]
    }

    #[test]
    fn counting_without_a_fault_is_clean() {
        let good = record(&[1, 2, 3, 4]);
        let expected = Tally {
            acked: 4,
            ..Tally::default()
        };
        assert_eq!(Tally::of(&good), expected);
        assert_eq!(common(&observation(good)), [] as [String; 0]);
    }

    #[test]
    fn a_gap_is_lost_numbers() {
        let gap = record(&[1, 2, 5, 6]);
        assert_eq!((Tally::of(&gap).lost, Tally::of(&gap).repeated), (2, 0));
        let violations = common(&observation(gap));
        assert_eq!(violations, ["answer 5 came where 3 was due"]);
    }

    #[test]
    fn a_count_that_does_not_begin_at_one_is_a_gap() {
        assert_eq!(Tally::of(&record(&[3, 4])).lost, 2);
        assert_eq!(common(&observation(record(&[3, 4]))).len(), 1);
    }

    #[test]
    fn a_number_answered_again_is_repeated() {
        let repeat = record(&[1, 2, 2, 3]);
        assert_eq!(
            (Tally::of(&repeat).lost, Tally::of(&repeat).repeated),
            (0, 1)
        );
        let violations = common(&observation(repeat));
        assert_eq!(violations, ["answer 2 came where 3 was due"]);
        // If the guest forgets its state, every number that comes again counts.
        assert_eq!(Tally::of(&record(&[1, 2, 3, 1, 2, 3, 4])).repeated, 3);
        assert_eq!(Tally::of(&record(&[1, i64::MIN, 2])).repeated, 1);
    }

    #[test]
    fn a_broken_connection_is_a_reconnect_and_a_violation() {
        let mut broken = record(&[1, 2]);
        broken.end = End::Broken("reset".into());
        assert_eq!(Tally::of(&broken).reconnects, 1);
        let violations = common(&observation(broken));
        assert_eq!(violations, ["the connection broke after 2 answers: reset"]);
    }

    #[test]
    fn an_unexpected_answer_is_a_violation() {
        let mut odd = record(&[1]);
        odd.end = End::Unexpected("-ERR".into());
        assert_eq!(Tally::of(&odd).reconnects, 0);
        assert!(common(&observation(odd))[0].contains("-ERR"));
    }

    #[test]
    fn many_wrong_answers_are_reported_but_not_without_end() {
        let wrong = record(&[7; 1000]);
        assert_eq!(common(&observation(wrong)).len(), VIOLATIONS_LIMIT);
    }

    #[test]
    fn the_longest_gap_is_between_answers() {
        let mut late = record(&[1, 2, 3]);
        late.answers[2].answered_ns = 1_150;
        assert_eq!(longest_gap_ns(&late.answers), Some(1_000));
        assert_eq!(longest_gap_ns(&late.answers[..1]), None);
    }

    #[test]
    fn a_failover_is_split_into_its_steps() {
        let measured = Failover::measure(1_000, &survivor()).unwrap();
        let expected = Failover {
            detect: 100,
            catch_up: 200,
            arbitrate: 400,
            go_live: 800,
            vmm: 1_500,
        };
        assert_eq!(measured, expected);
    }

    #[test]
    fn suspicions_withdrawn_before_or_repeated_after_do_not_count() {
        let mut events = survivor();
        let suspect = |mono_ns| {
            let reason = "silence".to_owned();
            at(mono_ns, Event::Suspect { reason })
        };
        events.insert(1, suspect(500));
        events.insert(4, suspect(1_350));
        assert_eq!(Failover::measure(1_000, &events).unwrap().detect, 100);
    }

    #[test]
    fn a_failover_with_a_missing_or_early_step_is_refused() {
        for missing in 1..survivor().len() {
            let mut events = survivor();
            events.remove(missing);
            let refusal = Failover::measure(1_000, &events).unwrap_err().to_string();
            assert!(refusal.contains("did not"), "{refusal}");
        }
        let refusal = Failover::measure(1_200, &survivor())
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("'detect' ended before"), "{refusal}");
    }

    #[test]
    fn two_members_alone_in_one_generation_are_a_split_brain() {
        let primary = vec![
            at(1, Event::Started { generation: 1 }),
            at(1_600, samples::solo(1)),
        ];
        let both = [("primary", primary.clone()), ("backup", survivor())];
        assert_eq!(split_brains(&both), 1);
        assert_eq!(split_brains(&both[..1]), 0);
        assert_eq!(split_brains(&both[1..]), 0, "claim and live are one member");

        let next = vec![at(9, Event::ClaimWon { generation: 2 })];
        let later = [("backup", survivor()), ("second", next)];
        assert_eq!(split_brains(&later), 0, "another generation is no split");

        let mut observed = observation(record(&[1]));
        observed.members = both.to_vec();
        assert!(common(&observed)[0].starts_with("split brain"));
    }

    #[test]
    fn events_that_cannot_be_read_are_told() {
        let mut observed = observation(record(&[1]));
        observed.unread.push("the backup's events: bad".into());
        assert_eq!(common(&observed), ["the backup's events: bad"]);
    }

    #[test]
    fn a_divergence_is_counted_and_told_with_its_position() {
        let mut observed = observation(record(&[1]));
        observed.members[1].1.push(at(5, samples::diverged(4_711)));
        assert_eq!(divergences(&observed.members), 1);
        assert_eq!(common(&observed), ["the backup diverged at position 4711"]);
    }
}
