//! Stand-ins for tests that need no KVM: a private network, and a pair without a guest.
//!
//! Both run the test binary again: the network because a user namespace wants a process with one
//! thread, the pair because members are processes.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::clock::mono_ns;
use super::interrupt::Interrupts;
use super::members::Program;
use super::netns::{self, HOST};
use super::stage::Setting;
use super::{DrillError, Report, RunResult};

/// Tells a test, run again, that it is in the process that is to get its own network.
const OWN_NETWORK: &str = "LOCKSTEP_TEST_OWN_NETWORK";
/// What a test prints that could not run.
const SKIPPED: &str = "skipped";
/// Prefix of the argument that makes [`member`] play a member, followed by its fault.
const FAULT: &str = "fault=";
/// Where the fake backup serves: the bridge's own address, as there is no guest.
const SERVED: SocketAddrV4 = SocketAddrV4::new(HOST, 6379);
/// How long a fake backup tries to reach its primary.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// Runs `body` in a new private network, in a process of its own. `test` is the calling test's
/// full path. Where the host allows no such network, the test says so and passes.
pub(crate) fn in_own_network(test: &str, body: impl FnOnce()) {
    let test = test.split_once("::").expect("a path within the crate").1;
    if std::env::var_os(OWN_NETWORK).is_some() {
        return match netns::enter_new_network() {
            Ok(()) => body(),
            Err(refusal) => println!("{SKIPPED} {test}: {refusal}"),
        };
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(OWN_NETWORK, "1");
    // Only an error's number comes back from there, which then says too little.
    let gain =
        || netns::gain_network_rights().map_err(|_| io::Error::from_raw_os_error(libc::EPERM));
    // SAFETY: the forked child has one thread and memory of its own. It makes system calls and, as
    // glibc keeps its allocator usable after a fork, may format the few lines that it writes.
    unsafe { again.pre_exec(gain) };
    let again = match again.output() {
        Ok(again) => again,
        Err(_) => return println!("{SKIPPED} {test}: this user may make no private network here"),
    };
    let text = String::from_utf8_lossy(&again.stdout);
    let errors = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "no test is named {test}: {text}");
    if let Some(reason) = text.lines().find(|line| line.contains(SKIPPED)) {
        println!("{reason}");
    }
}

/// Makes a TAP that is not up. Must run in a process with its own network.
pub(crate) fn create_tap_that_is_down(name: &str) {
    netns::create_tap(name).unwrap();
}

/// Makes a TAP, up and on the bridge.
pub(crate) fn create_port(name: &'static str) {
    netns::create_tap(name).unwrap();
    netns::configure(async |links| links.add_port(name).await).unwrap();
}

/// Takes an interface down, or brings it up.
pub(crate) fn set_up(name: &'static str, up: bool) {
    let set = netns::configure(async |links| match up {
        true => links.up(name).await,
        false => links.down(name).await,
    });
    set.unwrap();
}

/// Removes an interface.
pub(crate) fn remove(name: &'static str) {
    netns::configure(async |links| links.remove(name).await).unwrap();
}

/// Holds kill-primary with a pair that has `fault`. Must run in a process with its own network.
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

#[test]
fn a_member_whose_host_cannot_ends_the_drill_with_status_2() {
    let path = concat!(
        module_path!(),
        "::a_member_whose_host_cannot_ends_the_drill_with_status_2"
    );
    in_own_network(path, || {
        let refusal = drill("cannot", 3).unwrap_err();
        assert_eq!(refusal.exit_status(), 2);
        let text = refusal.to_string();
        assert!(
            text.contains("the backup cannot run on this host: this host is a test"),
            "{text}"
        );
    });
}

/// A member, if the arguments are a member's; otherwise a test of nothing.
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

fn tell(events: &str, event: &str) {
    let mut file = OpenOptions::new().append(true).open(events).unwrap();
    let line = format!("{{\"mono_ns\":{},{event}}}\n", mono_ns());
    file.write_all(line.as_bytes()).unwrap();
}

fn primary(events: &str, channel: &str, fault: &str) {
    tell(events, r#""event":"waiting""#);
    let (mut backup, _) = TcpListener::bind(channel).unwrap().accept().unwrap();
    tell(events, r#""event":"started","generation":1"#);
    if fault == "split" {
        tell(events, r#""event":"solo""#);
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
    tell(events, r#""event":"joined""#);
    // A killed primary's channel ends with a reset if it had something unread.
    let _ = primary.read_to_end(&mut Vec::new());
    tell(events, r#""event":"suspect","reason":"closed""#);
    if fault == "diverge" {
        tell(events, r#""event":"diverged","position":42"#);
    }
    if fault == "die" {
        std::process::exit(1);
    }
    tell(events, r#""event":"caught_up","position":7"#);
    tell(events, r#""event":"claim_won","generation":1"#);
    tell(events, r#""event":"live","generation":1,"reemitted":0"#);
    loop {
        thread::park();
    }
}

/// Serves one client of Redis's protocol: everything with OK, but the n-th INCR with `answer(n)`,
/// or by hanging up if that is empty.
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
