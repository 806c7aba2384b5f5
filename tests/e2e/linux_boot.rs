//! How Linux kernels start and end, with kernels of a few instructions that are made here.

use crate::harness::{Process, Scratch, lockstep, replay_equal, run, text};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{self, File};

const ENTRY: u64 = 0x100_0000;

/// `out dx, ax` of S5 to the control block.
const OFF: [u8; 10] = [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef];
/// mov al, 0xfe; out 0x64, al
const RESET: [u8; 4] = [0xb0, 0xfe, 0xe6, 0x64];
/// cli; hlt
const DIE: [u8; 2] = [0xfa, 0xf4];
/// ud2, without an IDT
const FAULT: [u8; 2] = [0x0f, 0x0b];

/// Turns reception on; then sends back each byte that comes, and powers off after a `q`.
fn echo() -> Vec<u8> {
    let receive = [0x66, 0xba, 0xf9, 0x03, 0xb0, 0x01, 0xee];
    // mov dx, 0x3fd; in al, dx; test al, 1; jz back
    let wait = [0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7];
    // mov dx, 0x3f8; in al, dx; out dx, al; cmp al, 'q'; jne back to the wait
    let answer = [0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, 0x3c, b'q', 0x75, 0xed];
    [&receive[..], &wait, &answer, &OFF].concat()
}

/// The file of a vmlinux with this code.
fn kernel(scratch: &Scratch, name: &str, code: &[u8]) -> String {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [ENTRY, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let len = code.len() as u64;
    for word in [120, 0xffff_ffff_8100_0000, ENTRY, len, len, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    fs::write(scratch.join(name), file).expect("a temporary file");
    scratch.arg(name)
}

#[test]
fn power_off_is_status_0_and_every_other_end_is_status_1_with_its_place() {
    let scratch = Scratch::new();
    let off = kernel(&scratch, "off", &OFF);
    run(["run", &off]).expect(0);
    for (name, code, told) in [
        (
            "reset",
            &RESET[..],
            "reset its machine at position 1:2, RIP 0x1000004",
        ),
        ("die", &DIE, "died at position 1:2, RIP 0x1000002"),
        ("fault", &FAULT, "died at position 1:0, RIP 0x1000000"),
    ] {
        let image = kernel(&scratch, name, code);
        let done = run(["run", &image]).expect(1);
        assert!(done.stderr.contains(told), "{done:#?}");
    }
}

#[test]
fn what_is_typed_is_in_the_recording_and_comes_back_in_the_replay() {
    let scratch = Scratch::new();
    let image = kernel(&scratch, "echo", &echo());
    let dir = scratch.join("log");
    let mut command = lockstep(["run", &image, "--mem", "32", "--record", &text(&dir)]);
    let mut process = Process::with_input(&mut command);
    process.input("hello");
    process.await_stdout("it comes back", |out| out == "hello");
    // The end of the input is nothing that a serial line tells.
    process.input("q");
    process.end_input();
    process.end().expect(0);
    replay_equal(&dir);
    let replayed = run(["replay", &text(&dir)]).expect(0);
    assert_eq!(replayed.stdout, "helloq");
}

#[test]
fn a_terminal_is_the_guests_until_the_end() {
    let scratch = Scratch::new();
    let image = kernel(&scratch, "echo", &echo());
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("its owner");
    unlockpt(&master).expect("it is unlocked");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let name = name.to_str().expect("an ASCII path");
    let slave = File::options().read(true).write(true).open(name);
    let slave = slave.expect("the other side");
    let modes = || tcgetattr(&slave).expect("a terminal").local_modes;
    let before = modes();
    assert!(before.contains(LocalModes::ICANON | LocalModes::ISIG));
    let stdin = slave.try_clone().expect("a descriptor");
    let process = Process::with_stdin(&mut lockstep(["run", &image]), stdin);
    process.await_stderr("it is told how to leave", |err| err.contains("Ctrl-A x"));
    let typed = |keys: &[u8]| {
        rustix::io::write(&master, keys).expect("keys are taken");
    };
    // Without an end of line, and Ctrl-C is a key like others.
    typed(b"a\x03\x01\x01");
    process.await_stdout("keys come back", |out| out == "a\x03\x01");
    assert!(!modes().intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO));
    typed(b"\x01x");
    let done = process.end().expect(0);
    assert!(done.stderr.contains("stopped"), "{done:#?}");
    assert_eq!(modes(), before);
}

#[test]
fn what_cannot_be_booted_is_refused_with_a_sentence() {
    let scratch = Scratch::new();
    let off = kernel(&scratch, "off", &OFF);
    let mut damaged = fs::read(&off).expect("it was written");
    damaged[64 + 32] = 0xff;
    fs::write(scratch.join("damaged"), damaged).expect("a temporary file");
    let damaged = scratch.arg("damaged");
    let long = format!("--append={}", "x".repeat(2048));
    for (args, why) in [
        (
            &["hello", "--append", "quiet"][..],
            "for a Linux kernel, and hello is none",
        ),
        (
            &["hello", "--initrd", &off],
            "for a Linux kernel, and hello is none",
        ),
        (&[&off, "--initrd", "/nowhere"], "cannot read /nowhere"),
        (&[&off, &long], "longer than 2047 bytes; shorten --append"),
        (&[&off, "--cpu", "kvm"], "use --cpu soft or auto"),
        (&[&damaged], "has a segment"),
        (&[&off, "--mem", "16"], "raise --mem"),
    ] {
        let sentence = run([&["run"], args].concat()).refused();
        assert!(sentence.contains(why), "{args:?}: {sentence}");
    }
}
