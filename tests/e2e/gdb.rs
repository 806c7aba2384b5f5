//! Recordings in the real gdb, driven by scripts.

use crate::harness::{Done, LOCKSTEP, Process, Scratch, lockstep, record, run, text};
use crate::kv::{cli, recorded_kv, stop};
use crate::member::stage;
use crate::network::Segment;
use crate::soft::own_with;
use rustix::process::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Whole recordings are gone through, on a software CPU.
const LONG: Duration = Duration::from_secs(300);
/// What gdb says where a recording begins, and where it ends.
const OVER: &str = "No more reverse-execution history.";

/// A gdb with this recording. Told no ELF file, it knows no symbols.
fn gdb(dir: &Path, elf: bool) -> Command {
    let mut command = Command::new("gdb");
    command.args(["-nx", "-q", "-iex", "set width 0"]);
    command.args(["-iex", "set architecture i386:x86-64"]);
    let server = format!(
        "target remote | exec {LOCKSTEP} replay {} --gdb -",
        text(dir)
    );
    command.args(["-ex", &server]);
    if elf {
        command.arg(dir.join("guest.elf"));
    }
    command
}

/// Lets gdb perform these commands. Its messages are among its output.
#[track_caller]
pub fn script(dir: &Path, elf: bool, lines: &[&str]) -> String {
    let mut command = gdb(dir, elf);
    command.args(["-ex", "set logging redirect off"]);
    // The status is the last command's.
    for line in lines.iter().chain(&["echo \\n"]) {
        command.args(["-ex", line]);
    }
    let done = Process::start(command.arg("-batch"))
        .end_within(LONG)
        .expect(0);
    println!("{}\n{}", done.stdout, done.stderr);
    done.stdout + &done.stderr
}

/// The numbers that gdb printed with `p`, in order.
pub fn printed(out: &str) -> Vec<u64> {
    let lines = out.lines().filter(|line| line.starts_with('$'));
    let values = lines.filter_map(|line| line.split_once(" = ")?.1.trim().parse().ok());
    values.collect()
}

/// Records `primes`, which has DWARF symbols and line numbers.
#[track_caller]
fn primes(scratch: &Scratch) -> std::path::PathBuf {
    let image = own_with(scratch, "primes.c", &["-g", "-O1"]);
    let dir = scratch.join("primes.log");
    run(["run", &image, "--record", &text(&dir)]).expect(0);
    dir
}

#[test]
#[cfg_attr(not(has_gdb), ignore = "there is no gdb here")]
fn a_c_program_has_source_lines_and_locals_and_goes_back_through_a_call() {
    let scratch = Scratch::new();
    let dir = primes(&scratch);
    let out = script(
        &dir,
        true,
        &[
            "break print_number",
            "continue",
            "continue 5",
            "p number",
            "bt",
            "next",
            "info locals",
            // Back out of the call, to the line that makes it.
            "reverse-finish",
            "frame",
            "reverse-step",
            "reverse-next",
            "frame",
            "reverse-continue 3",
            "p number",
            "up",
            "p $exit > 0 && $steps > 1000",
        ],
    );
    // The sixth number is a line's round, its tick came before. The line before has its own two.
    let numbers = printed(&out);
    let [round, tick, 1] = numbers[..] else {
        panic!("{out}");
    };
    assert!(tick >= 50 && round > tick / 2, "{out}");
    assert!(
        out.contains("print_number (number=") && out.contains("primes.c:"),
        "{out}"
    );
    assert!(out.contains("in run () at"), "{out}");
    assert!(out.contains("digits ="), "{out}");
    assert_eq!(out.matches("print_number(rounds);").count(), 1, "{out}");
    assert_eq!(out.matches("print_number(ticks);").count(), 1, "{out}");
}

