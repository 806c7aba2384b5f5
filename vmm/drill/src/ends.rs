//! How a run must end: which member went on alone and how often, which members ended by themselves and
//! how, and whether the client was served to the end.

use super::verdict::Observation;
use lockstep_events::{Event, Stamped};

/// Each time that a member went on alone, which is a failover: its name, and the moment.
pub(super) fn failovers(members: &[(&'static str, Vec<Stamped>)]) -> Vec<(&'static str, u64)> {
    let alone = |e: &&Stamped| matches!(e.event, Event::Live { .. } | Event::Solo { .. });
    let of = |(name, events): &(&'static str, Vec<Stamped>)| {
        let name = *name;
        let went: Vec<_> = events.iter().filter(alone).map(|e| e.mono_ns).collect();
        went.into_iter().map(move |at| (name, at))
    };
    members.iter().flat_map(of).collect()
}

/// Violations of: `survivor` went on alone, once, or no member did.
pub(super) fn alone(seen: &Observation, survivor: Option<&'static str>) -> Vec<String> {
    let went = failovers(&seen.members);
    let mut violations: Vec<String> = went
        .iter()
        .filter(|(name, _)| Some(*name) != survivor)
        .map(|(name, _)| format!("the {name} went on alone"))
        .collect();
    if let Some(survivor) = survivor {
        match went.iter().filter(|(name, _)| *name == survivor).count() {
            0 => violations.push(format!("the {survivor} did not go on alone")),
            1 => {}
            times => violations.push(format!("the {survivor} went on alone {times} times")),
        }
    }
    violations
}

/// Violations of: these members and commands ended by themselves with these statuses, and no others
/// did.
pub(super) fn statuses(seen: &Observation, wanted: &[(&'static str, i32)]) -> Vec<String> {
    let mut violations = Vec::new();
    for &(name, wanted) in wanted {
        let ended = seen.statuses.iter().find(|(who, _)| *who == name);
        match ended {
            Some((_, status)) if *status == Some(wanted) => {}
            Some((_, status)) => violations.push(format!(
                "the {name} ended with status {status:?} where {wanted} was due"
            )),
            None => violations.push(format!("the {name} did not end")),
        }
    }
    let unasked = seen
        .statuses
        .iter()
        .filter(|(name, _)| !wanted.iter().any(|(due, _)| due == name));
    violations.extend(unasked.map(|(name, _)| format!("the {name} ended, and was not to")));
    violations
}

/// A violation if fewer than `due` answers came after a moment; `moment` is its name.
pub(super) fn served(seen: &Observation, after_ns: u64, due: u64, moment: &str) -> Option<String> {
    let answers = seen.answers().iter();
    let came = answers.filter(|a| a.answered_ns > after_ns).count() as u64;
    (came < due).then(|| format!("{came} answers came after {moment}, {due} were due"))
}

/// All of these: the survivor, the statuses, and `due` answers after it went on alone.
pub(super) fn ends(
    seen: &Observation,
    survivor: Option<&'static str>,
    wanted: &[(&'static str, i32)],
    due: u64,
) -> Vec<String> {
    let mut violations = alone(seen, survivor);
    for (name, at) in failovers(&seen.members) {
        let moment = format!("the {name} went on alone");
        violations.extend(served(seen, at, due, &moment));
    }
    violations.extend(statuses(seen, wanted));
    violations
}

/// Each suspicion before a moment, when there was nothing to suspect.
pub(super) fn suspicions(seen: &Observation, before_ns: u64) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, events) in &seen.members {
        for event in events.iter().filter(|e| e.mono_ns < before_ns) {
            if let Event::Suspect { reason } | Event::BackupLost { reason } = &event.event {
                violations.push(format!(
                    "the {name} suspected the other side ({reason}) while both were alive"
                ));
            }
        }
    }
    violations
}

/// Signs that a VM which is down was booted again by one of the members `restarted`: its only
/// generation must stay open.
pub(super) fn booted_again(seen: &Observation, restarted: &[&str]) -> Vec<String> {
    let mut violations = Vec::new();
    for name in restarted {
        let started = |e: &Stamped| matches!(e.event, Event::Started { .. });
        if seen.events(name).iter().any(started) || !seen.printed(name).is_empty() {
            violations.push("a second history was booted".to_owned());
        }
    }
    let later = |record: &String| !record.starts_with("1.");
    let closed = |record: &String| record.ends_with(".close");
    let open = seen.records.iter().any(|record| record == "1.open");
    if !open || seen.records.iter().any(|r| later(r) || closed(r)) {
        violations.push(format!(
            "generation 1 is to stay open and the last, and the arbiter has {:?}",
            seen.records
        ));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn seen(primary: &[Event], backup: &[Event]) -> Observation {
        let events = |kinds: &[Event]| {
            let at = |(i, event): (usize, &Event)| Stamped {
                mono_ns: i as u64,
                event: event.clone(),
            };
            kinds.iter().enumerate().map(at).collect()
        };
        Observation {
            members: vec![("primary", events(primary)), ("backup", events(backup))],
            ..Observation::default()
        }
    }

    fn solo() -> Event {
        samples::solo(1)
    }

    #[test]
    fn the_right_survivor_and_nobody_pass() {
        let nothing = [] as [String; 0];
        assert_eq!(alone(&seen(&[solo()], &[]), Some("primary")), nothing);
        assert_eq!(alone(&seen(&[], &[]), None), nothing);
    }

    #[test]
    fn the_wrong_survivor_none_and_one_that_survives_twice_are_found() {
        let wrong = alone(&seen(&[solo()], &[]), Some("backup"));
        assert_eq!(
            wrong,
            [
                "the primary went on alone",
                "the backup did not go on alone"
            ]
        );
        let twice = alone(&seen(&[solo(), solo()], &[]), Some("primary"));
        assert_eq!(twice, ["the primary went on alone 2 times"]);
        let uncalled = alone(&seen(&[], &[solo()]), None);
        assert_eq!(uncalled, ["the backup went on alone"]);
    }

    #[test]
    fn wrong_missing_and_unasked_ends_are_found() {
        let mut run = seen(&[], &[]);
        assert_eq!(statuses(&run, &[("backup", 4)]), ["the backup did not end"]);
        run.statuses = vec![("backup", None)];
        assert!(statuses(&run, &[("backup", 4)])[0].contains("where 4 was due"));
        assert_eq!(statuses(&run, &[]), ["the backup ended, and was not to"]);
    }

    #[test]
    fn both_sides_suspicions_are_found_before_the_moment_only() {
        let reason = || "it was silent for 250 ms".to_owned();
        let accused = seen(
            &[Event::BackupLost { reason: reason() }],
            &[samples::joined(1), Event::Suspect { reason: reason() }],
        );
        assert_eq!(suspicions(&accused, u64::MAX).len(), 2);
        assert_eq!(suspicions(&accused, 1).len(), 1);
    }

    #[test]
    fn a_second_history_shows_in_events_in_print_and_at_the_arbiter() {
        let open = || vec!["1.claim".to_owned(), "1.open".to_owned()];
        let mut run = seen(&[], &[samples::connecting()]);
        run.records = open();
        assert_eq!(booted_again(&run, &["backup"]), [] as [String; 0]);
        for record in ["1.close", "2.open"] {
            run.records = open();
            run.records.push(record.to_owned());
            assert_eq!(booted_again(&run, &["backup"]).len(), 1, "{record}");
        }
        run.records = vec![];
        assert_eq!(booted_again(&run, &["backup"]).len(), 1);
        run.records = open();
        run.printed = vec![("backup", "kv: ready\n".to_owned())];
        assert_eq!(booted_again(&run, &["backup"]).len(), 1);
        let mut started = seen(&[], &[Event::Started { generation: 2 }]);
        started.records = open();
        assert_eq!(booted_again(&started, &["backup"]).len(), 1);
    }
}
