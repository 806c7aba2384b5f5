//! Scenarios in which one side dies, hangs or is told to go, and the other goes on.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::Scenario;
use super::events::Kind;
use super::stage::{BACKUP, Guest, PRIMARY, Pair, RunError, Stage};
use super::verdict::{Failover, Observation};

/// How many answers come before it happens, and how many must follow.
const ANSWERS_BEFORE: std::ops::RangeInclusive<u64> = 100..=600;
const ANSWERS_AFTER: u64 = 200;
/// How long the moment lies behind that answer, in microseconds.
const DELAY_US: std::ops::RangeInclusive<u64> = 0..=1000;
/// How long answers, and the other side's going on, may take.
const LIMIT: Duration = Duration::from_secs(30);
/// From a silent death to going live: the detection timeout, and what may be added to it.
const SILENT_LIMIT: Duration = Duration::from_millis(250 + 50);

pub(super) const KILL_BACKUP: Scenario = Scenario {
    name: "kill-backup",
    about: "the backup's process is killed with SIGKILL at a random moment; the primary wins its own test-and-set and goes on alone",
    client: true,
    play: |stage| {
        let pair = begin(stage)?;
        stage.kill(BACKUP, pair.backup)?;
        await_solo(stage, pair)?;
        go_on(stage)
    },
    check: |seen| ends(seen, Some(PRIMARY), &[]),
};

pub(super) const HANG_PRIMARY: Scenario = Scenario {
    name: "hang-primary",
    about: "the primary is stopped with SIGSTOP, and continued once the backup serves the client; the backup goes live within the detection timeout and 50 ms, the stale primary halts with 4",
    client: true,
    play: |stage| {
        let pair = begin(stage)?;
        stage.strike(PRIMARY, pair.primary, Signal::STOP)?;
        await_live(stage, pair)?;
        go_on(stage)?;
        stage.send(pair.primary, Signal::CONT)?;
        stage.await_end(PRIMARY, pair.primary)?;
        go_on(stage)
    },
    check: |seen| {
        let mut violations = ends(seen, Some(BACKUP), &[(PRIMARY, 4)]);
        violations.extend(too_slow(seen));
        violations
    },
};

pub(super) const HANG_BACKUP: Scenario = Scenario {
    name: "hang-backup",
    about: "the backup is stopped with SIGSTOP, and continued once the primary serves the client alone; the stale backup halts with 4",
    client: true,
    play: |stage| {
        let pair = begin(stage)?;
        stage.strike(BACKUP, pair.backup, Signal::STOP)?;
        await_solo(stage, pair)?;
        go_on(stage)?;
        stage.send(pair.backup, Signal::CONT)?;
        stage.await_end(BACKUP, pair.backup)?;
        go_on(stage)
    },
    check: |seen| ends(seen, Some(PRIMARY), &[(BACKUP, 4)]),
};

pub(super) const ARBITER_DOWN: Scenario = Scenario {
    name: "arbiter-down",
    about: "the arbiter's directory is moved away, then the primary is killed; nobody is live until it is back, then the backup is",
    client: true,
    play: |stage| {
        let pair = begin(stage)?;
        stage.move_arbiter(true)?;
        stage.kill(PRIMARY, pair.primary)?;
        let asked = |k: &Kind| matches!(k, Kind::Unreachable);
        stage.wait_for(pair.backup, "the arbiter was missed", LIMIT, asked)?;
        stage.move_arbiter(false)?;
        await_live(stage, pair)?;
        go_on(stage)
    },
    check: |seen| {
        let mut violations = ends(seen, Some(BACKUP), &[]);
        let first = |wanted: fn(&Kind) -> bool| {
            let found = seen.events(BACKUP).iter().find(|e| wanted(&e.kind));
            found.map(|e| e.mono_ns)
        };
        let missed = first(|k| matches!(k, Kind::Unreachable));
        let won = first(|k| matches!(k, Kind::ClaimWon { .. }));
        if missed.is_none() || won < missed {
            violations.push("the backup won without having missed the arbiter".to_owned());
        }
        violations
    },
};

pub(super) const LEAVE: Scenario = Scenario {
    name: "leave",
    about: "the backup gets SIGTERM and leaves with status 0; the primary goes on alone, by right",
    client: true,
    play: |stage| {
        let pair = begin(stage)?;
        stage.send(pair.backup, Signal::TERM)?;
        stage.await_end(BACKUP, pair.backup)?;
        await_solo(stage, pair)?;
        go_on(stage)
    },
    check: |seen| ends(seen, Some(PRIMARY), &[(BACKUP, 0)]),
};