#[test]
#[cfg_attr(not(has_gdb), ignore = "there is no gdb here")]
fn every_command_works_again_from_the_end_and_from_the_beginning() {
    let scratch = Scratch::new();
    let dir = primes(&scratch);
    let out = script(
        &dir,
        true,
        &[
            "reverse-stepi",
            "reverse-continue",
            "monitor when",
            "continue",
            "monitor when",
            "continue",
            "stepi",
            "watch ticks",
            "reverse-continue",
            "p ticks",
            "continue",
            "p ticks",
            "delete",
            "continue",
            "reverse-stepi",
            "x/i $pc",
            "break run",
            "reverse-continue",
            "p $steps",
            "reverse-continue",
            "p $steps",
            "stepi",
            "p $steps",
        ],
    );
    assert_eq!(out.matches(OVER).count(), 7, "{out}");
    assert!(
        out.contains("position 0:0, 0 steps, guest time 0.000000000 s"),
        "{out}"
    );
    assert!(out.contains("the guest ended here with status 0"), "{out}");
    let numbers = printed(&out);
    let ticks = numbers[0];
    assert!(ticks >= 499, "{out}");
    assert_eq!(numbers, [ticks, ticks + 1, 1, 0, 1], "{out}");
    let last = out.lines().find(|line| line.starts_with("=> "));
    assert!(last.is_some_and(|line| line.contains("out ")), "{out}");
}

/// Somewhere among much work, a store that is not the victim's own changes it once.
const PLANTED: &str = r#"
#include <stdint.h>
volatile uint64_t table[64], victim = 7, other = 9;
__asm__(".globl _start\n_start: call run\n");
__attribute__((noinline)) static void work(uint64_t round)
{
    for (uint64_t i = 0; i < 64; i++)
        table[i] += round ^ i;
}
__attribute__((noinline)) static void stray(volatile uint64_t *at)
{
    *(volatile uint8_t *)((uintptr_t)at + 3) = 0xbd;
}
__attribute__((noinline)) static void proper(void)
{
    victim = victim + 1;
}
void run(void)
{
    for (uint64_t round = 0; round < 60000; round++) {
        work(round);
        if (round == 1000 || round == 30000)
            proper();
        if (round == 41234)
            stray(&victim);
    }
    __asm__ volatile("outl %0, %1" : : "a"((uint32_t)victim), "Nd"((uint16_t)0xf4));
    for (;;)
        __asm__ volatile("hlt");
}
"#;

#[test]
#[cfg_attr(not(has_gdb), ignore = "there is no gdb here")]
fn a_watchpoint_run_backwards_finds_who_wrote_a_planted_value() {
    let scratch = Scratch::new();
    let source = scratch.join("planted.c");
    std::fs::write(&source, PLANTED).expect("a scratch file");
    let image = own_with(&scratch, &text(&source), &["-g", "-O1"]);
    let dir = scratch.join("log");
    run(["run", &image, "--record", &text(&dir)]).expect(1);
    let out = script(
        &dir,
        true,
        &[
            "continue",
            "p/x victim",
            "watch victim",
            "reverse-continue",
            "bt",
            "p victim",
            "reverse-continue",
            "p victim",
            "reverse-continue",
            "p victim",
            "reverse-continue",
            "delete",
            "continue",
            "monitor where-written 0x404000 1",
            "python gdb.execute('monitor where-written %d 8' % int(gdb.parse_and_eval('(long)&victim')))",
            "maintenance flush register-cache",
            "x/i $pc",
            "bt",
            "rwatch other",
            "reverse-continue",
        ],
    );
    assert!(out.contains("= 0xbd000009"), "{out}");
    assert_eq!(printed(&out), [9, 8, 7], "{out}");
    assert_eq!(out.matches("stray (at=").count(), 3, "{out}");
    assert!(out.contains("proper ()"), "{out}");
    assert!(out.contains("movb   $0xbd,0x3(%rdi)"), "{out}");
    assert!(
        out.contains("no instruction before this moment writes there"),
        "{out}"
    );
    // Nobody reads the other one.
    assert_eq!(out.matches(OVER).count(), 4, "{out}");
}

