//! What an operator asks of the members on this host.

use crate::harness::{Done, Process, Scratch, lockstep};
use lockstep_events::MemberStatus;
use std::ffi::OsStr;

/// `lockstep` with these arguments, where the members have their control sockets.
pub fn operator<A: AsRef<OsStr>>(scratch: &Scratch, args: impl IntoIterator<Item = A>) -> Process {
    let mut command = lockstep(args);
    command.env("LOCKSTEP_RUNTIME_DIR", scratch.join("runtime"));
    Process::start(&mut command)
}

/// Runs `lockstep stop`, `switchover` or `status` of the VM `vm` to its end.
#[track_caller]
pub fn ask(scratch: &Scratch, what: &str) -> Done {
    operator(scratch, [what, "--vm", "vm"]).end()
}

/// How the members of a VM stand.
#[track_caller]
pub fn status(scratch: &Scratch, vm: &str) -> Vec<MemberStatus> {
    let done = operator(scratch, ["status", "--vm", vm, "--json"]).end();
    let mut told = done.expect(0).json();
    serde_json::from_value(told["members"].take()).expect("a list of statuses")
}
