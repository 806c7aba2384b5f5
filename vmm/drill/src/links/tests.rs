use super::super::client::{Answer, End, Record};
use super::super::lane::Counts;
use super::super::samples;
use super::super::verdict::Links;
use super::*;
use lockstep_events::Stamped;

const CHANGED_NS: u64 = 1_000_000;
const LIVE_NS: u64 = 260_000_000;
const NOTHING: [String; 0] = [];

fn counts(cut: u64, lost_udp: u64) -> Counts {
    Counts {
        cut,
        lost_udp,
        ..Counts::default()
    }
}

/// A run in which `survivor`, if any, went on alone, and the other member ended with `status`.
fn seen(survivor: Option<&'static str>, status: Option<i32>, counts: [Counts; 2]) -> Observation {
    let at = |mono_ns, event| Stamped { mono_ns, event };
    let reason = "it was silent for 250 ms".to_owned();
    let won = at(LIVE_NS - 1, Event::ClaimWon { generation: 1 });
    let live = samples::live(1);
    let mut members = vec![(PRIMARY, vec![]), (BACKUP, vec![])];
    match survivor {
        Some(PRIMARY) => {
            members[0].1 = vec![
                at(LIVE_NS - 3, Event::BackupLost { reason }),
                won,
                at(LIVE_NS, samples::solo(1)),
            ];
        }
        Some(_) => {
            members[1].1 = vec![
                at(LIVE_NS - 3, Event::Suspect { reason }),
                at(LIVE_NS - 2, samples::caught_up()),
                won,
                at(LIVE_NS, live),
            ];
        }
        None => {}
    }
    let loser = if survivor == Some(PRIMARY) {
        BACKUP
    } else {
        PRIMARY
    };
    let answer = |value: i64| Answer {
        sent_ns: LIVE_NS,
        answered_ns: LIVE_NS + 10_000 + value as u64,
        value,
    };
    Observation {
        members,
        statuses: status.map(|s| (loser, Some(s))).into_iter().collect(),
        client: Some(Record {
            answers: (1..=ANSWERS_AFTER as i64).map(answer).collect(),
            end: End::Told,
        }),
        links: Links {
            changed_ns: Some(CHANGED_NS),
            round_trip_ns: 10_000,
            counts,
        },
        ..Observation::default()
    }
}

fn off(counts: [Counts; 2]) -> Observation {
    Observation {
        killed: Some((PRIMARY, CHANGED_NS)),
        ..seen(Some(BACKUP), None, counts)
    }
}

#[test]
fn runs_that_end_as_described_pass() {
    let (open, cut) = (counts(0, 0), counts(5, 0));
    assert_eq!((POWER_OFF.check)(&off([cut, cut])), NOTHING);
    for survivor in [PRIMARY, BACKUP] {
        let run = |counts| seen(Some(survivor), Some(4), counts);
        assert_eq!((PARTITION.check)(&run([cut, cut])), NOTHING);
        assert_eq!((PARTITION_PRIMARY_MUTE.check)(&run([cut, open])), NOTHING);
        assert_eq!((PARTITION_BACKUP_MUTE.check)(&run([open, cut])), NOTHING);
    }
    let lossy = seen(None, None, [counts(0, BEATS_LOST); 2]);
    assert_eq!((HEARTBEAT_LOSS_ONLY.check)(&lossy), NOTHING);
    assert_eq!((SLOW_LINK.check)(&seen(None, None, [open; 2])), NOTHING);
}

#[test]
fn a_death_that_was_told_a_slow_failover_and_a_link_that_was_not_cut_are_found() {
    let cut = [counts(5, 0); 2];
    let mut told = off(cut);
    told.members[1].1[0].event = Event::Suspect {
        reason: "its connection closed".into(),
    };
    assert!((POWER_OFF.check)(&told)[0].contains("where silence was due"));
    let mut slow = off(cut);
    slow.killed = Some((PRIMARY, 0));
    for event in &mut slow.members[1].1 {
        event.mono_ns += 41_000_000;
    }
    for answer in &mut slow.client.as_mut().unwrap().answers {
        answer.answered_ns += 41_000_000;
    }
    let violations = (POWER_OFF.check)(&slow);
    assert_eq!(
        violations,
        ["the backup was live after 301 ms, 300 are allowed"]
    );
    let uncut = (POWER_OFF.check)(&off([counts(0, 0); 2]));
    assert_eq!(uncut.len(), 2, "{uncut:?}");
    let nobody = Observation {
        killed: Some((PRIMARY, CHANGED_NS)),
        ..seen(None, None, cut)
    };
    let violations = (POWER_OFF.check)(&nobody);
    assert_eq!(violations[0], "the backup did not go on alone");
}