#[test]
#[cfg_attr(not(can_gdb_kvm), ignore = "there is no gdb here, or no KVM")]
fn a_log_of_kvm_is_debugged_by_symbols_and_without_an_elf_file() {
    let scratch = Scratch::new();
    let dir = scratch.join("chaos");
    record("chaos", &dir);
    // The handler's counter of all interrupts, backwards from the end.
    let out = script(
        &dir,
        true,
        &[
            "continue",
            "p *(long*)&nested_total",
            "watch *(long*)&nested_total",
            "reverse-continue",
            "p *(long*)&nested_total",
            "x/i $pc",
            "reverse-continue 3",
            "p *(long*)&nested_total",
            "continue 2",
            "p *(long*)&nested_total",
        ],
    );
    let numbers = printed(&out);
    let all = numbers[0];
    assert!(all > 100, "{out}");
    assert_eq!(numbers, [all, all - 1, all - 4, all - 2], "{out}");
    assert!(out.contains("incq"), "{out}");
    let out = script(
        &dir,
        false,
        &[
            "stepi",
            "p/x $pc",
            "stepi 2000",
            "p $steps",
            "break *$pc",
            "stepi 20",
            "reverse-continue",
            "p $steps",
            "x/i $pc",
            "info registers fs_base cr3 eflags xmm0 st0 mxcsr fctrl ftag",
        ],
    );
    assert_eq!(printed(&out), [2001, 2001], "{out}");
    assert!(out.contains("=> 0x") && out.contains("cr3 "), "{out}");
}

#[test]
#[cfg_attr(
    not(can_gdb_redis),
    ignore = "there is no gdb here, no KVM, no Redis tools, or this is not root"
)]
fn the_200th_incr_is_one_more_than_the_199th_twenty_times() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let kv = recorded_kv(&scratch, &segment);
    assert!(cli(&segment, &["-r", "220", "INCR", "n"]).ends_with("220"));
    stop(kv);
    let mut lines = vec![
        // INCR's handler hands the sum over here, in its second argument.
        "rbreak ^kv_core::reply::Reply::integer",
        "ignore 1 199",
        "continue",
        "p $rsi",
    ];
    for _ in 0..20 {
        lines.extend(["reverse-continue", "p $rsi", "continue", "p $rsi"]);
    }
    let out = script(&scratch.join("kv"), true, &lines);
    let numbers = printed(&out);
    assert_eq!(numbers.len(), 41, "{out}");
    for (index, number) in numbers.into_iter().enumerate() {
        assert_eq!(number, 200 - index as u64 % 2, "{out}");
    }
}

#[test]
#[cfg_attr(not(has_gdb), ignore = "there is no gdb here")]
fn ctrl_c_stops_in_the_middle() {
    let scratch = Scratch::new();
    let dir = primes(&scratch);
    let mut gdb = Process::with_input(&mut gdb(&dir, true));
    // It stops at each tick, and gdb lets it go on.
    gdb.input("set confirm off\nbreak *tick if 0\nmonitor goto 9\ncontinue\n");
    gdb.await_stdout("it runs", |out| out.contains("Continuing."));
    gdb.signal(Signal::INT);
    gdb.await_stdout("it stopped", |out| out.contains("SIGINT"));
    gdb.input("monitor when\nreverse-stepi\nmonitor when\nstepi\nmonitor when\n");
    // The same backwards.
    gdb.input("delete\ncontinue\nbreak *tick if 0\nreverse-continue\n");
    gdb.await_stdout("it runs back", |out| {
        out.matches("Continuing.").count() == 3
    });
    gdb.signal(Signal::INT);
    gdb.await_stdout("it stopped", |out| out.matches("SIGINT").count() == 2);
    gdb.input("monitor when\nquit\n");
    let done = gdb.end().expect(0);
    // What monitor commands say goes to its standard error.
    let steps = |line: &str| line.split(", ").nth(1)?.split(' ').next()?.parse().ok();
    let steps: Vec<u64> = done.stderr.lines().filter_map(steps).collect();
    let [goal, there, back, again, late] = steps[..] else {
        panic!("{done:#?}");
    };
    assert!(goal <= there && there < 100_000_000, "{done:#?}");
    assert_eq!((back + 1, again), (there, there), "{done:#?}");
    assert!(late > again, "{done:#?}");
}

