//! Stand-ins for tests that need no KVM: a private network, and a pair without a guest.
//!
//! For both, the test binary is run again: only a process with one thread can make the network's user
//! namespace, and members are processes.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::clock::mono_ns;
use super::interrupt::Interrupts;
use super::members::Program;
use super::samples;
use super::stage::Setting;
use super::{DrillError, Report, RunResult};
use ft_protocol::arbiter::MemberId;
use lockstep_events::{Event, Stamped};
use lockstep_netns::HOST;
use lockstep_netns::testing::in_own_network;

/// Prefix of the argument that makes [`member`] play a member, followed by its fault.
const FAULT: &str = "fault=";
/// Where the fake backup serves: the bridge's own address, as there is no guest.
const SERVED: SocketAddrV4 = SocketAddrV4::new(HOST, 6379);
/// An event that there is not.
const NEWS: &str = "{\"event\":\"alive\",\"generation\":1,\"mono_ns\":5}\n";
/// How long a fake backup tries to reach its primary.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// Runs kill-primary with a pair that has `fault`. Must run in a process with its own network.
fn drill(fault: &str, runs: u32) -> Result<(Report, Vec<RunResult>), DrillError> {
    let module = module_path!().split_once("::").unwrap().1;
    let mut setting = Setting::new(Interrupts::default(), true);
    setting.guest = SERVED;
    setting.program = Program {
        path: "/proc/self/exe".into(),
        leading: ["--exact", &format!("{module}::member"), "--nocapture", "--"]
            .iter()
            .map(Into::into)
            .chain([format!("{FAULT}{fault}").into()])
            .collect(),
    };
    let dir = tempfile::tempdir().unwrap();
    let seed = super::seed::fresh();
    println!("seed {seed}");
    super::hold(&super::SCENARIOS[0], runs, seed, dir.path(), &setting)
}

fn findings(fault: &str) -> Vec<String> {
    let (report, _) = drill(fault, 1).unwrap();
    assert!(!report.passed());
    assert_eq!(report.failed_runs, 1);
    report.violations
}

#[test]
fn a_good_pair_passes_every_run() {
    let path = concat!(module_path!(), "::a_good_pair_passes_every_run");
    in_own_network(path, || {
        let (report, runs) = drill("none", 2).unwrap();
        assert!(report.passed(), "{report}");
        assert_eq!((report.tally.lost, report.tally.repeated), (0, 0));
        assert!(report.tally.acked >= 2 * 700, "{report}");
        assert!(report.vmm_ms.is_some() && report.client_ms.is_some());
        assert_eq!(runs[1].seed, report.seed + 1);
    });
}

#[test]
fn every_planted_fault_fails_the_drill() {
    let path = concat!(module_path!(), "::every_planted_fault_fails_the_drill");
    in_own_network(path, || {
        for (fault, finding) in [
            ("repeat", "was due"),
            ("gap", "was due"),
            ("hang-up", "the connection broke after"),
            ("split", "split brain"),
            ("diverge", "the backup diverged at position 42"),
            ("die", "the backup ended with status 1 before"),
        ] {
            let found = findings(fault);
            assert!(
                found.iter().any(|text| text.contains(finding)),
                "{fault}: {found:?}"
            );
        }
    });
}

/// Nothing waits for its time-out: the finding is what was told, not that something was late.
#[test]
fn an_event_that_the_drill_does_not_know_fails_it_at_once_and_is_named() {
    let path = concat!(
        module_path!(),
        "::an_event_that_the_drill_does_not_know_fails_it_at_once_and_is_named"
    );
    in_own_network(path, || {
        for (fault, finding) in [
            (
                "news",
                "line 5 of the events file is no event: `alive` is unknown",
            ),
            (
                "last",
                "line 6 of the events file is no event: `alive` is unknown",
            ),
            ("field", "`live` has other fields: unknown field `colour`"),
        ] {
            let found = findings(fault);
            let told =
                |text: &String| text.contains("the backup's events: ") && text.contains(finding);
            assert!(found.iter().any(told), "{fault}: {found:?}");
            let late = |text: &String| text.contains("not within");
            assert!(!found.iter().any(late), "{fault}: {found:?}");
        }
    });
}

