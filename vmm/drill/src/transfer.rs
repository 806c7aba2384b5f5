//! Scenarios in which a backup joins a VM that runs: how long that stops the VM, and what happens when
//! a member dies meanwhile.

use std::thread;
use std::time::Duration;

use super::Scenario;
use super::ends::{alone, served, statuses};
use super::members::MemberId;
use super::stage::{BACKUP, PRIMARY, RunError, Stage};
use super::verdict::{Observation, longest_gap_ns};
use lockstep_events::{Event, Stamped};

/// The guest's memory, MiB; how much it writes in a second, MiB; and into how many MiB of it.
const MEMORY_MIB: u32 = 256;
const CHURN_MIB: u32 = 20;
const CHURN_POOL_MIB: u32 = 48;
/// How many answers come before the backup joins, and how many after it has joined or failed to join.
const ANSWERS_BEFORE: u64 = 200;
const ANSWERS_AFTER: u64 = 200;
/// How long answers and a copy may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest time for which a machine may be stopped; VMware's FT VMotion promises the same.
const PAUSE_LIMIT: Duration = Duration::from_secs(1);
/// When a member is killed after there was room for the copy, in microseconds: a copy takes about this
/// long.
const KILL_AFTER_US: std::ops::RangeInclusive<u64> = 0..=900_000;
/// The third member, and the exit status of a member that could not join.
const SECOND: &str = "backup-2";
const NOT_JOINED: i32 = 1;

pub(super) const JOIN: Scenario = Scenario {
    name: "join",
    about: "a primary of 256 MiB that writes 20 MiB a second runs alone; a backup joins it; the guest is stopped for a moment and the client waits no longer than that",
    client: true,
    served: true,
    chain: false,
    play: |stage| {
        let (_, backup) = begin(stage)?;
        let joined = |e: &Event| matches!(e, Event::Joined { .. });
        stage.wait_for(backup, "the backup joined", LIMIT, joined)?;
        go_on(stage)
    },
    check: |seen| {
        let mut violations = alone(seen, None);
        violations.extend(statuses(seen, &[]));
        violations.extend(not_protected(seen, PRIMARY, 2));
        violations.extend(too_long(seen));
        violations
    },
};

pub(super) const KILL_JOINER: Scenario = Scenario {
    name: "kill-joiner",
    about: "a backup that joins is killed at a random moment of the copy; the primary runs on by the right that it has, or wins the one that it gave, and the next backup joins it",
    client: true,
    served: true,
    chain: false,
    play: |stage| {
        let (primary, backup) = begin(stage)?;
        let delay = Duration::from_micros(stage.random.within(KILL_AFTER_US));
        // This sleep waits for no event: its length is the random moment.
        thread::sleep(delay);
        stage.kill(BACKUP, backup)?;
        go_on(stage)?;
        let second = stage.join(SECOND, 1)?;
        await_joined(stage, primary, second)?;
        go_on(stage)
    },
    check: |seen| {
        let armed = armed(seen, PRIMARY);
        let mut violations = statuses(seen, &[]);
        // The source that armed the joiner must win its right back. In no case may another member go on
        // alone.
        violations.extend(alone(seen, armed.then_some(PRIMARY)));
        violations.extend(protected_later(seen, PRIMARY));
        violations
    },
};

pub(super) const KILL_SOURCE: Scenario = Scenario {
    name: "kill-source",
    about: "a primary that is being copied is killed at a random moment; a backup that was armed goes live and the next one joins it, one that was not ends with status 1 and is never live: the VM is down",
    client: false,
    served: true,
    chain: false,
    play: |stage| {
        let (primary, backup) = begin(stage)?;
        let delay = Duration::from_micros(stage.random.within(KILL_AFTER_US));
        // This sleep waits for no event: its length is the random moment.
        thread::sleep(delay);
        // The VM may go down, and the client would get no more answers.
        stage.finish_client();
        stage.kill(PRIMARY, primary)?;
        if stage.ends_or_tells(backup, BACKUP, LIMIT, |e| matches!(e, Event::Live { .. }))? {
            return Ok(());
        }
        let second = stage.join(SECOND, 0)?;
        await_joined(stage, backup, second)
    },
    check: |seen| {
        let armed = seen
            .events(BACKUP)
            .iter()
            .any(|e| matches!(e.event, Event::Joined { .. }));
        let mut violations = alone(seen, armed.then_some(BACKUP));
        match armed {
            true => {
                violations.extend(statuses(seen, &[]));
                violations.extend(protected_later(seen, BACKUP));
            }
            false => violations.extend(statuses(seen, &[(BACKUP, NOT_JOINED)])),
        }
        violations
    },
};

