//! For tests: runs a test in a private network of its own.
//!
//! The test binary is started again for it, as only a process with one thread can enter a user
//! namespace.

#![allow(clippy::print_stdout, reason = "tests print what they skip")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set in the process that gets its own network.
const OWN_NETWORK: &str = "LOCKSTEP_TEST_OWN_NETWORK";
/// What a test prints that could not run on this host.
const SKIPPED: &str = "skipped";

/// Runs `body` in a new private network, in a process of its own. `test` is the full path of the
/// calling test. On a host that does not allow such a network, the test prints so and passes.
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
    // Only the number of an error can be returned from there, so the text is left out.
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
