//! Scenarios about the links between two hosts: cut with and without a death, one way or both, lossy
//! and slow. Each member has its own host, see [`super::hosts`].

use std::time::Duration;

use super::Scenario;
use super::ends::{alone, failovers, served, statuses, suspicions};
use super::lane::Quality;
use super::one_side::{ANSWERS_AFTER, LIMIT, await_live, begin, ends, go_on, too_slow};
use super::stage::{BACKUP, PRIMARY, Pair, RunError, Stage};
use super::verdict::Observation;
use lockstep_events::Event;

/// Number of heartbeats that are lost in each direction: more than twice the number that would come in
/// the 250 ms that count as silence, at one per 20 ms.
const BEATS_LOST: u64 = 30;
/// How long a frame is under way on the slow link, in microseconds, and how many bytes per second it
/// carries.
const SLOW_DELAY_US: std::ops::RangeInclusive<u64> = 5_000..=20_000;
const SLOW_RATE: std::ops::RangeInclusive<u64> = 200_000..=1_000_000;
/// How many answers must come over the slow link.
const SLOW_ANSWERS: u64 = 40;

pub(super) const POWER_OFF: Scenario = Scenario {
    name: "power-off",
    about: "the primary's host goes without a word: its links are down before its processes are killed, so that no end of a connection leaves it; the backup goes live by silence, within the detection timeout and 50 ms",
    client: true,
    served: true,
    chain: false,
    play: |stage| {
        let pair = begin_apart(stage)?;
        stage.power_off(PRIMARY, pair.primary)?;
        await_live(stage, pair)?;
        go_on(stage)
    },
    check: |seen| {
        let mut violations = ends(seen, Some(BACKUP), &[]);
        violations.extend(suspicions(seen, seen.killed.map_or(u64::MAX, |(_, at)| at)));
        violations.extend(too_slow(seen));
        violations.extend(not_silent(seen));
        violations.extend(wrong_cuts(seen, [true, true]));
        violations
    },
};

pub(super) const PARTITION: Scenario = Scenario {
    name: "partition",
    about: "the link between the hosts is cut, channel and heartbeats, and both live and reach the arbiter and the client; exactly one goes on alone, the other halts with 4",
    client: true,
    served: true,
    chain: false,
    play: |stage| divide(stage, &[0, 1]),
    check: |seen| divided(seen, [true, true]),
};

pub(super) const PARTITION_PRIMARY_MUTE: Scenario = Scenario {
    name: "partition-primary-mute",
    about: "nothing that the primary's host sends reaches the backup's, the other way works; the backup hears nothing and asks, the primary learns of it; exactly one goes on alone, the other halts with 4",
    client: true,
    served: true,
    chain: false,
    play: |stage| divide(stage, &[0]),
    check: |seen| divided(seen, [true, false]),
};

pub(super) const PARTITION_BACKUP_MUTE: Scenario = Scenario {
    name: "partition-backup-mute",
    about: "nothing that the backup's host sends reaches the primary's, the other way works; the primary hears nothing and asks, the backup learns of it; exactly one goes on alone, the other halts with 4",
    client: true,
    served: true,
    chain: false,
    play: |stage| divide(stage, &[1]),
    check: |seen| divided(seen, [false, true]),
};

pub(super) const HEARTBEAT_LOSS_ONLY: Scenario = Scenario {
    name: "heartbeat-loss-only",
    about: "heartbeats by UDP are lost for more than twice the detection timeout while the channel works; nobody is suspected, nobody goes on alone",
    client: true,
    served: true,
    chain: false,
    play: |stage| {
        begin_apart(stage)?;
        let lossy = Quality {
            loses_udp: true,
            ..Quality::default()
        };
        stage.set_wire(&[0, 1], lossy);
        stage.wait_for_wire("enough heartbeats were lost", LIMIT, |counts| {
            counts.iter().all(|c| c.lost_udp >= BEATS_LOST)
        })?;
        go_on(stage)
    },
    check: |seen| {
        let mut violations = intact(seen, ANSWERS_AFTER);
        for (name, counts) in [PRIMARY, BACKUP].iter().zip(seen.links.counts) {
            if counts.lost_udp < BEATS_LOST {
                let lost = counts.lost_udp;
                violations.push(format!(
                    "{lost} heartbeats of the {name} were lost, {BEATS_LOST} were to be"
                ));
            }
        }
        violations
    },
};

