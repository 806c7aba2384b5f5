//! A recording of a Debian in the real gdb: its kernel, and a process in it.

use crate::gdb::{printed, script};
use crate::harness::{Scratch, replay_equal, text};
use crate::linux::Console;

/// The address of a kernel's symbol.
#[track_caller]
fn symbol(console: &mut Console, name: &str) -> String {
    let said = console
        .run(&format!("grep ' {name}$' /proc/kallsyms"))
        .good();
    let mut lines = said.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = lines.rfind(|words| words.len() == 3 && words[2] == name);
    format!("0x{}", found.expect("the kernel has it")[0])
}

#[test]
#[cfg_attr(
    not(can_gdb_linux),
    ignore = "there is no gdb here, or guests/linux/make made no guest"
)]
fn a_kernel_function_and_the_memory_of_a_process_go_backwards() {
    let scratch = Scratch::new();
    let dir = scratch.join("linux");
    let more = ["--mem", "256", "--record", &text(&dir)];
    let mut console = Console::boot("", "cryptomgr.notests", &more);
    let open = symbol(&mut console, "do_sys_openat2");
    let entry = symbol(&mut console, "entry_SYSCALL_64");
    console.run("echo one > /tmp/needle").good();
    console.run("echo two > /tmp/needle-two").good();
    console.power_off().expect(0);
    replay_equal(&dir);
    let at = format!("break *{open}");
    let named = "condition 1 $_streq((char *) $rsi, \"/tmp/needle\")";
    let out = script(
        &dir,
        false,
        &[
            "continue",
            &format!("p $lstar == {entry}"),
            &at,
            "reverse-continue",
            "reverse-continue",
            &format!("p $rip == {open}"),
            named,
            "reverse-continue",
            "x/s $rsi",
            "set $name = $rsi",
            "set $then = $steps",
            "delete",
            // The byte after the last slash is the process's own.
            "watch *(char *) ($name + 5)",
            "reverse-continue",
            "p $steps < $then",
            "p ($cs & 3) == 3",
            "x/i $pc",
            "continue",
            "x/s $name",
        ],
    );
    assert_eq!(printed(&out), [1, 1, 1, 1], "{out}");
    assert!(out.matches("\"/tmp/needle\"").count() >= 1, "{out}");
    assert!(out.contains("watchpoint 2"), "{out}");
}