#[test]
#[cfg_attr(not(has_gdb), ignore = "there is no gdb here")]
fn one_gdb_comes_after_the_other_and_nonsense_in_between() {
    let scratch = Scratch::new();
    let dir = primes(&scratch);
    let server = Process::start(&mut lockstep([
        "replay",
        &text(&dir),
        "--gdb",
        "127.0.0.1:0",
    ]));
    server.await_stderr("it listens", |err| err.contains("target remote "));
    let said = server.stderr();
    let address = said.split("target remote ").nth(1).expect("its address");
    let address = address.split('\'').next().expect("in quotes");
    let by_tcp = |lines: &[&str]| -> Done {
        let mut command = Command::new("gdb");
        command.args(["-nx", "-q", "-batch", "-ex"]);
        command.arg(format!("target remote {address}"));
        for line in lines {
            command.args(["-ex", line]);
        }
        Process::start(command.arg(dir.join("guest.elf"))).end()
    };
    let first = by_tcp(&["break print_number", "continue", "p $steps", "detach"]);
    let there = printed(&first.stdout)[0];
    // Whoever this is, it is no gdb.
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"$m0,ffffffffffffffff#00",
        b"\x03\x03$",
        b"",
    ] {
        let mut stranger = TcpStream::connect(address).expect("it listens");
        stranger.write_all(nonsense).expect("it reads");
    }
    // The breakpoint went with its gdb; the moment stayed.
    let second = by_tcp(&["p $steps", "continue", "monitor when", "kill"]);
    assert_eq!(printed(&second.stdout), [there], "{second:#?}");
    let all = second.stdout + &second.stderr;
    assert!(all.contains("the guest ended here with status 0"), "{all}");
    let done = server.end().expect(0);
    // What the guest printed came once.
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.last(), Some(&"primes: done"), "{done:#?}");
    assert_eq!(lines.len(), 21, "{done:#?}");
}

#[test]
#[cfg_attr(not(has_gdb), ignore = "there is no gdb here")]
fn a_recording_cannot_be_changed() {
    let scratch = Scratch::new();
    let dir = primes(&scratch);
    let out = script(
        &dir,
        true,
        &[
            "set var ticks = 5",
            "p ticks",
            "set $rax = 5",
            "p $rax",
            "p *(long*)0x7fff00000000",
        ],
    );
    // The sentence why is on a pipe that gdb does not always read before it ends.
    assert!(out.contains("Could not write registers"), "{out}");
    assert_eq!(printed(&out), [0, 0], "{out}");
    assert_eq!(out.matches("Cannot access memory").count(), 2, "{out}");
}

#[test]
#[cfg_attr(not(has_gdb), ignore = "there is no gdb here")]
fn debug_starts_gdb_with_everything_set_up() {
    let scratch = Scratch::new();
    let dir = primes(&scratch);
    let mut command = lockstep(["debug", &text(&dir), "--"]);
    // The hook that it defines lets gdb see that it is at another moment.
    command.args(["-nx", "-batch", "-ex", "p $exit", "-ex", "monitor goto 5"]);
    command.args([
        "-ex",
        "p $exit",
        "-ex",
        "break tick",
        "-ex",
        "continue",
        "-ex",
        "p ticks >= 0",
    ]);
    let done = Process::start(&mut command).end().expect(0);
    assert_eq!(printed(&done.stdout), [0, 5, 1], "{done:#?}");
    assert!(done.stdout.contains("Breakpoint 1, 0x"), "{done:#?}");
}

#[test]
fn what_cannot_be_debugged_is_refused_in_a_sentence() {
    let scratch = Scratch::new();
    let dir = primes(&scratch);
    let dir = text(&dir);
    let sentence = run(["debug", &dir, "--gdb", "no-such-gdb"]).refused();
    assert!(sentence.contains("install gdb"), "{sentence}");
    let sentence = run(["debug", &scratch.arg("nothing")]).refused();
    assert!(sentence.contains("--record"), "{sentence}");
    let sentence = run(["replay", &dir, "--gdb", "nowhere"]).refused();
    assert!(sentence.contains("127.0.0.1:1234"), "{sentence}");
    let sentence = run(["replay", &dir, "--cpu", "kvm", "--gdb", "127.0.0.1:0"]).refused();
    assert!(sentence.contains("software CPU"), "{sentence}");
}