#[test]
fn a_partition_with_two_survivors_none_or_a_loser_that_does_not_halt_is_found() {
    let cut = [counts(5, 0); 2];
    let mut both = seen(Some(BACKUP), Some(4), cut);
    both.members[0] = seen(Some(PRIMARY), None, cut).members.remove(0);
    assert!((PARTITION.check)(&both)[0].starts_with("2 times"));
    assert_eq!(super::super::verdict::split_brains(&both.members), 1);
    let nobody = (PARTITION.check)(&seen(None, None, cut));
    assert!(nobody[0].starts_with("0 times"), "{nobody:?}");
    for survivor in [PRIMARY, BACKUP] {
        let lives_on = (PARTITION.check)(&seen(Some(survivor), None, cut));
        assert!(lives_on[0].contains("did not end"), "{lives_on:?}");
        let wrong = (PARTITION.check)(&seen(Some(survivor), Some(1), cut));
        assert!(wrong[0].contains("where 4 was due"), "{wrong:?}");
    }
}

#[test]
fn a_partition_that_starves_the_client_comes_too_early_or_cuts_the_wrong_way_is_found() {
    let (open, cut) = (counts(0, 0), counts(5, 0));
    let mut starved = seen(Some(BACKUP), Some(4), [cut, cut]);
    starved.client.as_mut().unwrap().answers.pop();
    assert!((PARTITION.check)(&starved)[0].starts_with("199 answers"));
    let mut early = seen(Some(PRIMARY), Some(4), [cut, cut]);
    early.links.changed_ns = Some(LIVE_NS);
    assert!((PARTITION.check)(&early)[0].contains("while both were alive"));
    let run = |counts| seen(Some(BACKUP), Some(4), counts);
    let swapped = (PARTITION_PRIMARY_MUTE.check)(&run([open, cut]));
    assert_eq!(swapped.len(), 2, "{swapped:?}");
    assert_eq!((PARTITION_BACKUP_MUTE.check)(&run([cut, cut])).len(), 1);
    assert_eq!((PARTITION.check)(&run([cut, open])).len(), 1);
}

#[test]
fn a_pair_that_breaks_over_a_bad_link_is_found() {
    for scenario in [HEARTBEAT_LOSS_ONLY, SLOW_LINK] {
        for survivor in [PRIMARY, BACKUP] {
            let lossy = [counts(0, BEATS_LOST); 2];
            let broken = (scenario.check)(&seen(Some(survivor), Some(4), lossy));
            let all = broken.join("; ");
            for finding in ["suspected the other side", "went on alone", "was not to"] {
                assert!(all.contains(finding), "{finding}: {all}");
            }
        }
        let mut unchanged = seen(None, None, [counts(0, BEATS_LOST); 2]);
        unchanged.links.changed_ns = None;
        assert_eq!((scenario.check)(&unchanged), ["the link never changed"]);
        let mut starved = seen(None, None, [counts(0, BEATS_LOST); 2]);
        starved.client.as_mut().unwrap().answers.clear();
        assert!((scenario.check)(&starved)[0].starts_with("0 answers"));
    }
}

#[test]
fn beats_that_were_not_lost_and_a_link_that_was_not_slow_are_found() {
    let one_way = [counts(0, BEATS_LOST), counts(0, BEATS_LOST - 1)];
    let violations = (HEARTBEAT_LOSS_ONLY.check)(&seen(None, None, one_way));
    assert_eq!(
        violations,
        ["29 heartbeats of the backup were lost, 30 were to be"]
    );
    let mut fast = seen(None, None, [counts(0, 0); 2]);
    fast.links.round_trip_ns = 20_000;
    let violations = (SLOW_LINK.check)(&fast);
    assert_eq!(
        violations,
        ["an answer came after 10 µs over a link on which it takes 20 µs"]
    );
}
