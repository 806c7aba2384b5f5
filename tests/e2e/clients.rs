//! Ordinary Redis clients, each with its defaults, through the loss of the primary.

use crate::harness::{Process, Scratch, replay_equal};
use crate::kv::{GUEST, cli, kv_pair, recorded_kv, stop};
use crate::member::stage;
use crate::network::{Place, Segment};
use rustix::process::Signal;
use std::path::Path;

/// The directory into which `.ci/run` installs: a virtual environment of Python, and modules for Node.
const INSTALLED: &str = env!("LOCKSTEP_CLIENTS");
/// A client counts at least this far before the kill, and at least this much further after it.
const STRETCH: u64 = 300;

/// A program of `tests/clients`, run by Python or by Node in the middle of the segment.
fn client(segment: &Segment, program: &str) -> Process {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients");
    let python = Path::new(INSTALLED).join("venv/bin/python");
    let interpreter = match program.ends_with(".py") {
        true => python.as_path(),
        false => Path::new("node"),
    };
    let mut command = segment.command(Place::Middle, interpreter);
    command.arg(path.join(program)).arg(GUEST);
    Process::with_input(command.arg(Path::new(INSTALLED).join("node")))
}

/// How far a client has counted, according to its complete lines.
fn counted(out: &str) -> u64 {
    let whole = out.rfind('\n').map_or("", |end| &out[..end]);
    let last = whole
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("at "));
    last.map_or(0, |value| value.parse().expect("a number"))
}

/// A client does what its users do, counts through the loss of the primary, and finds no answer missing
/// or repeated, on the same connection as before.
#[track_caller]
fn counts_through_a_kill(program: &str) {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let (primary, mut backup) = kv_pair(&scratch, &segment);
    let mut running = client(&segment, program);
    running.await_stdout("it counts", |out| counted(out) >= STRETCH);
    primary.kill();
    backup.await_event("live");
    let before = counted(&running.stdout());
    running.await_stdout("it counts on", |out| counted(out) >= before + STRETCH);
    running.end_input();
    let done = running.end().expect(0);
    let last = done.stdout.lines().last().unwrap_or_default();
    let value = last.strip_prefix("counted ").expect("the last line");
    assert_eq!(value, cli(&segment, &["GET", "counter"]), "{done:#?}");
    assert_eq!(done.stderr, "", "{done:#?}");

    backup.process.signal(Signal::TERM);
    backup.process.end().expect(0);
    assert_eq!(replay_equal(&scratch.join("backup"))["go_lives"], 1);
    replay_equal(&scratch.join("primary"));
}

macro_rules! through_a_kill {
    ($name:ident, $program:literal, $cfg:ident, $needs:literal) => {
        #[test]
        #[cfg_attr(not($cfg), ignore = $needs)]
        fn $name() {
            counts_through_a_kill($program);
        }
    };
}

through_a_kill!(
    redis_py_counts_through_a_kill,
    "redis_py.py",
    can_redis_py,
    "needs KVM, root, iproute2, redis-tools, and redis-py where LOCKSTEP_CLIENTS points (see .ci/run)"
);
through_a_kill!(
    node_redis_counts_through_a_kill,
    "node_redis.mjs",
    can_node_redis,
    "needs KVM, root, iproute2, redis-tools, and node-redis where LOCKSTEP_CLIENTS points (see .ci/run)"
);
through_a_kill!(
    ioredis_counts_through_a_kill,
    "ioredis.mjs",
    can_ioredis,
    "needs KVM, root, iproute2, redis-tools, and ioredis where LOCKSTEP_CLIENTS points (see .ci/run)"
);

#[test]
#[cfg_attr(
    not(can_coredis_and_glide),
    ignore = "needs KVM, root, iproute2, redis-tools, and coredis and valkey-glide where LOCKSTEP_CLIENTS points (see .ci/run)"
)]
fn coredis_and_valkey_glide_are_served() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let kv = recorded_kv(&scratch, &segment);
    let done = client(&segment, "resp3.py").end().expect(0);
    assert_eq!(done.stdout, "coredis: done\nvalkey-glide: done\n");
    stop(kv);
    replay_equal(&scratch.join("kv"));
}