pub(super) const STOP: Scenario = Scenario {
    name: "stop",
    about: "`lockstep stop` ends the guest on both sides with status 0; nobody goes on alone",
    client: true,
    play: |stage| {
        let pair = begin(stage)?;
        // A client has no part in a planned end.
        stage.finish_client();
        stage.command(&["stop", "--vm", "drill"])?;
        stage.await_end(PRIMARY, pair.primary)?;
        stage.await_end(BACKUP, pair.backup)
    },
    check: |seen| ends(seen, None, &[("command", 0), (PRIMARY, 0), (BACKUP, 0)]),
};

pub(super) const SWITCHOVER: Scenario = Scenario {
    name: "switchover",
    about: "`lockstep switchover` makes the backup live without a suspicion or a timeout; the primary ends with status 0",
    client: true,
    play: |stage| {
        let pair = begin(stage)?;
        stage.command(&["switchover", "--vm", "drill"])?;
        stage.await_end(PRIMARY, pair.primary)?;
        await_live(stage, pair)?;
        go_on(stage)
    },
    check: |seen| {
        let mut violations = ends(seen, Some(BACKUP), &[("command", 0), (PRIMARY, 0)]);
        let events = seen.events(BACKUP);
        if events
            .iter()
            .any(|e| matches!(e.kind, Kind::Suspect { .. }))
        {
            violations.push("the backup suspected a primary that handed over".to_owned());
        }
        violations
    },
};

/// A pair with a client, up to a random moment in mid-stream.
fn begin(stage: &mut Stage) -> Result<Pair, RunError> {
    let answers = stage.random.within(ANSWERS_BEFORE);
    let delay = Duration::from_micros(stage.random.within(DELAY_US));
    let pair = stage.start_pair(Guest::Kv)?;
    stage.start_client()?;
    stage.wait_for_answers(answers, LIMIT)?;
    // Not a wait for anything: the delay is the random moment.
    thread::sleep(delay);
    Ok(pair)
}

fn await_live(stage: &mut Stage, pair: Pair) -> Result<(), RunError> {
    let live = |k: &Kind| matches!(k, Kind::Live { .. });
    stage.wait_for(pair.backup, "the backup went live", LIMIT, live)?;
    Ok(())
}

fn await_solo(stage: &mut Stage, pair: Pair) -> Result<(), RunError> {
    let solo = |k: &Kind| matches!(k, Kind::Solo { .. });
    stage.wait_for(pair.primary, "the primary went on alone", LIMIT, solo)?;
    Ok(())
}

/// The client goes on being answered.
fn go_on(stage: &mut Stage) -> Result<(), RunError> {
    let enough = stage.answers() + ANSWERS_AFTER;
    stage.wait_for_answers(enough, LIMIT)?;
    Ok(())
}

