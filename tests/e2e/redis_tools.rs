//! Redis's own tools with their defaults, run to their ends.

use crate::harness::{Process, Scratch, replay_equal};
use crate::kv::{GUEST, benchmark, kv_pair, no_error, recorded_kv, redis_cli, stop, widen};
use crate::member::stage;
use crate::network::{Place, Segment};
use rustix::process::Signal;
use std::time::Duration;

/// All tests of the benchmark must end within this time.
const ALL_LIMIT: Duration = Duration::from_secs(300);
/// Requests of each test.
const REQUESTS: &str = "2000";
/// Some of its tests, one for each kind of value: if all of these are in its output, it ran all tests.
const TESTS: [&str; 12] = [
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "INCR",
    "LPUSH",
    "RPOP",
    "SADD",
    "HSET",
    "SPOP",
    "ZADD",
    "ZPOPMIN",
    "MSET (10 keys)",
];

/// Runs `redis-benchmark` with all its tests and these arguments, to the end, without an error.
#[track_caller]
fn all_tests(segment: &Segment, args: &[&str]) {
    widen(segment);
    let all = [args, &["-n", REQUESTS, "--csv"]].concat();
    let done = no_error(benchmark(segment, &all).end_within(ALL_LIMIT));
    for test in TESTS {
        let line = format!("\"{test}\"");
        assert!(done.stdout.contains(&line), "{test}: {done:#?}");
    }
}

/// The same against a machine that runs alone.
#[track_caller]
fn all_tests_on_a_run(args: &[&str]) {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let kv = recorded_kv(&scratch, &segment);
    all_tests(&segment, args);
    stop(kv);
    replay_equal(&scratch.join("kv"));
}

/// The same against a pair.
#[track_caller]
fn all_tests_on_a_pair(args: &[&str]) {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let (primary, backup) = kv_pair(&scratch, &segment);
    all_tests(&segment, args);
    primary.process.signal(Signal::TERM);
    primary.process.end().expect(0);
    backup.process.end().expect(0);
    let verdict = replay_equal(&scratch.join("primary"));
    assert_eq!(replay_equal(&scratch.join("backup")), verdict);
}

macro_rules! with_redis_tools {
    ($(fn $name:ident() $body:block)*) => {
        $(
            #[test]
            #[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
            fn $name() $body
        )*
    };
}

with_redis_tools! {
    fn the_benchmark_by_its_defaults_on_a_run() {
        all_tests_on_a_run(&[]);
    }

    fn the_benchmark_by_its_defaults_on_a_pair() {
        all_tests_on_a_pair(&[]);
    }

    fn the_benchmark_in_resp3_on_a_run() {
        all_tests_on_a_run(&["-3"]);
    }

    fn the_benchmark_in_resp3_on_a_pair() {
        all_tests_on_a_pair(&["-3"]);
    }

    fn the_benchmark_with_100_clients_on_a_pair() {
        all_tests_on_a_pair(&["-c", "100"]);
    }

    fn the_benchmark_with_100_clients_and_a_connection_per_request_on_a_pair() {
        all_tests_on_a_pair(&["-c", "100", "-k", "0"]);
    }

    fn redis_cli_watches_and_searches() {
        let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
        let kv = recorded_kv(&scratch, &segment);
        let cli = |args: &[&str]| redis_cli(&segment, args);
        let filled = cli(&["MSET", "a", "1", "b", "22"]).end().expect(0);
        assert_eq!(filled.stdout, "OK\n");
        // It prints until it is killed. Into a file it would print late, hence `stdbuf`.
        let mut command = segment.command(Place::Middle, "stdbuf");
        let watch = ["-oL", "redis-cli", "-h", GUEST, "--stat", "-i", "0.1"];
        let watching = Process::start(command.args(watch));
        watching.await_stdout("three lines of figures", |out| {
            let mut lines = out.lines().map(|line| line.split_whitespace().next());
            lines.by_ref().filter(|keys| *keys == Some("2")).count() >= 3
        });
        drop(watching);
        let found = cli(&["--scan", "--pattern", "[ab]"]).end().expect(0);
        let mut found: Vec<_> = found.stdout.lines().collect();
        found.sort_unstable();
        assert_eq!(found, ["a", "b"]);
        let largest = cli(&["--bigkeys"]).end().expect(0).stdout;
        assert!(largest.contains("2 strings with 3 bytes"), "{largest}");
        let listed = cli(&["CLIENT", "LIST"]).end().expect(0).stdout;
        assert!(listed.contains(" addr=10.77.0.1:"), "{listed}");
        let maps = cli(&["-3", "CONFIG", "GET", "save"]).end().expect(0);
        assert_eq!(maps.stdout, "save \n");
        stop(kv);
        replay_equal(&scratch.join("kv"));
    }

    fn keys_expire_by_the_guests_time_on_both_sides_of_a_failover() {
        let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
        let (primary, mut backup) = kv_pair(&scratch, &segment);
        let cli = |args: &[&str]| {
            let mut command = segment.command(Place::Middle, "redis-cli");
            let done = Process::start(command.args(["-h", GUEST]).args(args)).end();
            done.expect(0).stdout.trim_end().to_owned()
        };
        assert_eq!(cli(&["SET", "long", "v", "EX", "1000"]), "OK");
        assert_eq!(cli(&["SET", "short", "v", "PX", "1500"]), "OK");
        let until = cli(&["PEXPIRETIME", "long"]);
        primary.kill();
        backup.await_event("live");
        assert_eq!(cli(&["PEXPIRETIME", "long"]), until);
        let mut gone = segment.command(Place::Middle, "sh");
        let script = format!("until redis-cli -h {GUEST} exists short | grep -q 0; do :; done");
        Process::start(gone.args(["-c", &script])).end().expect(0);
        assert_eq!(cli(&["DBSIZE"]), "1");
        let left: u64 = cli(&["TTL", "long"]).parse().expect("a number");
        assert!((900..=1000).contains(&left), "{left}");
        assert!(cli(&["INFO", "stats"]).contains("expired_keys:1"));
        backup.process.signal(Signal::TERM);
        backup.process.end().expect(0);
        replay_equal(&scratch.join("backup"));
    }
}
