//! A new backup joins a VM that runs.

use crate::harness::Scratch;
use crate::member::{Member, Told, free_address, pair, stage};
use crate::pair::{echo, records};

/// What a new backup is told that joins who listens at `at`, and where it will listen itself.
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
    assert!(done.stdout.ends_with(&format!("echo: done, {lines} lines\n")), "{done:#?}");
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
