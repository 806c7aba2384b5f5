//! What `lockstep run` refuses with one sentence and status 2, without a panic. None of it needs KVM.

use crate::harness::{Scratch, run};
use lockstep_images::HELLO;
use lockstep_loader::Image;
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use std::fs;

/// Runs `image`, which must be refused. Returns the sentence.
#[track_caller]
fn refusal(scratch: &Scratch, image: &[u8]) -> String {
    let path = scratch.arg("image");
    fs::write(&path, image).expect("the image is written");
    run(["run", &path, "--cpu", "kvm"]).refused()
}

#[test]
fn an_unknown_guest_is_refused_with_the_known_ones() {
    let sentence = run(["run", "no-such-guest"]).refused();
    assert!(sentence.contains("no-such-guest"), "{sentence}");
    for (name, _, _) in lockstep_images::ALL {
        assert!(sentence.contains(name), "{name}: {sentence}");
    }
}

#[test]
fn what_is_no_elf_file_is_refused() {
    let scratch = Scratch::new();
    for text in [&b""[..], b"#!/bin/sh\nexit 0\n", b"\x7fELE", &[0; 4096]] {
        let sentence = refusal(&scratch, text);
        assert!(sentence.contains("no ELF"), "{sentence}");
    }
    let sentence = run(["run", scratch.path().to_str().expect("UTF-8")]).refused();
    assert!(sentence.contains("directory"), "{sentence}");
}

#[test]
fn an_elf_file_of_another_kind_is_refused() {
    let scratch = Scratch::new();
    // This test's own program, which is dynamic and position-independent.
    let this = fs::read(std::env::current_exe().expect("a path")).expect("readable");
    refusal(&scratch, &this);
    // e_machine: 64-bit ARM.
    let mut arm = HELLO.to_vec();
    arm[18..20].copy_from_slice(&183u16.to_le_bytes());
    assert!(refusal(&scratch, &arm).contains("x86-64"));
    // e_entry: an address outside the image.
    let mut lost = HELLO.to_vec();
    lost[24..32].copy_from_slice(&0x10u64.to_le_bytes());
    assert!(refusal(&scratch, &lost).contains("entry point"));
}

#[test]
fn a_truncated_elf_file_is_refused_wherever_it_is_cut() {
    let scratch = Scratch::new();
    let whole = HELLO.len();
    let cuts = [4, 5, 16, 24, 63, 64, 65, 120, 512, 4096, 8192];
    let parts = [whole / 4, whole / 2, whole * 3 / 4, whole - 64, whole - 1];
    for cut in cuts.into_iter().chain(parts) {
        let sentence = refusal(&scratch, &HELLO[..cut]);
        assert!(
            sentence.contains("cut") || sentence.contains("truncated"),
            "cut at {cut} of {whole}: {sentence}"
        );
    }
}

/// Every instruction that no replay could reproduce, planted at the guest's entry point.
#[test]
fn an_instruction_outside_the_allowlist_is_refused_by_name_and_place() {
    let scratch = Scratch::new();
    let entry = Image::parse("hello", HELLO.to_vec()).expect("it ships");
    let entry = entry.entry().expect("a program");
    let at = offset_in_file(HELLO, entry);
    let planted: [(&str, &[u8]); 12] = [
        ("rdtsc", &[0x0f, 0x31]),
        ("rdtscp", &[0x0f, 0x01, 0xf9]),
        ("rdrand", &[0x0f, 0xc7, 0xf0]),
        ("rdseed", &[0x0f, 0xc7, 0xf8]),
        ("rdpmc", &[0x0f, 0x33]),
        ("cpuid", &[0x0f, 0xa2]),
        ("xgetbv", &[0x0f, 0x01, 0xd0]),
        ("insb", &[0x6c]),
        ("insd", &[0x6d]),
        ("outsb", &[0x6e]),
        ("fsin", &[0xd9, 0xfe]),
        ("vaddps", &[0xc5, 0xfc, 0x58, 0xc1]),
    ];
    for (name, bytes) in planted {
        let mut image = HELLO.to_vec();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let sentence = refusal(&scratch, &image);
        assert!(sentence.contains(name), "{name}: {sentence}");
        let place = format!("{entry:#x}");
        assert!(sentence.contains(&place), "{name} at {place}: {sentence}");
    }
}

/// The place in the file of the byte at guest address `address`.
fn offset_in_file(image: &[u8], address: u64) -> usize {
    let header = FileHeader64::<Endianness>::parse(image).expect("an ELF file");
    let endian = header.endian().expect("one");
    let segments = header.program_headers(endian, image).expect("segments");
    let holds = |s: &&_| {
        let s: &object::elf::ProgramHeader64<Endianness> = s;
        let start = s.p_paddr(endian);
        (start..start + s.p_filesz(endian)).contains(&address)
    };
    let segment = segments.iter().find(holds).expect("a segment holds it");
    (address - segment.p_paddr(endian) + segment.p_offset(endian)) as usize
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn zero_and_absurd_memory_is_refused() {
    for mib in ["0", "1", "15", "100000", "4294967295"] {
        let sentence = run(["run", "hello", "--mem", mib]).refused();
        assert!(sentence.contains("--mem"), "{mib}: {sentence}");
    }
}

#[test]
fn what_is_no_amount_of_memory_is_refused() {
    for mib in ["-1", "many", "4294967296", ""] {
        let option = format!("--mem={mib}");
        usage_refused(&["run", "hello", &option], "--mem");
    }
}

#[test]
fn a_bad_network_is_refused() {
    for net in ["", "tap=", "tap=a,mac=1", "tap=a,ip=10.0.0.1", "bridge=br0"] {
        usage_refused(&["run", "hello", "--net", net], "--net");
    }
    let long = "tap=a-name-that-is-too-long-for-linux";
    let sentence = run(["run", "hello", "--net", long]).refused();
    assert!(sentence.contains("network interface"), "{sentence}");
}

/// Fails unless wrong usage gives status 2 and says what to do.
#[track_caller]
fn usage_refused(args: &[&str], names: &str) {
    let sentence = run(args).refused();
    assert!(sentence.contains(names), "{args:?}: {sentence}");
}

#[test]
fn a_tap_that_does_not_exist_is_refused() {
    let sentence = run(["run", "hello", "--net", "tap=nosuchtap0"]).refused();
    assert!(sentence.contains("nosuchtap0"), "{sentence}");
    assert!(sentence.contains("ip tuntap add"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_interface_that_is_no_tap_is_refused() {
    let sentence = run(["run", "hello", "--net", "tap=lo"]).refused();
    assert!(sentence.contains("'lo'"), "{sentence}");
}

#[test]
fn a_console_that_cannot_be_written_is_refused() {
    let scratch = Scratch::new();
    let sentence = run(["run", "hello", "--console", &scratch.arg("no/such/file")]).refused();
    assert!(sentence.contains("--console"), "{sentence}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_recording_is_never_overwritten() {
    let scratch = Scratch::new();
    let dir = scratch.arg("once");
    run(["run", "hello", "--record", &dir]).expect(0);
    let before = fs::read(scratch.join("once/log")).expect("a log");
    let sentence = run(["run", "hello", "--record", &dir]).refused();
    assert!(sentence.contains("already"), "{sentence}");
    assert_eq!(fs::read(scratch.join("once/log")).expect("a log"), before);
}
