//! Scenario kill-primary: SIGKILL to the primary while requests are under way.

use std::thread;
use std::time::Duration;

use super::Scenario;
use super::ends::{ends, suspicions};
use super::stage::{BACKUP, Guest, PRIMARY, RunError, Stage};
use super::verdict::{Failover, Observation};
use lockstep_events::Event;

/// The scenario's entry in the list.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill-primary",
    about: "a client counts with INCR; the primary's process is killed with SIGKILL at a random moment; the same connection must count on without a gap or a repeat",
    client: true,
    served: true,
    chain: false,
    play,
    check,
};

/// After how many answers the primary is killed.
const KILL_AFTER: std::ops::RangeInclusive<u64> = 200..=3000;
/// How long after that answer, in microseconds: as long as a few requests, so that every phase of a
/// request is hit.
const KILL_DELAY_US: std::ops::RangeInclusive<u64> = 0..=1000;
/// How many answers must follow the failover.
const ANSWERS_AFTER: u64 = 500;
/// How long the answers before the kill may take, and those after the failover.
const ANSWERS_LIMIT: Duration = Duration::from_secs(60);
/// How long the backup may take to go live.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

fn play(stage: &mut Stage) -> Result<(), RunError> {
    let kill_after = stage.random.within(KILL_AFTER);
    let kill_delay = Duration::from_micros(stage.random.within(KILL_DELAY_US));
    let pair = stage.start_pair(Guest::Server)?;
    stage.start_client()?;
    if !stage.wait_for_answers(kill_after, ANSWERS_LIMIT)? {
        // The client's record is judged all the same, and says why.
        return Ok(());
    }
    // This sleep waits for no event: its length is the random moment.
    thread::sleep(kill_delay);
    stage.kill(PRIMARY, pair.primary)?;
    stage.wait_for(pair.backup, "the backup went live", FAILOVER_LIMIT, |e| {
        matches!(e, Event::Live { .. })
    })?;
    let enough = stage.answers() + ANSWERS_AFTER;
    stage.wait_for_answers(enough, ANSWERS_LIMIT)?;
    Ok(())
}

fn check(observation: &Observation) -> Vec<String> {
    let Some((_, killed_ns)) = observation.killed else {
        return vec!["the primary could not be killed in mid-stream".to_owned()];
    };
    let mut violations = suspicions(observation, killed_ns);
    let survivor = observation.events(BACKUP);
    if let Err(reason) = Failover::measure(killed_ns, survivor) {
        violations.push(reason.to_string());
    }
    violations.extend(ends(observation, Some(BACKUP), &[], ANSWERS_AFTER));
    violations
}

#[cfg(test)]
mod tests {
    use super::super::client::{Answer, End, Record};
    use super::super::samples;
    use super::*;
    use lockstep_events::Stamped;

    const KILLED_NS: u64 = 1_000;
    const LIVE_NS: u64 = 5_000;

    fn good() -> Observation {
        let at = |mono_ns, event| Stamped { mono_ns, event };
        let reason = "closed".to_owned();
        let backup = vec![
            at(100, samples::joined(1)),
            at(2_000, Event::Suspect { reason }),
            at(3_000, samples::caught_up()),
            at(4_000, Event::ClaimWon { generation: 1 }),
            at(LIVE_NS, samples::live(1)),
        ];
        let answer = |value: i64| Answer {
            sent_ns: LIVE_NS,
            answered_ns: LIVE_NS + value as u64,
            value,
        };
        Observation {
            members: vec![(PRIMARY, vec![]), (BACKUP, backup)],
            killed: Some((PRIMARY, KILLED_NS)),
            client: Some(Record {
                answers: (1..=ANSWERS_AFTER as i64).map(answer).collect(),
                end: End::Told,
            }),
            ..Observation::default()
        }
    }

    #[test]
    fn a_good_failover_passes() {
        assert_eq!(check(&good()), [] as [String; 0]);
    }

    #[test]
    fn too_few_answers_after_the_failover_are_found() {
        let mut run = good();
        run.client.as_mut().unwrap().answers[0].answered_ns = LIVE_NS;
        assert_eq!(
            check(&run),
            ["499 answers came after the backup went on alone, 500 were due"]
        );
    }

    #[test]
    fn an_accusation_before_the_kill_is_found() {
        for member in 0..2 {
            let mut run = good();
            let reason = "silence".to_owned();
            let early = Stamped {
                mono_ns: KILLED_NS - 1,
                event: Event::Suspect { reason },
            };
            run.members[member].1.insert(0, early);
            let violations = check(&run);
            assert_eq!(violations.len(), 1, "{violations:?}");
            assert!(violations[0].contains("while both were alive"));
        }
    }

    #[test]
    fn a_backup_that_never_went_live_and_a_missing_kill_are_found() {
        let mut run = good();
        run.members[1].1.pop();
        let violations = check(&run);
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[0].contains("did not go live"));
        run.killed = None;
        assert_eq!(check(&run).len(), 1);
    }
}
