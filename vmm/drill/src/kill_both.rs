//! Scenario kill-both: both members are killed, and supervisors restart both.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::Scenario;
use super::ends::{alone, booted_again, statuses, suspicions};
use super::one_side::{LIMIT, begin};
use super::stage::{BACKUP, PRIMARY, RESTARTS, RunError, Stage};
use super::verdict::Observation;
use lockstep_events::{Event, Stamped};

/// The scenario's entry in the list.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill-both",
    about: "both members are killed at the same moment, then `lockstep member` is started on both hosts; the VM is down, nobody boots a second history, and its generation stays open",
    client: true,
    served: true,
    chain: false,
    play,
    check,
};

/// How long the restarted members are watched.
const WATCHED: Duration = Duration::from_millis(500);

fn play(stage: &mut Stage) -> Result<(), RunError> {
    stage.separate_hosts()?;
    let pair = begin(stage)?;
    // The VM goes down, and the client would get no more answers.
    stage.finish_client();
    // They are stopped first, so that neither notices the other's end.
    stage.send(pair.primary, Signal::STOP)?;
    stage.send(pair.backup, Signal::STOP)?;
    stage.kill(PRIMARY, pair.primary)?;
    stage.kill(BACKUP, pair.backup)?;
    for id in stage.start_members()? {
        let has_role = |e: &Event| matches!(e, Event::Connecting { .. } | Event::Waiting { .. });
        stage.wait_for(id, "the restarted member found its role", LIMIT, has_role)?;
    }
    // This sleep waits for no event: nothing must happen in this time.
    thread::sleep(WATCHED);
    Ok(())
}

fn check(seen: &Observation) -> Vec<String> {
    let mut violations = alone(seen, None);
    violations.extend(suspicions(seen, u64::MAX));
    violations.extend(statuses(seen, &[]));
    violations.extend(booted_again(seen, &RESTARTS));
    for name in RESTARTS {
        let backup = |e: &Stamped| matches!(e.event, Event::Connecting { .. });
        if !seen.events(name).iter().any(backup) {
            violations.push(format!("the {name} did not become a backup"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn down() -> Observation {
        let connecting = || {
            vec![Stamped {
                mono_ns: 5,
                event: samples::connecting(),
            }]
        };
        Observation {
            members: vec![
                (PRIMARY, vec![]),
                (BACKUP, vec![]),
                (RESTARTS[0], connecting()),
                (RESTARTS[1], connecting()),
            ],
            killed: Some((BACKUP, 1)),
            records: vec!["1.open".to_owned()],
            ..Observation::default()
        }
    }

    #[test]
    fn a_vm_that_stays_down_passes() {
        assert_eq!(check(&down()), [] as [String; 0]);
    }

    #[test]
    fn a_second_history_is_found_on_either_host() {
        for restarted in [2, 3] {
            let mut booted = down();
            booted.members[restarted].1[0].event = Event::Started { generation: 2 };
            let violations = check(&booted);
            assert_eq!(violations[0], "a second history was booted");
            assert!(violations[1].contains("did not become a backup"));
            let mut live = down();
            live.members[restarted].1[0].event = samples::live(1);
            assert!(check(&live)[0].contains("went on alone"));
            let mut printed = down();
            printed.printed = vec![(RESTARTS[restarted - 2], "kv: ready\n".to_owned())];
            assert_eq!(check(&printed), ["a second history was booted"]);
        }
    }

    #[test]
    fn a_generation_that_was_closed_or_followed_and_a_member_that_ended_are_found() {
        for record in ["1.close", "2.open"] {
            let mut run = down();
            run.records.push(record.to_owned());
            assert!(check(&run)[0].contains("is to stay open"));
        }
        let mut ended = down();
        ended.statuses = vec![(RESTARTS[0], Some(0))];
        assert!(check(&ended)[0].contains("was not to"));
    }
}
