//! Scenarios cut-*: the primary dies between two steps of the protocol.
//!
//! If it dies while it has a backup, the backup goes live and the client notices nothing. If it dies on
//! its way to going on alone, its backup is dead already: the VM is down, and must not be booted a
//! second time.

use std::time::Duration;

use super::Scenario;
use super::ends::{alone, booted_again, failovers, served};
use super::stage::{BACKUP, Guest, PRIMARY, RESTART, RunError, Stage};
use super::verdict::Observation;
use lockstep_events::Event;

/// The primary dies when it passes its point for the n-th time: while requests are under way.
const PASSINGS: std::ops::RangeInclusive<u64> = 300..=900;
/// How many answers come before the backup is killed, and how many must follow a failover.
const ANSWERS: u64 = 200;
/// How long each step may take.
const LIMIT: Duration = Duration::from_secs(30);

/// All of them. They need a program that plants faults.
pub static SCENARIOS: [Scenario; 7] = [
    scenario(
        "cut-entry-logged",
        "the primary dies with a piece of the log made and not sent; the backup goes live",
        |stage| die_in_mid_stream(stage, "entry-logged"),
        check_paired,
    ),
    scenario(
        "cut-log-sent",
        "the primary dies with a piece of the log sent and not acknowledged; the backup goes live",
        |stage| die_in_mid_stream(stage, "log-sent"),
        check_paired,
    ),
    scenario(
        "cut-ack-received",
        "the primary dies with an acknowledgement received and nothing released; the backup goes live and emits it",
        |stage| die_in_mid_stream(stage, "ack-received"),
        check_paired,
    ),
    scenario(
        "cut-output-released",
        "the primary dies with an output released and the backup not told; the backup goes live and emits it again",
        |stage| die_in_mid_stream(stage, "output-released"),
        check_paired,
    ),
    scenario(
        "cut-claim-asked",
        "the backup is killed, then the primary dies as it asks for the test-and-set; the VM is down and is not booted again",
        |stage| die_on_the_way_alone(stage, "claim-asked"),
        check_silent,
    ),
    scenario(
        "cut-claim-won",
        "the backup is killed, then the primary dies with the test-and-set won; the VM is down and is not booted again",
        |stage| die_on_the_way_alone(stage, "claim-won"),
        check_silent,
    ),
    scenario(
        "cut-live-announced",
        "the backup is killed, then the primary dies as it goes on alone; the VM is down and is not booted again",
        |stage| die_on_the_way_alone(stage, "live-announced"),
        check_announced,
    ),
];

const fn scenario(
    name: &'static str,
    about: &'static str,
    play: fn(&mut Stage) -> Result<(), RunError>,
    check: fn(&Observation) -> Vec<String>,
) -> Scenario {
    Scenario {
        name,
        about,
        client: true,
        served: true,
        chain: false,
        play,
        check,
    }
}

fn die_in_mid_stream(stage: &mut Stage, point: &str) -> Result<(), RunError> {
    let cut = format!("{point}:{}", stage.random.within(PASSINGS));
    let pair = stage.start_pair_with(Guest::Server, &["--cut", &cut])?;
    stage.start_client()?;
    stage.await_end(PRIMARY, pair.primary)?;
    let live = |e: &Event| matches!(e, Event::Live { .. });
    stage.wait_for(pair.backup, "the backup went live", LIMIT, live)?;
    let enough = stage.answers() + ANSWERS;
    stage.wait_for_answers(enough, LIMIT)?;
    Ok(())
}

fn die_on_the_way_alone(stage: &mut Stage, point: &str) -> Result<(), RunError> {
    let pair = stage.start_pair_with(Guest::Server, &["--cut", point])?;
    stage.start_client()?;
    stage.wait_for_answers(ANSWERS, LIMIT)?;
    // The VM goes down, and the client would get no more answers.
    stage.finish_client();
    stage.kill(BACKUP, pair.backup)?;
    stage.await_end(PRIMARY, pair.primary)?;
    stage.restart()
}

