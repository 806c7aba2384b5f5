//! `lockstep run`: the guest's output is visible, and the way it ends becomes the command's status.

use crate::harness::{LOCKSTEP, Process, Scratch, lockstep, replay_equal, run};
use rustix::process::Signal;

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn hello_prints_and_ends_with_its_status() {
    let done = run(["run", "hello"]).expect(0);
    assert_eq!(done.stdout, "hello: from CPL 3\nhello: done\n");
    assert_eq!(done.stderr, "", "nothing to complain about");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_guests_own_status_is_printed_and_is_status_1() {
    let done = run(["run", "crash"]);
    assert!(done.stdout.contains("#PF"), "{done:#?}");
    let sentence = done.one_sentence(1);
    assert!(sentence.contains("status 142"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn computing_gives_the_same_checksum_every_time() {
    let first = run(["run", "compute"]).expect(0).stdout;
    assert!(first.contains("checksum"), "{first}");
    assert_eq!(run(["run", "compute"]).expect(0).stdout, first);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_image_may_be_given_by_its_path() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("image"), lockstep_images::HELLO).expect("written");
    let done = run(["run", &scratch.arg("image")]).expect(0);
    assert!(done.stdout.contains("hello: done"), "{done:#?}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn what_is_typed_is_echoed_until_the_input_ends() {
    let scratch = Scratch::new();
    let dir = scratch.arg("echo");
    let mut echo = Process::with_input(&mut lockstep(["run", "echo", "--record", &dir]));
    echo.await_stdout("the guest is ready", |out| out.contains("echo: ready\n"));
    echo.input("one\n");
    echo.await_stdout("the first line comes back", |out| out.contains("one\n"));
    echo.input("two\nthr");
    echo.await_stdout("the second line comes back", |out| out.contains("two\n"));
    echo.input("ee");
    echo.end_input();
    let done = echo.end().expect(0);
    let expected = "echo: ready\none\ntwo\nthree\necho: done, 3 lines\n";
    assert_eq!(done.stdout, expected);
    replay_equal(&scratch.join("echo"));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_console_may_be_a_file_or_nowhere() {
    let scratch = Scratch::new();
    let path = scratch.arg("console");
    let done = run(["run", "hello", "--console", &path]).expect(0);
    assert_eq!(done.stdout, "");
    let printed = std::fs::read_to_string(&path).expect("the console's file");
    assert_eq!(printed, "hello: from CPL 3\nhello: done\n");
    assert_eq!(
        run(["run", "hello", "--console", "none"]).expect(0).stdout,
        ""
    );
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_signal_ends_a_waiting_guest_with_an_end_entry() {
    for signal in [Signal::TERM, Signal::INT] {
        let scratch = Scratch::new();
        let dir = scratch.arg("stopped");
        let mut echo = Process::with_input(&mut lockstep(["run", "echo", "--record", &dir]));
        echo.await_stdout("the guest is ready", |out| out.contains("echo: ready\n"));
        echo.input("before\n");
        echo.await_stdout("the line comes back", |out| out.contains("before\n"));
        echo.signal(signal);
        let done = echo.end().expect(0);
        assert_eq!(done.stderr, "lockstep: stopped\n");
        let verdict = replay_equal(&scratch.join("stopped"));
        assert_eq!(verdict["cut"], false, "{verdict}");
        let end = verdict["end"].as_str().expect("an end");
        assert!(end.contains("stopped"), "{verdict}");
        let stat = run(["log", "stat", &dir, "--json"]).expect(0).json();
        assert_eq!(stat["kinds"]["end"], 1, "{stat}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn nothing_is_lost_to_a_reader_who_is_slow() {
    // The reader sleeps on purpose. 2000 lines of console input, given back by the guest, are more text
    // than a pipe holds.
    let script = format!(
        "yes 'a line that is long enough to fill the pipe in some hundreds of lines' | head -2000 \
         | {LOCKSTEP} run echo | (read -r first; sleep 1; cat) | grep -c 'a line that'"
    );
    let counted = Process::start(std::process::Command::new("sh").args(["-c", &script])).end();
    assert_eq!(counted.stdout.trim(), "2000", "{counted:#?}");
}
