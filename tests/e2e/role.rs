//! Members that learn their role from the arbiter: however they are started and restarted, they boot
//! one guest.

use crate::harness::{LOCKSTEP, Random, Scratch, recordings, replay_equal, run};
use crate::member::{Member, Told, arbiter, echo, echo_and_end, free_address, records, stage};
use crate::operator::ask;
use rustix::process::Signal;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// How many times two members are started at the same moment.
const STARTS: usize = 12;
/// The second one is started at most this much later.
const STAGGER_US: usize = 3000;

/// The addresses of two hosts, on this host.
struct Hosts {
    scratch: Scratch,
    addresses: [String; 2],
    starts: usize,
}

impl Hosts {
    fn new() -> Hosts {
        Hosts {
            scratch: Scratch::new(),
            addresses: [free_address(), free_address()],
            starts: 0,
        }
    }

    fn told(&self, host: usize) -> Told {
        let told = Told {
            channel: self.addresses[1 - host].clone(),
            ..Told::new(&self.scratch)
        };
        told.and(&["--listen", &self.addresses[host]])
    }

    /// Starts the member of a host like a supervisor: always with the same command.
    #[track_caller]
    fn start(&mut self, host: usize, guest: &str) -> Member {
        self.starts += 1;
        let name = format!("host-{host}-start-{}", self.starts);
        let command = Command::new(LOCKSTEP);
        let role = ["member", guest];
        Member::start(&self.scratch, &name, command, &role, &self.told(host))
    }

    /// Both members of a VM that never ran: host 0 founded it, and the guest runs.
    #[track_caller]
    fn pair(&mut self, guest: &str) -> (Member, Member) {
        let mut founder = self.start(0, guest);
        founder.await_event("waiting");
        let mut other = self.start(1, guest);
        founder.await_event("started");
        other.await_event("joined");
        (founder, other)
    }
}

