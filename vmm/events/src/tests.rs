//! The text of what members tell is a contract: with drills, with supervisors, with `docs/operations.md`.

mod golden;
mod status;

use crate::{Event, LineError, Stamped};
use golden::{MONO_NS, golden};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use strum::VariantNames;

fn read(line: &str) -> Result<Event, LineError> {
    Stamped::read(line.as_bytes()).map(|stamped| stamped.event)
}

/// The names of the events, and the keys of their fields.
fn fields_of_golden() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (event, _) in golden() {
        let mut object = event.object();
        let name = object.remove("event").expect("a name");
        let name = name.as_str().expect("a text").to_owned();
        let fields = object.into_iter().map(|(key, _)| key);
        found.entry(name).or_default().extend(fields);
    }
    found
}

#[test]
fn every_event_is_the_line_that_it_was_and_reads_back_as_itself() {
    for (event, line) in golden() {
        let mono_ns = MONO_NS;
        let stamped = Stamped { mono_ns, event };
        assert_eq!(stamped.line(), format!("{line}\n"));
        assert_eq!(Stamped::read(line.as_bytes()).unwrap(), stamped);
        assert_eq!(
            Stamped::read(stamped.line().as_bytes()).unwrap(),
            stamped,
            "with its end"
        );
    }
}

#[test]
fn no_event_is_without_a_golden_line() {
    let names: BTreeSet<_> = Event::VARIANTS.iter().map(|&name| name.into()).collect();
    let lines: BTreeSet<String> = fields_of_golden().into_keys().collect();
    assert_eq!(lines, names);
}

#[test]
fn the_documented_events_and_fields_are_those_that_there_are() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = fs::read_to_string(docs).expect("the document");
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| Event | From | Fields |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let quoted = |cell: &str| -> Vec<String> {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let [name] = &quoted(cells[1])[..] else {
            panic!("a row of one event: {row}");
        };
        let fields = documented.entry(name.clone()).or_default();
        fields.extend(quoted(cells[3]));
    }
    assert_eq!(documented, fields_of_golden());
}

#[test]
fn an_event_that_is_unknown_is_named() {
    let refusal = read(r#"{"event":"new","what":[1],"mono_ns":5}"#).unwrap_err();
    assert!(matches!(refusal, LineError::Unknown(_)), "{refusal:?}");
    assert_eq!(refusal.to_string(), "`new` is unknown");
}

#[test]
fn a_field_that_is_unknown_missing_or_of_another_kind_is_named() {
    for (line, wanted) in [
        (
            r#"{"event":"joined","generation":1,"colour":1,"mono_ns":5}"#,
            "`joined` has other fields: unknown field `colour`, expected `generation`",
        ),
        (
            r#"{"event":"withdraw","colour":1,"mono_ns":5}"#,
            "`withdraw` has other fields: unknown field `colour`",
        ),
        (
            r#"{"event":"copying","round":1,"mono_ns":5}"#,
            "`copying` has other fields: missing field `pages`",
        ),
        (
            r#"{"event":"joined","mono_ns":5}"#,
            "`joined` has other fields: missing field `generation`",
        ),
        (
            r#"{"event":"waiting","member":"7","mono_ns":5}"#,
            "`7` is not an id",
        ),
        (
            r#"{"event":"network","tap":"t","link":"left","mono_ns":5}"#,
            "unknown variant `left`",
        ),
    ] {
        let refusal = read(line).unwrap_err().to_string();
        assert!(refusal.contains(wanted), "{line}: {refusal}");
    }
    let progress = r#""round":1,"pages":1,"pages_sent":1,"zero_pages":0,"bytes_sent":1,"rate_mib_s":1.0,"dirty_mib_s":1.0,"estimated_pause_ms":1.0"#;
    let line = |more: &str| format!(r#"{{"event":"copying",{progress}{more},"mono_ns":5}}"#);
    read(&line("")).unwrap();
    let refusal = read(&line(r#","colour":1"#)).unwrap_err().to_string();
    assert!(refusal.contains("unknown field `colour`"), "{refusal}");
}

#[test]
fn what_is_not_an_event_is_refused() {
    for (line, wanted) in [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        (r#"{"event":"left","mono_ns":5"#, "not a JSON object"),
        (r#"{"event":"left"}"#, "no `mono_ns`"),
        (r#"{"event":"left","mono_ns":-5}"#, "no `mono_ns`"),
        (r#"{"mono_ns":5}"#, "no `event`"),
    ] {
        let refusal = read(line).unwrap_err().to_string();
        assert!(refusal.contains(wanted), "{line}: {refusal}");
    }
}

#[test]
fn people_read_the_name_and_the_fields() {
    let started = Event::Started { generation: 3 };
    assert_eq!(started.to_string(), r#"started {"generation":3}"#);
    assert_eq!(Event::Left {}.to_string(), "left {}");
}