pub(super) const SLOW_LINK: Scenario = Scenario {
    name: "slow-link",
    about: "the link between the hosts becomes slow, channel and heartbeats: 5 to 20 ms each way, 0.2 to 1 MB/s; answers take as long as that, none is lost, nobody is suspected, nobody goes on alone",
    client: true,
    served: true,
    chain: false,
    play: |stage| {
        begin_apart(stage)?;
        let delay = Duration::from_micros(stage.random.within(SLOW_DELAY_US));
        let rate = stage.random.within(SLOW_RATE);
        let slow = Quality {
            delay,
            bytes_per_second: Some(u32::try_from(rate).expect("below a million")),
            ..Quality::default()
        };
        stage.set_wire(&[0, 1], slow);
        let enough = stage.answers() + SLOW_ANSWERS;
        stage.wait_for_answers(enough, LIMIT)?;
        Ok(())
    },
    check: |seen| {
        let mut violations = intact(seen, SLOW_ANSWERS);
        violations.extend(too_fast(seen));
        violations
    },
};

/// A pair on two hosts with a client, up to a random moment while requests are under way.
fn begin_apart(stage: &mut Stage) -> Result<Pair, RunError> {
    stage.separate_hosts()?;
    begin(stage)
}

/// Cuts what the hosts in `mute` send to the other host, until one member has ended.
fn divide(stage: &mut Stage, mute: &[usize]) -> Result<(), RunError> {
    let pair = begin_apart(stage)?;
    stage.set_wire(mute, Quality::CUT);
    let survivor = stage.await_one_end(pair)?;
    let alone = |e: &Event| matches!(e, Event::Live { .. } | Event::Solo { .. });
    stage.wait_for(survivor, "the other one went on alone", LIMIT, alone)?;
    go_on(stage)
}

/// Violations at the end of a partition in which these hosts could not be heard.
fn divided(seen: &Observation, mute: [bool; 2]) -> Vec<String> {
    let mut violations = match failovers(&seen.members)[..] {
        [(survivor, at)] => {
            let loser = if survivor == PRIMARY { BACKUP } else { PRIMARY };
            let mut violations = statuses(seen, &[(loser, 4)]);
            let moment = format!("the {survivor} went on alone");
            violations.extend(served(seen, at, ANSWERS_AFTER, &moment));
            violations
        }
        ref went => vec![format!(
            "{} times a member went on alone, once was due",
            went.len()
        )],
    };
    violations.extend(suspicions(seen, seen.links.changed_ns.unwrap_or(u64::MAX)));
    violations.extend(wrong_cuts(seen, mute));
    violations
}

/// Violations of: the pair stayed a pair, and served after the link changed.
fn intact(seen: &Observation, due: u64) -> Vec<String> {
    let mut violations = suspicions(seen, u64::MAX);
    violations.extend(alone(seen, None));
    violations.extend(statuses(seen, &[]));
    match seen.links.changed_ns {
        Some(changed) => violations.extend(served(seen, changed, due, "the link changed")),
        None => violations.push("the link never changed".to_owned()),
    }
    violations
}

/// A violation if the backup noticed the primary's end by anything but silence.
fn not_silent(seen: &Observation) -> Option<String> {
    let reason = seen.events(BACKUP).iter().find_map(|e| match &e.event {
        Event::Suspect { reason } => Some(reason),
        _ => None,
    })?;
    (!reason.contains("silent"))
        .then(|| format!("the backup suspected the primary as {reason}, where silence was due"))
}

/// Violations if frames of a host arrived that must not arrive, or the other way round.
fn wrong_cuts(seen: &Observation, mute: [bool; 2]) -> Vec<String> {
    let mut violations = Vec::new();
    for ((name, counts), mute) in [PRIMARY, BACKUP].iter().zip(seen.links.counts).zip(mute) {
        if mute != (counts.cut > 0) {
            violations.push(format!("{} frames of the {name} were cut off", counts.cut));
        }
    }
    violations
}

/// A violation if an answer came faster than the slow link can carry it.
fn too_fast(seen: &Observation) -> Option<String> {
    let changed = seen.links.changed_ns?;
    let sent = seen.answers().iter().filter(|a| a.sent_ns > changed);
    let fastest = sent.map(|a| a.answered_ns - a.sent_ns).min()?;
    let due = seen.links.round_trip_ns;
    (fastest < due || due == 0).then(|| {
        format!(
            "an answer came after {} µs over a link on which it takes {} µs",
            fastest / 1000,
            due / 1000
        )
    })
}

#[cfg(test)]
mod tests;