/// What differs from how the run was to end: who went on alone, who ended by itself and how, and that
/// the client was served to the last.
fn ends(
    seen: &Observation,
    survivor: Option<&'static str>,
    statuses: &[(&'static str, i32)],
) -> Vec<String> {
    let mut violations = Vec::new();
    let alone = |k: &Kind| matches!(k, Kind::Live { .. } | Kind::Solo { .. });
    for (name, events) in &seen.members {
        let went = events.iter().find(|e| alone(&e.kind));
        match went {
            Some(_) if survivor != Some(name) => {
                violations.push(format!("the {name} went on alone"));
            }
            None if survivor == Some(name) => {
                violations.push(format!("the {name} did not go on alone"));
            }
            Some(went) => {
                let answers = seen.answers().iter();
                let after = answers.filter(|a| a.answered_ns > went.mono_ns).count() as u64;
                if after < ANSWERS_AFTER {
                    violations.push(format!(
                        "{after} answers came after the {name} went on alone, {ANSWERS_AFTER} were due"
                    ));
                }
            }
            None => {}
        }
    }
    for &(name, wanted) in statuses {
        let ended = seen.statuses.iter().find(|(who, _)| *who == name);
        match ended {
            Some((_, status)) if *status == Some(wanted) => {}
            Some((_, status)) => violations.push(format!(
                "the {name} ended with status {status:?} where {wanted} was due"
            )),
            None => violations.push(format!("the {name} did not end")),
        }
    }
    violations
}

/// Whether the backup took longer to go live than a silent death may take.
fn too_slow(seen: &Observation) -> Option<String> {
    let (_, struck) = seen.killed?;
    let took = match Failover::measure(struck, seen.events(BACKUP)) {
        Ok(took) => Duration::from_nanos(took.vmm),
        Err(why) => return Some(why),
    };
    (took > SILENT_LIMIT).then(|| {
        format!(
            "the backup was live after {} ms, {} are allowed",
            took.as_millis(),
            SILENT_LIMIT.as_millis()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::client::{Answer, End, Record};
    use super::super::events::Event;
    use super::*;

    const STRUCK_NS: u64 = 1_000_000;
    const LIVE_NS: u64 = 260_000_000;

    fn seen(name: &'static str, alone: Kind, statuses: &[(&'static str, i32)]) -> Observation {
        let at = |mono_ns, kind| Event { mono_ns, kind };
        let reason = "it was silent for 250 ms".to_owned();
        let events = vec![
            at(LIVE_NS - 3, Kind::Suspect { reason }),
            at(LIVE_NS - 2, Kind::CaughtUp { position: 1 }),
            at(LIVE_NS - 1, Kind::ClaimWon { generation: 1 }),
            at(LIVE_NS, alone),
        ];
        let other = if name == BACKUP { PRIMARY } else { BACKUP };
        let answer = |value: i64| Answer {
            sent_ns: LIVE_NS,
            answered_ns: LIVE_NS + value as u64,
            value,
        };
        Observation {
            members: vec![(other, vec![]), (name, events)],
            printed: vec![],
            killed: Some((other, STRUCK_NS)),
            statuses: statuses.iter().map(|&(n, s)| (n, Some(s))).collect(),
            client: Some(Record {
                answers: (1..=ANSWERS_AFTER as i64).map(answer).collect(),
                end: End::Told,
            }),
        }
    }

    fn live() -> Kind {
        Kind::Live {
            generation: 1,
            reemitted: 0,
        }
    }

    fn solo() -> Kind {
        Kind::Solo {
            generation: Some(1),
        }
    }

    #[test]
    fn runs_that_end_as_described_pass() {
        let nothing = [] as [String; 0];
        assert_eq!((KILL_BACKUP.check)(&seen(PRIMARY, solo(), &[])), nothing);
        let hung = seen(BACKUP, live(), &[(PRIMARY, 4)]);
        assert_eq!((HANG_PRIMARY.check)(&hung), nothing);
        let hung = seen(PRIMARY, solo(), &[(BACKUP, 4)]);
        assert_eq!((HANG_BACKUP.check)(&hung), nothing);
        let left = seen(PRIMARY, solo(), &[(BACKUP, 0)]);
        assert_eq!((LEAVE.check)(&left), nothing);
    }

    #[test]
    fn the_wrong_survivor_none_and_one_too_many_are_found() {
        let violations = (KILL_BACKUP.check)(&seen(BACKUP, live(), &[]));
        assert_eq!(violations.len(), 2, "{violations:?}");
        let mut nobody = seen(PRIMARY, solo(), &[]);
        nobody.members[1].1.pop();
        assert_eq!((KILL_BACKUP.check)(&nobody).len(), 1);
        let ended = seen(BACKUP, live(), &[("command", 0), (PRIMARY, 0), (BACKUP, 0)]);
        assert_eq!((STOP.check)(&ended), ["the backup went on alone"]);
    }

    #[test]
    fn a_wrong_status_and_a_member_that_did_not_end_are_found() {
        let wrong = seen(BACKUP, live(), &[(PRIMARY, 1)]);
        assert!((HANG_PRIMARY.check)(&wrong)[0].contains("where 4 was due"));
        let never = seen(BACKUP, live(), &[]);
        assert_eq!((HANG_PRIMARY.check)(&never), ["the primary did not end"]);
    }

    #[test]
    fn a_client_that_was_not_served_and_a_slow_failover_are_found() {
        let mut starved = seen(PRIMARY, solo(), &[]);
        starved.client.as_mut().unwrap().answers.truncate(7);
        assert!((KILL_BACKUP.check)(&starved)[0].starts_with("7 answers"));
        let mut slow = seen(BACKUP, live(), &[(PRIMARY, 4)]);
        slow.members[1].1[3].mono_ns = STRUCK_NS + 301_000_000;
        slow.client = seen(BACKUP, live(), &[]).client.map(|mut record| {
            record
                .answers
                .iter_mut()
                .for_each(|a| a.answered_ns += LIVE_NS);
            record
        });
        let violations = (HANG_PRIMARY.check)(&slow);
        assert_eq!(
            violations,
            ["the backup was live after 301 ms, 300 are allowed"]
        );
    }

    #[test]
    fn a_suspicion_in_a_switchover_and_a_win_without_the_arbiter_are_found() {
        let suspected = seen(BACKUP, live(), &[("command", 0), (PRIMARY, 0)]);
        assert_eq!((SWITCHOVER.check)(&suspected).len(), 1);
        let mut planned = suspected;
        planned.members[1].1.remove(0);
        assert_eq!((SWITCHOVER.check)(&planned), [] as [String; 0]);
        let never_missed = seen(BACKUP, live(), &[]);
        assert_eq!((ARBITER_DOWN.check)(&never_missed).len(), 1);
        let mut missed = never_missed;
        let unreachable = Event {
            mono_ns: LIVE_NS - 2,
            kind: Kind::Unreachable,
        };
        missed.members[1].1.insert(2, unreachable);
        assert_eq!((ARBITER_DOWN.check)(&missed), [] as [String; 0]);
    }
}
