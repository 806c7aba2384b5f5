//! Lockstep as an operator runs it, with Redis's own tools as clients.

use crate::harness::{Scratch, replay_equal};
use crate::kv::{benchmark, cli, kv_pair, no_error, recorded_kv, stop};
use crate::member::stage;
use crate::network::Segment;
use rustix::process::Signal;
use std::time::Duration;

/// A benchmark must end within this time.
const BENCHMARK_LIMIT: Duration = Duration::from_secs(120);

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn redis_benchmark_runs_on_over_a_failover_without_an_error() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let (primary, mut backup) = kv_pair(&scratch, &segment);
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
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
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
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
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