/// Waits until a member reports that it is a backup. It must not have been anything else before.
#[track_caller]
fn is_backup(member: &mut Member) {
    member.await_event("connecting");
    for other in ["waiting", "started", "live", "solo"] {
        assert!(!member.has_told(other), "{other}: {member:?}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn of_two_members_started_together_one_boots_the_guest_and_restarted_neither_does() {
    let mut random = Random::new();
    for round in 0..STARTS {
        let (_stage, mut hosts) = (stage(), Hosts::new());
        let first = random.below(2);
        let mut one = hosts.start(first, "hello");
        // This sleep waits for nothing: it makes the random delay.
        std::thread::sleep(Duration::from_micros(random.below(STAGGER_US) as u64));
        let mut two = hosts.start(1 - first, "hello");
        one.await_event("ended");
        two.await_event("ended");
        let booted = [&one, &two].map(|member| member.has_told("started"));
        assert_ne!(booted[0], booted[1], "round {round}: {one:?} {two:?}");
        let printed = [one, two].map(|member| member.process.end().expect(0).stdout);
        let said = printed.map(|out| out.contains("hello: done"));
        assert_eq!(said, booted, "round {round}: who boots it prints");
        assert_eq!(records(&hosts.scratch), ["1.close", "1.open", "1.start"]);
        let logs = recordings(hosts.scratch.path());
        assert_eq!(logs.len(), 2, "{logs:?}");
        for log in &logs {
            replay_equal(log);
        }
        for host in 0..2 {
            let done = hosts.start(host, "hello").process.end();
            let sentence = done.one_sentence(0);
            assert!(
                sentence.contains("has ended, in generation 1"),
                "{sentence}"
            );
        }
        assert_eq!(recordings(hosts.scratch.path()), logs, "nothing ran again");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_founder_that_is_restarted_before_anything_ran_is_the_primary_again() {
    let (_stage, mut hosts) = (stage(), Hosts::new());
    let mut founder = hosts.start(0, "echo");
    founder.await_event("waiting");
    founder.kill();
    assert_eq!(records(&hosts.scratch), ["1.start"]);
    let mut other = hosts.start(1, "echo");
    is_backup(&mut other);
    let mut founder = hosts.start(0, "echo");
    founder.await_event("started");
    other.await_event("joined");
    echo(&mut founder, "one guest");
    founder.process.signal(Signal::TERM);
    founder.process.end().expect(0);
    other.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn when_both_are_killed_and_restarted_nobody_boots_a_second_history() {
    for in_order in [true, false] {
        let (_stage, mut hosts) = (stage(), Hosts::new());
        let (mut primary, backup) = hosts.pair("echo");
        echo(&mut primary, "the only history");
        match in_order {
            // Here the backup has no time to go live.
            true => {
                backup.process.signal(Signal::STOP);
                primary.kill();
                backup.kill();
            }
            // Here the primary may have gone on alone, with a claim or without one yet.
            false => {
                backup.kill();
                primary.kill();
            }
        }
        let before = records(&hosts.scratch);
        assert!(!before.contains(&"1.close".to_owned()), "{before:?}");
        let mut restarted = [hosts.start(1, "echo"), hosts.start(0, "echo")];
        restarted.iter_mut().for_each(is_backup);
        // While each looks for the other, neither may start the guest.
        std::thread::sleep(Duration::from_millis(500));
        for member in restarted {
            member.process.signal(Signal::TERM);
            let done = member.process.end().expect(0);
            assert_eq!(done.stdout, "", "no guest speaks: {done:#?}");
            assert!(done.stderr.contains("--force"), "{done:#?}");
            assert!(!done.stderr.contains("panicked"), "{done:#?}");
        }
        assert_eq!(records(&hosts.scratch), before, "generation 1 stays open");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_loser_of_a_generation_and_a_killed_primary_are_backups_when_restarted() {
    for killed in [true, false] {
        let (_stage, mut hosts) = (stage(), Hosts::new());
        let (mut primary, mut backup) = hosts.pair("echo");
        echo(&mut primary, "on the primary");
        if killed {
            primary.kill();
            backup.await_event("live");
        } else {
            primary.process.signal(Signal::STOP);
            backup.await_event("live");
            primary.process.signal(Signal::CONT);
            primary.process.end().expect(4);
        }
        let mut restarted = hosts.start(0, "echo");
        is_backup(&mut restarted);
        echo(&mut backup, "on the survivor");
        restarted.kill();
        backup.process.end_input();
        backup.process.end().expect(0);
        let done = hosts.start(0, "echo").process.end();
        assert!(done.one_sentence(0).contains("has ended"));
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_backup_that_is_restarted_never_boots_beside_a_lone_primary() {
    let (_stage, mut hosts) = (stage(), Hosts::new());
    let (mut primary, backup) = hosts.pair("echo");
    backup.kill();
    primary.await_event("solo");
    let mut restarted = hosts.start(1, "echo");
    is_backup(&mut restarted);
    echo(&mut primary, "still here");
    restarted.kill();
    primary.process.signal(Signal::TERM);
    primary.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn addresses_that_tell_no_founder_are_refused() {
    let scratch = Scratch::new();
    let url = arbiter(&scratch, "arbiter");
    let refused = |listen: &str, channel: &str| {
        let args = ["member", "echo", "--vm", "vm", "--arbiter", &url];
        let addresses = ["--listen", listen, "--channel", channel];
        run(args.into_iter().chain(addresses)).refused()
    };
    let (one, two, three) = (free_address(), free_address(), free_address());
    assert!(refused(&one, &one).contains("are both"));
    for every in ["0.0.0.0:7700", "[::]:7700", "192.168.9.1:0"] {
        let sentence = refused(every, &one);
        assert!(sentence.contains("--listen"), "{sentence}");
    }
    assert!(!scratch.join("arbiter/vm").exists(), "nothing was founded");

    // A VM that was founded with a third address does not belong to a pair that does not know it.
    let told = Told {
        channel: two.clone(),
        ..Told::new(&scratch)
    };
    let command = Command::new(LOCKSTEP);
    let told = told.and(&["--listen", &one]);
    let mut founder = Member::start(&scratch, "founder", command, &["member", "echo"], &told);
    founder.await_event("waiting");
    founder.kill();
    let sentence = refused(&two, &three);
    assert!(sentence.contains(&one), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn members_hand_over_to_each_other_and_are_protected_again_by_themselves() {
    let (_stage, mut hosts) = (stage(), Hosts::new());
    let (mut live, mut backup) = hosts.pair("echo");
    // How many times each has joined, and has been protected, by then.
    for (round, joined, protected) in [(1, 1, 1), (2, 2, 1), (3, 2, 2)] {
        echo(&mut live, &format!("line {round}"));
        ask(&hosts.scratch, "switchover").expect(0);
        // The same process, now as the other's backup.
        live.await_nth("joined", joined);
        backup.await_nth("protected", protected);
        (live, backup) = (backup, live);
    }
    echo(&mut live, "the last line");
    live.process.end_input();
    let done = live.process.end().expect(0);
    assert!(done.stdout.ends_with("echo: done, 4 lines\n"), "{done:#?}");
    backup.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_member_that_is_killed_and_restarted_protects_the_survivor() {
    let (_stage, mut hosts) = (stage(), Hosts::new());
    let (mut live, mut backup) = hosts.pair("echo");
    let mut host = 0;
    for round in 1..=4 {
        echo(&mut live, &format!("line {round}"));
        live.kill();
        backup.await_event("live");
        let mut restarted = hosts.start(host, "echo");
        restarted.await_event("joined");
        (live, backup, host) = (backup, restarted, 1 - host);
    }
    echo_and_end(live, "the last line");
    backup.process.end().expect(0);
}

/// A member that cannot serve for this reason, with these options besides a guest.
#[track_caller]
fn cannot_serve(hosts: &mut Hosts, word: &str, guest: &str, more: &[&str]) {
    hosts.starts += 1;
    let name = format!("cannot-{}", hosts.starts);
    let told = hosts.told(0).and(more);
    let member = Member::start(
        &hosts.scratch,
        &name,
        Command::new(LOCKSTEP),
        &["member", guest],
        &told,
    );
    let sentence = member.process.end().refused();
    assert!(sentence.contains(word), "{word}: {sentence}");
    let founded = std::fs::exists(hosts.scratch.join("arbiter/vm/1.start"));
    assert!(!founded.expect("asked"), "{word}: it founded the VM");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_member_that_cannot_serve_founds_nothing_and_names_the_option() {
    let (_stage, mut hosts) = (stage(), Hosts::new());
    cannot_serve(&mut hosts, "no guest", "no-such-guest", &[]);
    cannot_serve(&mut hosts, "tap", "kv", &["--net", "tap=no-such-tap"]);
    cannot_serve(&mut hosts, "--mem", "echo", &["--mem", "1"]);
    cannot_serve(
        &mut hosts,
        "--events",
        "echo",
        &[
            "--console",
            "none",
            "--shadow",
            "on",
            "--fence",
            "true",
            "--events",
            "/nowhere/at/all",
        ],
    );
    let own = hosts.addresses[0].clone();
    // An address of no host (RFC 5737); a port that is in use by TCP, by UDP; and no port.
    hosts.addresses[0] = "192.0.2.1:7700".into();
    cannot_serve(&mut hosts, "--listen 192.0.2.1:7700", "echo", &[]);
    hosts.addresses[0] = own;
    let taken = TcpListener::bind(&hosts.addresses[0]).expect("it is free");
    cannot_serve(&mut hosts, "--listen 127", "echo", &[]);
    drop(taken);
    let taken = UdpSocket::bind(&hosts.addresses[0]).expect("it is free");
    cannot_serve(&mut hosts, "--listen 127", "echo", &[]);
    drop(taken);
    let own = std::mem::replace(&mut hosts.addresses[0], "127.0.0.1:0".into());
    cannot_serve(&mut hosts, "--listen 127.0.0.1:0 has no port", "echo", &[]);
    hosts.addresses[0] = own;
    // Now nothing stops the two from starting.
    let (mut founder, other) = hosts.pair("echo");
    founder.process.end_input();
    founder.process.end().expect(0);
    other.process.end().expect(0);
}
