//! For tests: a private network of their own.
//!
//! It runs the test binary again, as a user namespace wants a process with one thread.

#![allow(clippy::print_stdout, reason = "tests print what they skip")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Tells a test, run again, that it is in the process that is to get its own network.
const OWN_NETWORK: &str = "LOCKSTEP_TEST_OWN_NETWORK";
/// What a test prints that could not run.
const SKIPPED: &str = "skipped";

/// Runs `body` in a new private network, in a process of its own. `test` is the calling test's
/// full path. Where the host allows no such network, the test says so and passes.
pub fn in_own_network(test: &str, body: impl FnOnce()) {
    let test = test.split_once("::").expect("a path within the crate").1;
    if std::env::var_os(OWN_NETWORK).is_some() {
        return match super::enter_new_network() {
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
        || super::gain_network_rights().map_err(|_| io::Error::from_raw_os_error(libc::EPERM));
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
pub fn create_tap_that_is_down(name: &str) {
    super::create_tap(name).unwrap();
}

/// Makes a TAP, up and on the bridge.
pub fn create_port(name: &'static str) {
    super::create_tap(name).unwrap();
    super::configure(async |links| links.add_port(name).await).unwrap();
}

/// Takes an interface down, or brings it up.
pub fn set_up(name: &'static str, up: bool) {
    let set = super::configure(async |links| match up {
        true => links.up(name).await,
        false => links.down(name).await,
    });
    set.unwrap();
}

/// Removes an interface.
pub fn remove(name: &'static str) {
    super::configure(async |links| links.remove(name).await).unwrap();
}
