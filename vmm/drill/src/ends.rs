//! How a run must end: which member went on alone and how often, which members ended by themselves and
//! how, and whether the client was served to the end.

use super::events::{Event, Kind};
use super::verdict::Observation;

/// Each time that a member went on alone: who, and when. That is a failover.
pub(super) fn failovers(members: &[(&'static str, Vec<Event>)]) -> Vec<(&'static str, u64)> {
    let alone = |e: &&Event| matches!(e.kind, Kind::Live { .. } | Kind::Solo { .. });
    let of = |(name, events): &(&'static str, Vec<Event>)| {
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
            if let Kind::Suspect { reason } | Kind::BackupLost { reason } = &event.kind {
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
        let started = |e: &Event| matches!(e.kind, Kind::Started { .. });
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
    use super::*;

    fn seen(primary: &[Kind], backup: &[Kind]) -> Observation {
        let events = |kinds: &[Kind]| {
            let at = |(i, kind): (usize, &Kind)| Event {
                mono_ns: i as u64,
                kind: kind.clone(),
            };
            kinds.iter().enumerate().map(at).collect()
        };
        Observation {
            members: vec![("primary", events(primary)), ("backup", events(backup))],
            ..Observation::default()
        }
    }

    fn solo() -> Kind {
        Kind::Solo {
            generation: Some(1),
        }
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
            &[Kind::BackupLost { reason: reason() }],
            &[Kind::Joined, Kind::Suspect { reason: reason() }],
        );
        assert_eq!(suspicions(&accused, u64::MAX).len(), 2);
        assert_eq!(suspicions(&accused, 1).len(), 1);
    }

    #[test]
    fn a_second_history_shows_in_events_in_print_and_at_the_arbiter() {
        let open = || vec!["1.claim".to_owned(), "1.open".to_owned()];
        let mut run = seen(&[], &[Kind::Connecting]);
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
        let mut started = seen(&[], &[Kind::Started { generation: 2 }]);
        started.records = open();
        assert_eq!(booted_again(&started, &["backup"]).len(), 1);
    }
}
