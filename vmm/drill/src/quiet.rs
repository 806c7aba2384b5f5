//! Scenario quiet: nothing fails for the given time, and so nothing may happen.

use std::time::Duration;

use super::Scenario;
use super::ends::{ends, suspicions};
use super::one_side::{ANSWERS_AFTER, LIMIT};
use super::stage::{BACKUP, Guest, PRIMARY, RunError, Stage};
use super::verdict::Observation;
use lockstep_events::{Event, Stamped};

/// The scenario's entry in the list.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "quiet",
    about: "nothing is done to a pair, for --minutes, with --mem of memory and --busy processes beside it; nobody may be suspected or go on alone, then a client is served, and `lockstep stop` ends both sides",
    client: true,
    served: true,
    chain: false,
    play,
    check,
};

/// How long it is quiet by default.
pub(super) const UNLESS_TOLD: Duration = Duration::from_secs(5);

fn play(stage: &mut Stage) -> Result<(), RunError> {
    let pair = stage.start_pair(Guest::Server)?;
    stage.await_guest()?;
    if stage.happens_within(stage.quiet, is_trouble)? {
        return Ok(());
    }
    stage.start_client()?;
    stage.wait_for_answers(ANSWERS_AFTER, LIMIT)?;
    stage.finish_client();
    stage.command(&["stop", "--vm", "drill"])?;
    stage.await_end(PRIMARY, pair.primary)?;
    stage.await_end(BACKUP, pair.backup)
}

/// Events that must not happen. The first of them ends the quiet.
fn is_trouble(event: &Event) -> bool {
    matches!(
        event,
        Event::Suspect { .. } | Event::BackupLost { .. } | Event::Live { .. } | Event::Solo { .. }
    )
}

fn check(seen: &Observation) -> Vec<String> {
    let mut violations = suspicions(seen, u64::MAX);
    violations.extend(ends(
        seen,
        None,
        &[("command", 0), (PRIMARY, 0), (BACKUP, 0)],
        0,
    ));
    let answers = seen.answers().len() as u64;
    if answers < ANSWERS_AFTER {
        violations.push(format!(
            "the client had {answers} answers after the quiet, {ANSWERS_AFTER} were due"
        ));
    }
    violations
}

/// The longest silence that a member reported of its peer, in nanoseconds.
pub(super) fn longest_silence_ns(members: &[(&'static str, Vec<Stamped>)]) -> Option<u64> {
    let events = members.iter().flat_map(|(_, events)| events);
    let silences = events.filter_map(|e| match e.event {
        Event::Silence { longest_ms } => Some((longest_ms * 1e6) as u64),
        _ => None,
    });
    silences.max()
}

#[cfg(test)]
mod tests {
    use super::super::client::{Answer, End, Record};
    use super::super::samples;
    use super::*;

    fn good() -> Observation {
        let answer = |value: u64| Answer {
            sent_ns: value,
            answered_ns: value + 1,
            value: value as i64,
        };
        Observation {
            members: vec![(PRIMARY, vec![]), (BACKUP, vec![])],
            statuses: vec![("command", Some(0)), (PRIMARY, Some(0)), (BACKUP, Some(0))],
            client: Some(Record {
                answers: (1..=ANSWERS_AFTER).map(answer).collect(),
                end: End::Told,
            }),
            ..Observation::default()
        }
    }

    fn tell(run: &mut Observation, member: usize, event: Event) {
        run.members[member].1.push(Stamped { mono_ns: 5, event });
    }

    #[test]
    fn a_run_in_which_nothing_happened_passes() {
        let mut run = good();
        for longest_ms in [41.5, 180.0] {
            tell(&mut run, 1, Event::Silence { longest_ms });
        }
        assert_eq!(check(&run), [] as [String; 0]);
        assert_eq!(longest_silence_ns(&run.members), Some(180_000_000));
    }

    #[test]
    fn a_failover_out_of_nothing_is_found() {
        let reason = "it was silent for 254 ms".to_owned();
        let mut run = good();
        tell(
            &mut run,
            1,
            Event::Suspect {
                reason: reason.clone(),
            },
        );
        let found = check(&run);
        assert!(found[0].contains("silent for 254 ms"), "{found:?}");
        let mut run = good();
        let solo = samples::solo(1);
        tell(&mut run, 0, Event::BackupLost { reason });
        tell(&mut run, 0, solo);
        assert_eq!(check(&run).len(), 2);
    }

    #[test]
    fn an_end_that_is_none_and_too_few_answers_are_found() {
        let mut run = good();
        run.statuses[0].1 = Some(1);
        assert!(check(&run)[0].contains("status Some(1)"));
        let mut run = good();
        run.client = None;
        assert!(check(&run)[0].contains("0 answers after the quiet"));
    }
}