/// A primary that runs alone and serves a client, and a backup that has room for the copy.
fn begin(stage: &mut Stage) -> Result<(MemberId, MemberId), RunError> {
    let primary = stage.start_alone(MEMORY_MIB)?;
    stage.await_guest()?;
    stage.churn(CHURN_MIB, CHURN_POOL_MIB)?;
    stage.start_client()?;
    stage.wait_for_answers(ANSWERS_BEFORE, LIMIT)?;
    let backup = stage.join(BACKUP, 1)?;
    let joining = |e: &Event| matches!(e, Event::Joining { .. });
    stage.wait_for(backup, "there was room for the copy", LIMIT, joining)?;
    Ok((primary, backup))
}

fn await_joined(stage: &mut Stage, source: MemberId, joiner: MemberId) -> Result<(), RunError> {
    let joined = |e: &Event| matches!(e, Event::Joined { .. });
    stage.wait_for(joiner, "the next backup joined", LIMIT, joined)?;
    let protected = |e: &Event| matches!(e, Event::Protected { .. });
    stage.wait_for(source, "the survivor was protected", LIMIT, protected)?;
    Ok(())
}

fn go_on(stage: &mut Stage) -> Result<(), RunError> {
    let enough = stage.answers() + ANSWERS_AFTER;
    stage.wait_for_answers(enough, LIMIT)?;
    Ok(())
}

/// Had a member armed its backup when it lost it?
fn armed(seen: &Observation, name: &str) -> bool {
    let lost = |e: &&Stamped| matches!(e.event, Event::BackupLost { .. });
    let mut events = seen.events(name).iter().take_while(|e| !lost(e));
    events.any(|e| matches!(e.event, Event::Protected { .. }))
}

fn not_protected(seen: &Observation, name: &str, generation: u64) -> Option<String> {
    let protected = Event::Protected { generation };
    let found = seen.events(name).iter().any(|e| e.event == protected);
    (!found).then(|| format!("the {name} was not protected in generation {generation}"))
}

/// A violation if the second backup did not join the survivor.
fn protected_later(seen: &Observation, name: &str) -> Option<String> {
    let joined = seen
        .events(SECOND)
        .iter()
        .any(|e| matches!(e.event, Event::Joined { .. }));
    (!joined).then(|| format!("no second backup joined the {name}"))
}

/// Violations of the time limits.
fn too_long(seen: &Observation) -> Vec<String> {
    let limit = PAUSE_LIMIT.as_millis();
    let mut violations = Vec::new();
    let Some(pause) = pause_ns(seen) else {
        return vec!["the machine was not copied".to_owned()];
    };
    if u128::from(pause) > PAUSE_LIMIT.as_nanos() {
        violations.push(format!("the machine was stopped for more than {limit} ms"));
    }
    let gap = longest_gap_ns(seen.answers()).unwrap_or(u64::MAX);
    if u128::from(gap) > PAUSE_LIMIT.as_nanos() {
        violations.push(format!("the client waited for more than {limit} ms"));
    }
    let joined = seen
        .events(BACKUP)
        .iter()
        .find(|e| matches!(e.event, Event::Joined { .. }));
    let joined = joined.map_or(u64::MAX, |e| e.mono_ns);
    violations.extend(served(seen, joined, ANSWERS_AFTER, "the backup joined"));
    violations
}

/// How long a machine was stopped to be copied, in nanoseconds; if it happened more than once, the last
/// time.
pub(super) fn pause_ns(seen: &Observation) -> Option<u64> {
    let of = |(_, events): &(&str, Vec<Stamped>)| pause_of(events);
    seen.members.iter().filter_map(of).next_back()
}

/// The same for one member.
pub(super) fn pause_of(events: &[Stamped]) -> Option<u64> {
    let pause = |e: &Stamped| match e.event {
        Event::Copied { pause_ms, .. } => Some((pause_ms * 1e6) as u64),
        _ => None,
    };
    events.iter().filter_map(pause).next_back()
}

#[cfg(test)]
mod tests {
    use super::super::client::{Answer, End, Record};
    use super::super::samples;
    use super::*;

    fn at(mono_ns: u64, event: Event) -> Stamped {
        Stamped { mono_ns, event }
    }

    fn protected(generation: u64) -> Event {
        Event::Protected { generation }
    }

    fn joined() -> Observation {
        let answer = |value: i64| Answer {
            sent_ns: 5_000,
            answered_ns: 5_000 + value as u64,
            value,
        };
        Observation {
            members: vec![
                (
                    PRIMARY,
                    vec![
                        at(1, Event::Started { generation: 1 }),
                        at(2_000, samples::copied(3.5)),
                        at(3_000, protected(2)),
                    ],
                ),
                (
                    BACKUP,
                    vec![
                        at(1_000, samples::joining(1)),
                        at(3_001, samples::joined(2)),
                    ],
                ),
            ],
            client: Some(Record {
                answers: (1..=ANSWERS_AFTER as i64).map(answer).collect(),
                end: End::Told,
            }),
            ..Observation::default()
        }
    }

