//! Scenarios in which one side dies, hangs or is ended by an operator, and the other goes on.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::Scenario;
use super::ends;
use super::stage::{BACKUP, Guest, PRIMARY, Pair, RunError, Stage};
use super::verdict::{Failover, Observation};
use lockstep_events::{Event, Stamped};

/// How many answers come before the failure, and how many must follow.
const ANSWERS_BEFORE: std::ops::RangeInclusive<u64> = 100..=600;
pub(super) const ANSWERS_AFTER: u64 = 200;
/// How long after that answer the failure comes, in microseconds.
const DELAY_US: std::ops::RangeInclusive<u64> = 0..=1000;
/// How long answers may take, and the other side's going on.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// How often the backup must report the missing arbiter before the arbiter comes back, and the time
/// between two reports: a second, plus the time of an attempt.
const TIMES_MISSED: usize = 2;
const MISSED_AGAIN: std::ops::Range<Duration> =
    Duration::from_millis(900)..Duration::from_millis(2000);
/// Longest time from a silent death until live: the limit of silence, plus a reserve.
pub(super) const SILENT_LIMIT: Duration = Duration::from_millis(250 + 50);

pub(super) const KILL_BACKUP: Scenario = Scenario {
    name: "kill-backup",
    about: "the backup's process is killed with SIGKILL at a random moment; the primary wins its own test-and-set and goes on alone",
    client: true,
    served: true,
    chain: false,
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
    served: true,
    chain: false,
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
    served: true,
    chain: false,
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
    about: "the arbiter's directory is moved away, then the primary is killed; the backup says once a second that it cannot ask, and nothing leaves, until the directory is back; then it goes live",
    client: true,
    served: true,
    chain: false,
    play: |stage| {
        let pair = begin(stage)?;
        stage.move_arbiter(true)?;
        stage.kill(PRIMARY, pair.primary)?;
        let asked = |e: &Event| matches!(e, Event::Unreachable { .. });
        stage.wait_for_nth(
            pair.backup,
            "the arbiter was missed",
            TIMES_MISSED,
            LIMIT,
            asked,
        )?;
        stage.move_arbiter(false)?;
        await_live(stage, pair)?;
        go_on(stage)
    },
    check: |seen| {
        let mut violations = ends(seen, Some(BACKUP), &[]);
        violations.extend(not_missed(seen));
        violations
    },
};

/// Violations in how the backup noticed that the arbiter was missing, and waited for it.
fn not_missed(seen: &Observation) -> Vec<String> {
    let events = seen.events(BACKUP);
    let missed = |e: &&Stamped| matches!(e.event, Event::Unreachable { .. });
    let missed: Vec<u64> = events.iter().filter(missed).map(|e| e.mono_ns).collect();
    let won = |e: &&Stamped| matches!(e.event, Event::ClaimWon { .. });
    let won = events.iter().find(won).map_or(u64::MAX, |e| e.mono_ns);
    let mut violations = Vec::new();
    let (Some(&first), true) = (missed.first(), missed.len() >= TIMES_MISSED) else {
        return vec!["the backup did not say twice that it misses the arbiter".to_owned()];
    };
    let again = Duration::from_nanos(missed[1] - first);
    if !MISSED_AGAIN.contains(&again) {
        violations.push(format!(
            "the backup said after {} ms again that it misses the arbiter, which is due after a second",
            again.as_millis()
        ));
    }
    if won < missed[TIMES_MISSED - 1] {
        violations.push("the backup won while it missed the arbiter".to_owned());
    }
    let held = |answered: u64| first < answered && answered < won;
    let early = seen
        .answers()
        .iter()
        .filter(|a| held(a.answered_ns))
        .count();
    if early > 0 {
        violations.push(format!(
            "{early} answers came while nobody had the right to give any"
        ));
    }
    violations
}

pub(super) const LEAVE: Scenario = Scenario {
    name: "leave",
    about: "the backup gets SIGTERM and leaves with status 0; the primary goes on alone, by right",
    client: true,
    served: true,
    chain: false,
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
    served: true,
    chain: false,
    play: |stage| {
        let pair = begin(stage)?;
        // A client would only see that the planned end closes its connection.
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
    served: true,
    chain: false,
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
            .any(|e| matches!(e.event, Event::Suspect { .. }))
        {
            violations.push("the backup suspected a primary that handed over".to_owned());
        }
        violations
    },
};

