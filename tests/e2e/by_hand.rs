//! Lockstep as an operator runs it, with Redis's own tools as clients.

use crate::harness::{Done, LOCKSTEP, Process, Scratch, replay_equal};
use crate::member::{Member, Told, arbiter, stage};
use crate::network::{Place, Segment};
use rustix::process::Signal;
use std::time::Duration;

/// The guest's address.
pub const GUEST: &str = "10.77.0.2";
/// A benchmark takes no longer.
const BENCHMARK_LIMIT: Duration = Duration::from_secs(120);

/// `redis-benchmark` against the guest, in the middle of the segment.
pub fn benchmark(segment: &Segment, args: &[&str]) -> Process {
    let mut command = segment.command(Place::Middle, "redis-benchmark");
    Process::start(command.args(["-h", GUEST]).args(args))
}

/// What `redis-cli` prints for one command.
#[track_caller]
pub fn cli(segment: &Segment, args: &[&str]) -> String {
    let mut command = segment.command(Place::Middle, "redis-cli");
    let done = Process::start(command.args(["-h", GUEST]).args(args)).end();
    done.expect(0).stdout.trim_end().to_owned()
}

/// Fails unless a benchmark ended well: its errors are lines among the others.
#[track_caller]
pub fn no_error(done: Done) -> Done {
    let done = done.expect(0);
    for word in ["rror", "reset", "refused", "losed", "WARNING: -"] {
        let said = done.stdout.contains(word) || done.stderr.contains(word);
        assert!(!said, "{word:?}: {done:#?}");
    }
    done
}

/// Waits until the guest listens: until a connection is answered.
#[track_caller]
pub fn await_ping(segment: &Segment) {
    let script = format!("until redis-cli -h {GUEST} ping 2>&1 | grep -q PONG; do :; done");
    let mut command = segment.command(Place::Middle, "sh");
    Process::start(command.args(["-c", &script]))
        .end()
        .expect(0);
}

/// A machine with `kv` on the segment's first host, recorded into `scratch/kv`.
pub fn recorded_kv(scratch: &Scratch, segment: &Segment) -> Process {
    let mut command = segment.command(Place::A, LOCKSTEP);
    command.args(["run", "kv", "--net", "tap=tap0", "--record"]);
    let kv = Process::start(command.arg(scratch.join("kv")));
    await_ping(segment);
    kv
}

/// Stops it with an end entry.
#[track_caller]
pub fn stop(kv: Process) {
    kv.signal(Signal::TERM);
    kv.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
#[cfg_attr(not(root), ignore = "needs root for network namespaces")]
#[cfg_attr(not(has_iproute2), ignore = "needs ip (package iproute2)")]
#[cfg_attr(
    not(has_redis_tools),
    ignore = "needs redis-benchmark (package redis-tools)"
)]
fn redis_benchmark_runs_on_over_a_failover_without_an_error() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let told = Told {
        vm: "kv".into(),
        arbiter: arbiter(&scratch, "arbiter"),
        channel: "10.78.0.1:7700".into(),
        more: vec!["--net".into(), "tap=tap0".into()],
    };
    let host = |place| segment.command(place, LOCKSTEP);
    let mut backup = Member::start(&scratch, "backup", host(Place::B), &["backup"], &told);
    let role = ["primary", "kv"];
    let mut primary = Member::start(&scratch, "primary", host(Place::A), &role, &told);
    primary.await_event("started");
    backup.await_event("joined");
    await_ping(&segment);
    assert_eq!(cli(&segment, &["SET", "kept", "yes"]), "OK");

    // Long enough that the failover comes in the middle. The benchmark reports every quarter of a
    // second: after its first report it is well under way.
    let args = ["-c", "50", "-P", "4", "-n", "60000", "-t", "set,get,incr"];
    let running = benchmark(&segment, &args);
    running.await_stdout("the benchmark is under way", |out| {
        out.contains("overall") && out.contains("rps=")
    });
    primary.kill();
    assert_eq!(backup.await_event("live")["generation"], 1);
    assert!(!running.stdout().contains("INCR"), "killed in mid-stream");
    let done = no_error(running.end_within(BENCHMARK_LIMIT));
    for test in ["SET", "GET", "INCR"] {
        assert!(done.stdout.contains(test), "{done:#?}");
    }
    assert_eq!(cli(&segment, &["GET", "kept"]), "yes");
    assert_eq!(cli(&segment, &["GET", "counter:__rand_int__"]), "60000");

    backup.process.signal(Signal::TERM);
    backup.process.end().expect(0);
    let verdict = replay_equal(&scratch.join("backup"));
    assert_eq!(verdict["go_lives"], 1, "{verdict}");
    replay_equal(&scratch.join("primary"));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
#[cfg_attr(not(root), ignore = "needs root for network namespaces")]
#[cfg_attr(not(has_iproute2), ignore = "needs ip (package iproute2)")]
#[cfg_attr(
    not(has_redis_tools),
    ignore = "needs redis-benchmark (package redis-tools)"
)]
fn kv_under_redis_benchmark_replays_with_equal_digests() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let kv = recorded_kv(&scratch, &segment);
    let args = [
        "-c", "50", "-P", "16", "-n", "200000", "-t", "set,get", "-q",
    ];
    no_error(benchmark(&segment, &args).end_within(BENCHMARK_LIMIT));
    stop(kv);
    let first = replay_equal(&scratch.join("kv"));
    assert!(first["outputs"].as_u64() > Some(1000), "{first}");
    for _ in 1..3 {
        assert_eq!(replay_equal(&scratch.join("kv")), first);
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
#[cfg_attr(not(root), ignore = "needs root for network namespaces")]
#[cfg_attr(not(has_iproute2), ignore = "needs ip (package iproute2)")]
#[cfg_attr(not(has_redis_tools), ignore = "needs redis-cli (package redis-tools)")]
fn redis_cli_is_served() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let kv = recorded_kv(&scratch, &segment);
    for (command, answer) in [
        (&["PING"][..], "PONG"),
        (&["ECHO", "hello there"], "hello there"),
        (&["SET", "key", "value"], "OK"),
        (&["GET", "key"], "value"),
        (&["INCR", "number"], "1"),
        (&["INCRBY", "number", "41"], "42"),
        (
            &["INCR", "key"],
            "ERR value is not an integer or out of range",
        ),
        (&["MSET", "a", "1", "b", "2"], "OK"),
        (&["MGET", "a", "nothing", "b"], "1\n\n2"),
        (&["EXISTS", "a", "b", "nothing"], "2"),
        (&["DBSIZE"], "4"),
        (&["DEL", "a", "b", "nothing"], "2"),
        (&["FLUSHALL"], "OK"),
        (&["DBSIZE"], "0"),
        (&["GET", "key"], ""),
    ] {
        assert_eq!(cli(&segment, command), answer, "{command:?}");
    }
    let unknown = cli(&segment, &["NOSUCHCOMMAND"]);
    assert!(unknown.starts_with("ERR unknown command"), "{unknown}");
    assert!(cli(&segment, &["INFO"]).contains("redis_version"));
    stop(kv);
    replay_equal(&scratch.join("kv"));
}