    #[test]
    fn a_backup_that_joined_passes_and_its_pause_is_told() {
        assert_eq!((JOIN.check)(&joined()), [] as [String; 0]);
        assert_eq!(pause_ns(&joined()), Some(3_500_000));
    }

    #[test]
    fn a_stop_or_a_wait_that_is_too_long_and_a_missing_copy_are_found() {
        let mut run = joined();
        run.members[0].1[1].event = samples::copied(1_001.0);
        assert!((JOIN.check)(&run)[0].contains("stopped for more"));
        run.members[0].1.remove(1);
        assert_eq!((JOIN.check)(&run)[0], "the machine was not copied");
        let mut run = joined();
        run.client.as_mut().unwrap().answers[199].answered_ns += PAUSE_LIMIT.as_nanos() as u64;
        assert!((JOIN.check)(&run)[0].contains("client waited"));
        let mut run = joined();
        run.members[0].1.pop();
        assert!((JOIN.check)(&run)[0].contains("not protected in generation 2"));
    }

    /// A run in which the joiner was killed, before or after it was armed.
    fn joiner_killed(armed: bool) -> Observation {
        let mut run = joined();
        run.killed = Some((BACKUP, 4_000));
        run.members
            .push((SECOND, vec![at(9_000, samples::joined(3))]));
        run.members[0].1[2].mono_ns = match armed {
            true => 3_000,
            false => 9_000,
        };
        let reason = "its connection closed".to_owned();
        let lost = at(4_050, Event::BackupLost { reason });
        match armed {
            true => {
                let solo = at(4_100, samples::solo(2));
                run.members[0]
                    .1
                    .extend([lost, solo, at(9_000, protected(3))]);
            }
            false => run.members[0].1.insert(2, lost),
        }
        run
    }

    #[test]
    fn a_joiners_death_is_survived_with_and_without_a_claim() {
        for armed in [false, true] {
            assert_eq!(
                (KILL_JOINER.check)(&joiner_killed(armed)),
                [] as [String; 0]
            );
        }
    }

    #[test]
    fn a_claim_that_nobody_needed_and_a_missing_one_are_found() {
        let mut run = joiner_killed(false);
        run.members[0].1.push(at(4_100, samples::solo(2)));
        assert_eq!((KILL_JOINER.check)(&run), ["the primary went on alone"]);
        let mut run = joiner_killed(true);
        run.members[0]
            .1
            .retain(|e| !matches!(e.event, Event::Solo { .. }));
        assert_eq!(
            (KILL_JOINER.check)(&run),
            ["the primary did not go on alone"]
        );
        let mut run = joiner_killed(true);
        run.members.pop();
        assert!((KILL_JOINER.check)(&run)[0].contains("no second backup"));
    }

    /// A run in which the source was killed, before or after it had armed the backup.
    fn source_killed(armed: bool) -> Observation {
        let mut run = joined();
        run.killed = Some((PRIMARY, 4_000));
        match armed {
            true => {
                let live = samples::live(2);
                run.members[1].1.push(at(5_000, live));
                run.members
                    .push((SECOND, vec![at(9_000, samples::joined(3))]));
            }
            false => {
                run.members[1].1.pop();
                run.statuses = vec![(BACKUP, Some(NOT_JOINED))];
            }
        }
        run
    }

    #[test]
    fn a_sources_death_ends_as_the_rights_prescribe() {
        for armed in [false, true] {
            assert_eq!(
                (KILL_SOURCE.check)(&source_killed(armed)),
                [] as [String; 0]
            );
        }
    }

    #[test]
    fn a_backup_that_goes_live_without_a_right_or_stays_down_with_one_is_found() {
        let mut run = source_killed(false);
        let live = samples::live(2);
        run.members[1].1.push(at(5_000, live));
        assert_eq!((KILL_SOURCE.check)(&run), ["the backup went on alone"]);
        let mut run = source_killed(true);
        run.members[1].1.pop();
        assert_eq!(
            (KILL_SOURCE.check)(&run),
            ["the backup did not go on alone"]
        );
        let mut run = source_killed(false);
        run.statuses = vec![(BACKUP, Some(0))];
        assert!((KILL_SOURCE.check)(&run)[0].contains("where 1 was due"));
        let mut run = source_killed(true);
        run.members.pop();
        assert!((KILL_SOURCE.check)(&run)[0].contains("no second backup"));
    }
}