/// A pair with a client, up to a random moment while requests are under way.
pub(super) fn begin(stage: &mut Stage) -> Result<Pair, RunError> {
    let answers = stage.random.within(ANSWERS_BEFORE);
    let delay = Duration::from_micros(stage.random.within(DELAY_US));
    let pair = stage.start_pair(Guest::Server)?;
    stage.start_client()?;
    stage.wait_for_answers(answers, LIMIT)?;
    // This sleep waits for no event: its length is the random moment.
    thread::sleep(delay);
    Ok(pair)
}

pub(super) fn await_live(stage: &mut Stage, pair: Pair) -> Result<(), RunError> {
    let live = |e: &Event| matches!(e, Event::Live { .. });
    stage.wait_for(pair.backup, "the backup went live", LIMIT, live)?;
    Ok(())
}

fn await_solo(stage: &mut Stage, pair: Pair) -> Result<(), RunError> {
    let solo = |e: &Event| matches!(e, Event::Solo { .. });
    stage.wait_for(pair.primary, "the primary went on alone", LIMIT, solo)?;
    Ok(())
}

/// Waits until the client has more answers.
pub(super) fn go_on(stage: &mut Stage) -> Result<(), RunError> {
    let enough = stage.answers() + ANSWERS_AFTER;
    stage.wait_for_answers(enough, LIMIT)?;
    Ok(())
}

/// Violations of how the run must end, see [`ends::ends`].
pub(super) fn ends(
    seen: &Observation,
    survivor: Option<&'static str>,
    statuses: &[(&'static str, i32)],
) -> Vec<String> {
    ends::ends(seen, survivor, statuses, ANSWERS_AFTER)
}

/// A violation if the backup took longer to go live than is allowed after a silent death.
pub(super) fn too_slow(seen: &Observation) -> Option<String> {
    let (_, struck) = seen.killed?;
    let took = match Failover::measure(struck, seen.events(BACKUP)) {
        Ok(took) => Duration::from_nanos(took.vmm),
        Err(why) => return Some(why.to_string()),
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
    use super::super::samples;
    use super::*;

    const STRUCK_NS: u64 = 1_000_000;
    const LIVE_NS: u64 = 260_000_000;

    fn seen(name: &'static str, alone: Event, statuses: &[(&'static str, i32)]) -> Observation {
        let at = |mono_ns, event| Stamped { mono_ns, event };
        let reason = "it was silent for 250 ms".to_owned();
        let events = vec![
            at(LIVE_NS - 3, Event::Suspect { reason }),
            at(LIVE_NS - 2, samples::caught_up()),
            at(LIVE_NS - 1, Event::ClaimWon { generation: 1 }),
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
            killed: Some((other, STRUCK_NS)),
            statuses: statuses.iter().map(|&(n, s)| (n, Some(s))).collect(),
            client: Some(Record {
                answers: (1..=ANSWERS_AFTER as i64).map(answer).collect(),
                end: End::Told,
            }),
            ..Observation::default()
        }
    }

    fn live() -> Event {
        samples::live(1)
    }

    fn solo() -> Event {
        samples::solo(1)
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
    }

    #[test]
    fn an_arbiter_that_was_missed_and_came_back_passes_and_what_leaves_meanwhile_is_found() {
        const SECOND: u64 = 1_000_000_000;
        let missing = |at: [u64; 2]| {
            let mut run = seen(BACKUP, live(), &[]);
            let last = run.members[1].1.split_off(2);
            let unreachable = |mono_ns| Stamped {
                mono_ns,
                event: samples::unreachable(),
            };
            run.members[1].1.extend(at.map(unreachable));
            run.members[1].1.extend(last);
            for event in &mut run.members[1].1[4..] {
                event.mono_ns += 3 * SECOND;
            }
            for answer in &mut run.client.as_mut().unwrap().answers {
                answer.answered_ns += 3 * SECOND;
            }
            run
        };
        let missed = missing([LIVE_NS, LIVE_NS + SECOND]);
        assert_eq!((ARBITER_DOWN.check)(&missed), [] as [String; 0]);
        let silent = missing([LIVE_NS, LIVE_NS + 5 * SECOND]);
        let violations = (ARBITER_DOWN.check)(&silent);
        assert!(violations[0].contains("after 5000 ms"), "{violations:?}");
        assert!(violations[1].contains("won while"), "{violations:?}");
        let mut leaks = missed;
        let answers = &mut leaks.client.as_mut().unwrap().answers;
        let early = Answer {
            answered_ns: LIVE_NS + 1,
            ..answers[0]
        };
        answers.insert(0, early);
        let violations = (ARBITER_DOWN.check)(&leaks);
        assert!(
            violations[0].starts_with("1 answers came while"),
            "{violations:?}"
        );
    }
}