/// The status with which a member ended by itself; an inner `None` stands for a signal.
fn status(seen: &Observation, name: &str) -> Option<Option<i32>> {
    let found = seen.statuses.iter().find(|(who, _)| *who == name);
    found.map(|(_, status)| *status)
}

fn check_paired(seen: &Observation) -> Vec<String> {
    let mut violations = not_cut(seen);
    violations.extend(alone(seen, Some(BACKUP)));
    for (name, at) in failovers(&seen.members) {
        let moment = format!("the {name} went on alone");
        violations.extend(served(seen, at, ANSWERS, &moment));
    }
    violations
}

/// The VM is down before its primary could say that it goes on alone.
fn check_silent(seen: &Observation) -> Vec<String> {
    check_down(seen, None)
}

/// The VM is down, and its primary said that it goes on alone.
fn check_announced(seen: &Observation) -> Vec<String> {
    check_down(seen, Some(PRIMARY))
}

fn check_down(seen: &Observation, survivor: Option<&'static str>) -> Vec<String> {
    let mut violations = not_cut(seen);
    violations.extend(alone(seen, survivor));
    if status(seen, RESTART) != Some(Some(2)) {
        violations.push("a second start was not refused with status 2".to_owned());
    }
    violations.extend(booted_again(seen, &[RESTART]));
    violations
}

fn not_cut(seen: &Observation) -> Vec<String> {
    match status(seen, PRIMARY) {
        Some(None) => Vec::new(),
        other => vec![format!("the primary did not die at its point ({other:?})")],
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{Answer, End, Record};
    use super::super::samples;
    use super::*;
    use lockstep_events::Stamped;

    fn seen(members: Vec<(&'static str, Vec<Event>)>) -> Observation {
        let at = |event| Stamped { mono_ns: 5, event };
        let answer = |value: i64| Answer {
            sent_ns: 6,
            answered_ns: 6,
            value,
        };
        Observation {
            members: members
                .into_iter()
                .map(|(name, kinds)| (name, kinds.into_iter().map(at).collect()))
                .collect(),
            statuses: vec![(PRIMARY, None), (RESTART, Some(2))],
            records: vec!["1.claim".to_owned(), "1.open".to_owned()],
            client: Some(Record {
                answers: (1..=ANSWERS as i64).map(answer).collect(),
                end: End::Told,
            }),
            ..Observation::default()
        }
    }

    fn live() -> Vec<(&'static str, Vec<Event>)> {
        let live = samples::live(1);
        vec![(BACKUP, vec![live])]
    }

    #[test]
    fn a_backup_that_takes_over_and_a_vm_that_stays_down_pass() {
        let nothing = [] as [String; 0];
        assert_eq!(check_paired(&seen(live())), nothing);
        assert_eq!(check_silent(&seen(vec![])), nothing);
        let solo = samples::solo(1);
        let said = seen(vec![(PRIMARY, vec![solo])]);
        assert_eq!(check_announced(&said), nothing);
        assert_eq!(
            check_silent(&said),
            ["the primary went on alone"],
            "it died before"
        );
    }

    #[test]
    fn a_backup_that_does_not_and_a_client_not_served_are_found() {
        assert_eq!(
            check_paired(&seen(vec![])),
            ["the backup did not go on alone"]
        );
        let mut starved = seen(live());
        starved.client.as_mut().unwrap().answers.pop();
        assert!(check_paired(&starved)[0].starts_with("199 answers"));
    }

    #[test]
    fn a_second_history_and_a_primary_that_was_not_cut_are_found() {
        let booted = Event::Started { generation: 2 };
        let mut second = seen(vec![(RESTART, vec![booted])]);
        assert_eq!(check_silent(&second), ["a second history was booted"]);
        second.statuses = vec![(PRIMARY, Some(0)), (RESTART, Some(0))];
        assert_eq!(check_silent(&second).len(), 3);
    }
}
