//! Pairs that are refused with one sentence and status 2.

use crate::harness::{Scratch, run};
use crate::member::{Member, Told, arbiter, free_address, stage};

/// Starts a primary of `echo` and a backup that must not fit. Returns the backup's sentence.
#[track_caller]
fn refused(primary: impl FnOnce(Told) -> Told, backup: impl FnOnce(Told) -> Told) -> String {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch);
    arbiter(&scratch, "other");
    let mut first = Member::primary(&scratch, "primary", "echo", &primary(told.clone()));
    first.await_event("waiting");
    let second = Member::backup(&scratch, "backup", &backup(told));
    let sentence = second.process.end().refused();
    let done = first.kill();
    assert_eq!(done.stdout, "", "the guest never ran: {done:#?}");
    sentence
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_of_another_vm_is_refused() {
    let vm = "another".to_owned();
    let sentence = refused(|told| told, |told| Told { vm, ..told });
    assert!(sentence.contains("another"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_with_other_memory_is_refused() {
    let sentence = refused(|told| told, |told| told.and(&["--mem", "128"]));
    assert!(sentence.contains("--mem"), "{sentence}");
    assert!(sentence.contains("128"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_with_an_arbiter_of_its_own_is_refused() {
    let sentence = refused(
        |told| told,
        |told| Told {
            arbiter: told.arbiter.replace("/arbiter", "/other"),
            ..told
        },
    );
    assert!(sentence.contains("--arbiter"), "{sentence}");
}

/// The command line of a member with this arbiter, VM and channel.
fn member<'a>(role: &[&'a str], arbiter: &'a str, vm: &'a str, channel: &'a str) -> Vec<&'a str> {
    let told = ["--arbiter", arbiter, "--vm", vm, "--channel", channel];
    role.iter().copied().chain(told).collect()
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn what_a_member_is_told_must_make_sense() {
    let scratch = Scratch::new();
    let (good, missing) = (arbiter(&scratch, "arbiter"), "file:/no/such/arbiter");
    let channel = free_address();
    for role in [&["primary", "echo"][..], &["backup"]] {
        let sentence = run(member(role, missing, "vm", &channel)).refused();
        assert!(sentence.contains("/no/such/arbiter"), "{sentence}");
        for name in ["", "../vm", "a b", &"x".repeat(65)] {
            let sentence = run(member(role, &good, name, &channel)).refused();
            assert!(sentence.contains("name"), "{sentence}");
        }
        for url in ["", "file:relative", "http://host"] {
            run(member(role, url, "vm", &channel)).refused();
        }
        for address in ["", "7700", "host:7700", "127.0.0.1:70000"] {
            run(member(role, &good, "vm", address)).refused();
        }
        run(role.iter().copied()).refused();
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_channel_in_use_is_refused() {
    let scratch = Scratch::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let channel = listener.local_addr().expect("an address").to_string();
    let url = arbiter(&scratch, "arbiter");
    let sentence = run(member(&["primary", "echo"], &url, "vm", &channel)).refused();
    assert!(sentence.contains("--channel"), "{sentence}");
}