#[test]
fn a_member_whose_host_cannot_ends_the_drill() {
    let path = concat!(
        module_path!(),
        "::a_member_whose_host_cannot_ends_the_drill"
    );
    in_own_network(path, || {
        let refusal = drill("cannot", 3).unwrap_err();
        assert!(matches!(refusal, DrillError::Host(_)), "{refusal:?}");
        let text = refusal.to_string();
        assert!(
            text.contains("the backup cannot run on this host: this host is a test"),
            "{text}"
        );
    });
}

/// Plays a member if the arguments are a member's; otherwise this test does nothing.
#[test]
fn member() {
    let args: Vec<String> = std::env::args().collect();
    let Some(fault) = args.iter().find_map(|a| a.strip_prefix(FAULT)) else {
        return;
    };
    let option = |name: &str| {
        let at = args.iter().position(|a| a == name).unwrap();
        args[at + 1].clone()
    };
    let events = option("--events");
    let channel = option("--channel");
    assert_eq!(option("--vm"), "drill");
    assert!(Path::new(option("--arbiter").strip_prefix("file:").unwrap()).is_dir());
    if args.iter().any(|a| a == "primary") {
        assert!(args.iter().any(|a| a == "kv"));
        primary(&events, &channel, fault);
    } else {
        backup(&events, &channel, fault);
    }
}

fn tell(events: &str, event: Event) {
    let mono_ns = mono_ns();
    write(events, &Stamped { mono_ns, event }.line());
}

fn write(events: &str, line: &str) {
    let mut file = OpenOptions::new().append(true).open(events).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

fn primary(events: &str, channel: &str, fault: &str) {
    let member = MemberId(1);
    tell(events, Event::Waiting { member });
    let (mut backup, _) = TcpListener::bind(channel).unwrap().accept().unwrap();
    tell(events, Event::Started { generation: 1 });
    if fault == "split" {
        tell(events, samples::solo(1));
    }
    backup.read_to_end(&mut Vec::new()).unwrap();
}

fn backup(events: &str, channel: &str, fault: &str) {
    if fault == "cannot" {
        eprintln!("this host is a test");
        std::process::exit(2);
    }
    let deadline = Instant::now() + JOIN_LIMIT;
    let mut primary = loop {
        match TcpStream::connect(channel) {
            Ok(stream) => break stream,
            Err(e) if Instant::now() > deadline => panic!("{e}"),
            Err(_) => thread::yield_now(),
        }
    };
    let guest = TcpListener::bind(SERVED).unwrap();
    let spoils = fault.to_owned();
    thread::spawn(move || {
        for client in guest.incoming() {
            converse(client.unwrap(), |n| match (spoils.as_str(), n) {
                ("hang-up", 150) => String::new(),
                ("repeat", 150..) => format!(":{}\r\n", n - 1),
                ("gap", 150..) => format!(":{}\r\n", n + 1),
                _ => format!(":{n}\r\n"),
            });
        }
    });
    tell(events, samples::joined(1));
    // If a killed primary had unread bytes, its channel ends with a reset.
    let _ = primary.read_to_end(&mut Vec::new());
    let reason = "closed".to_owned();
    tell(events, Event::Suspect { reason });
    if fault == "diverge" {
        tell(events, samples::diverged(42));
    }
    if fault == "die" {
        std::process::exit(1);
    }
    tell(events, samples::caught_up());
    tell(events, Event::ClaimWon { generation: 1 });
    match fault {
        // The drill waits for `live`, and gets what it does not know.
        "news" => write(events, NEWS),
        // The drill has all that it waits for.
        "last" => {
            tell(events, samples::live(1));
            write(events, NEWS);
        }
        "field" => write(
            events,
            "{\"colour\":1,\"event\":\"live\",\"generation\":1,\"mono_ns\":5,\"reemitted\":0,\"shadowed\":0}\n",
        ),
        _ => tell(events, samples::live(1)),
    }
    loop {
        thread::park();
    }
}

/// Serves one client of Redis's protocol. Answers everything with OK, but the n-th INCR with
/// `answer(n)`; if that is empty, it closes the connection.
pub(super) fn converse(stream: TcpStream, answer: impl Fn(u64) -> String) {
    let mut incremented = 0;
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    let mut line = || lines.next().and_then(Result::ok);
    while let Some(header) = line() {
        let count: usize = header[1..].parse().unwrap();
        let words: Vec<String> = (0..count)
            .map(|_| line().and_then(|_length| line()).unwrap())
            .collect();
        let reply = if words[0] == "INCR" {
            incremented += 1;
            answer(incremented)
        } else {
            "+OK\r\n".into()
        };
        if reply.is_empty() || stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}
