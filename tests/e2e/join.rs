//! A new backup joins a VM that runs.

use crate::harness::Scratch;
use crate::member::{Member, Told, echo, free_address, pair, records, stage};
use crate::operator::operator;

/// The options of a new backup that joins the member which listens at `at`, and where it will listen
/// itself.
fn joiner(told: &Told, at: &str, listen: &str) -> Told {
    let mut told = told.and(&["--listen", listen]);
    told.channel = at.into();
    told
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_vm_outlives_one_host_after_the_other() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut at = told.channel.clone();
    let mut live = Member::primary(&scratch, "primary", "echo", &told);
    let mut lines = 0;
    for round in 1..=4 {
        let listen = free_address();
        let name = format!("backup-{round}");
        let mut next = Member::backup(&scratch, &name, &joiner(&told, &at, &listen));
        next.await_event("joined");
        let event = match round {
            1 => live.await_event("started"),
            _ => live.await_event("protected"),
        };
        assert_eq!(event["generation"], round);
        echo(&mut live, &format!("line {lines}"));
        lines += 1;
        live.kill();
        assert_eq!(next.await_event("live")["generation"], round);
        echo(&mut next, &format!("line {lines}"));
        lines += 1;
        (live, at) = (next, listen);
    }
    live.process.end_input();
    let done = live.process.end().expect(0);
    assert!(
        done.stdout
            .ends_with(&format!("echo: done, {lines} lines\n")),
        "{done:#?}"
    );
    assert!(records(&scratch).contains(&"4.close".to_string()));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_primary_that_lost_its_backup_or_started_alone_is_joined() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let (mut primary, backup) = pair(&scratch, "echo", &told);
    backup.kill();
    primary.await_event("solo");
    let mut second = Member::backup(&scratch, "second", &told);
    assert_eq!(second.await_event("joined")["generation"], 2);
    assert_eq!(primary.await_event("protected")["generation"], 2);
    echo(&mut primary, "protected again");
    primary.kill();
    second.await_event("live");
    second.process.end_input();
    second.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_copy_with_one_wrong_byte_or_register_is_refused_by_name() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let mut primary = Member::primary(&scratch, "primary", "echo", &told.and(&["--solo"]));
    primary.await_event("started");
    for (plant, part) in [("page-flips", "memory"), ("device-flips", "clock")] {
        let backup = Member::backup(&scratch, plant, &told.planting(plant));
        let sentence = backup.process.end().refused();
        assert!(sentence.contains(part), "{sentence}");
        echo(&mut primary, plant);
    }
    // Nothing of the first backup is left: the next one joins, in the next generation.
    let mut second = Member::backup(&scratch, "second", &told);
    assert_eq!(second.await_event("joined")["generation"], 2);
    primary.process.end_input();
    primary.process.end().expect(0);
    second.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn status_tells_how_members_stand() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    let ask_status = |more: &[&str]| {
        let args = ["status", "--vm", "vm"].iter().chain(more);
        operator(&scratch, args).end()
    };
    assert!(ask_status(&[]).refused().contains("no member of VM vm"));
    let mut primary = Member::primary(&scratch, "primary", "echo", &told.and(&["--solo"]));
    primary.await_event("started");
    let text = ask_status(&[]).expect(0).stdout;
    assert!(text.contains(": alone, generation 1"), "{text}");
    let mut backup = Member::backup(&scratch, "backup", &told);
    backup.await_event("joined");
    primary.await_event("protected");
    let told = ask_status(&["--json"]).expect(0).stdout;
    let told: serde_json::Value = serde_json::from_str(&told).expect("one object");
    let mut states: Vec<_> = told["members"].as_array().expect("a list").iter().collect();
    states.sort_by_key(|member| member["state"].to_string());
    assert_eq!(states[0]["state"], "protected", "{told}");
    assert_eq!(states[1]["state"], "protecting", "{told}");
    assert!(
        states.iter().all(|member| member["generation"] == 2),
        "{told}"
    );
}
