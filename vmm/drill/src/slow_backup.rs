//! Scenario slow-backup: the backup gets a fraction of the processor, and the primary is throttled.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::Scenario;
use super::ends::{ends, suspicions};
use super::stage::{BACKUP, Guest, PRIMARY, RunError, Stage};
use super::verdict::Observation;
use lockstep_events::Event;

/// The scenario's entry in the list.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "slow-backup",
    about: "the backup is stopped and continued in a rhythm, so that it runs a quarter of the time, while the guest computes; nobody is suspected, and throttling the primary holds the lag near its target of 100 ms",
    client: false,
    served: false,
    chain: false,
    play,
    check,
};

/// How long the backup is stopped at a time, and then runs: well below the silence that causes a
/// suspicion.
const STOPPED: Duration = Duration::from_millis(30);
const RUNNING: Duration = Duration::from_millis(10);
/// How often it is stopped.
const ROUNDS: u32 = 80;
/// The throttle gets this much time to settle; after that the lag is judged.
const SETTLED_NS: u64 = 1_200_000_000;
/// Twice the target: a reserve for a stop of the backup and for a heartbeat until the lag is reported.
const LAG_LIMIT_MS: f64 = 200.0;

fn play(stage: &mut Stage) -> Result<(), RunError> {
    let pair = stage.start_pair(Guest::Threads)?;
    stage.strike(BACKUP, pair.backup, Signal::STOP)?;
    for _ in 0..ROUNDS {
        // These sleeps wait for no event: the rhythm is the subject of this run.
        thread::sleep(STOPPED);
        stage.send(pair.backup, Signal::CONT)?;
        thread::sleep(RUNNING);
        stage.send(pair.backup, Signal::STOP)?;
    }
    stage.send(pair.backup, Signal::CONT)
}

fn check(seen: &Observation) -> Vec<String> {
    let mut violations = suspicions(seen, u64::MAX);
    violations.extend(ends(seen, None, &[], 0));
    let began = seen.killed.map_or(u64::MAX, |(_, at)| at);
    let lags = || {
        seen.events(PRIMARY).iter().filter_map(|e| match e.event {
            Event::Lag {
                lag_ms,
                throttle_percent,
            } => Some((e.mono_ns, lag_ms, throttle_percent)),
            _ => None,
        })
    };
    if !lags().any(|(_, _, throttle)| throttle > 0) {
        violations.push("the primary was never throttled".to_owned());
    }
    let settled = began.saturating_add(SETTLED_NS);
    let late = lags().filter(|(at, ..)| *at >= settled);
    let worst = late.map(|(_, lag, _)| lag).fold(0.0, f64::max);
    if worst > LAG_LIMIT_MS {
        violations.push(format!(
            "the backup was {worst:.0} ms behind with the throttle settled, {LAG_LIMIT_MS:.0} are allowed"
        ));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_events::Stamped;

    fn seen(lags: &[(u64, f64, u32)]) -> Observation {
        let lag = |&(ms, lag_ms, throttle_percent)| Stamped {
            mono_ns: ms * 1_000_000,
            event: Event::Lag {
                lag_ms,
                throttle_percent,
            },
        };
        Observation {
            members: vec![(PRIMARY, lags.iter().map(lag).collect()), (BACKUP, vec![])],
            killed: Some((BACKUP, 0)),
            ..Observation::default()
        }
    }

    #[test]
    fn a_lag_that_is_held_passes_whatever_it_was_at_first() {
        let held = seen(&[(300, 400.0, 90), (1300, 120.0, 90), (2000, 40.0, 85)]);
        assert_eq!(check(&held), [] as [String; 0]);
    }

    #[test]
    fn no_throttle_a_lag_that_stays_and_a_suspicion_are_found() {
        assert_eq!(check(&seen(&[(1300, 60.0, 0)])).len(), 1);
        assert_eq!(check(&seen(&[])), ["the primary was never throttled"]);
        let stays = check(&seen(&[(1300, 201.0, 90)]));
        assert!(stays[0].contains("201 ms behind"), "{stays:?}");
        let mut suspected = seen(&[(1300, 60.0, 5)]);
        let reason = "it was silent for 250 ms".to_owned();
        suspected.members[1].1.push(Stamped {
            mono_ns: 1,
            event: Event::Suspect { reason },
        });
        assert_eq!(check(&suspected).len(), 1);
    }
}
