//! Programs of Debian's packages, typed at a Debian's console.

use crate::harness::{Scratch, replay_equal};
use crate::linux::Console;

/// Lines of the kernel's log that say that something is wrong with the machine below it.
const TROUBLE: &str = "WARNING|BUG|Call Trace|unstable|lockup|rcu.*stall|nobody cared|spurious";
/// The sum of eight MiB of zeros.
const ZEROS: &str = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74  -";

/// The kernel has nothing to complain of, and powers off when it is told to.
#[track_caller]
fn ends_well(mut console: Console) {
    let complaints = console.run(&format!("dmesg | grep -E '{TROUBLE}'"));
    assert_eq!(complaints.status, 1, "{complaints:#?}");
    let done = console.power_off().expect(0);
    assert!(done.stdout.contains("Power down"), "{done:#?}");
}

#[test]
#[cfg_attr(
    not(has_linux_tools),
    ignore = "needs target/linux/tools where LOCKSTEP_LINUX points (see .ci/run)"
)]
fn programs_of_debians_packages_compute_what_they_should() {
    let mut console = Console::boot("tools", "", &["--mem", "512"]);
    console.run("perl -e 'print 6 * 7, \"\\n\"'").says("42");
    console
        .run("python3 -c 'print(sum(range(10**6)))'")
        .says("499999500000");
    console
        .run("cat /usr/lib/x86_64-linux-gnu/*.so* >/tmp/f; truncate -s 10000000 /tmp/f")
        .good();
    console.run("gzip -1 -c /tmp/f >/tmp/f.gz").good();
    console.run("gunzip -c /tmp/f.gz | cmp - /tmp/f").good();
    console
        .run("dd if=/dev/zero bs=1M count=8 | sha256sum")
        .says(ZEROS);
    console
        .run("dd if=/dev/zero bs=1M count=8 | openssl sha256 -r")
        .says(&ZEROS.replace(" -", "*stdin").replace("  ", " "));
    let speed = console.run("openssl speed -seconds 1 sha256").good();
    assert!(speed.contains("16384 size blocks"), "{speed}");
    ends_well(console);
}

#[test]
#[cfg_attr(
    not(has_linux),
    ignore = "needs target/linux where LOCKSTEP_LINUX points (see .ci/run)"
)]
fn a_debian_interrupts_what_computes_and_is_recorded() {
    let scratch = Scratch::new();
    let mut console = Console::boot("", "", &["--record", &scratch.arg("log")]);
    let name = console.run("uname -a").good();
    assert!(name.contains("Linux guest 6."), "{name}");
    let interrupts = console.run("cat /proc/interrupts").good();
    assert!(interrupts.contains("ttyS0"), "{interrupts}");
    console.run("{ while :; do :; done & }").good();
    console
        .run("echo the shell still answers")
        .says("the shell still answers");
    console.run("kill %1").good();
    ends_well(console);
    replay_equal(&scratch.join("log"));
}

#[test]
#[cfg_attr(
    not(has_linux_generic),
    ignore = "needs target/linux/generic where LOCKSTEP_LINUX points (see .ci/run)"
)]
fn debians_generic_kernel_boots() {
    let mut console = Console::boot("generic", "", &[]);
    let name = console.run("uname -r").good();
    assert!(name.contains("-amd64") && !name.contains("cloud"), "{name}");
    ends_well(console);
}
