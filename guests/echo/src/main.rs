//! Prints what it reads from the console, line by line, and ends at a byte 0x04 (end of input).
//!
//! Shows console input: the interrupt of virtio-console wakes the guest from idling.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use guest_rt::abi::irq;
use guest_rt::{clock, console, println};

/// Longest line, bytes; a longer one is printed in parts.
const MAX_LINE: usize = 4096;
/// End of input.
const END: u8 = 0x04;

guest_rt::entry!(main);

fn main() -> u32 {
    println!("echo: ready");
    guest_rt::irq::unmask(irq::CONSOLE);
    let mut line = Vec::with_capacity(MAX_LINE);
    let mut lines = 0;
    loop {
        let seen = clock::activity();
        let mut input = [0; 256];
        let read = console::read(&mut input);
        if read == 0 {
            clock::idle(seen, clock::NEVER);
        }
        for byte in &input[..read] {
            if *byte == END {
                if !line.is_empty() {
                    lines += 1;
                    say(&line);
                }
                println!("echo: done, {lines} lines");
                return 0;
            }
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() == MAX_LINE {
                lines += 1;
                say(&line);
                line.clear();
            }
        }
    }
}

/// Prints a line. Bytes that are not UTF-8 are replaced.
fn say(line: &[u8]) {
    for chunk in line.utf8_chunks() {
        guest_rt::print!("{}", chunk.valid());
        if !chunk.invalid().is_empty() {
            guest_rt::print!("\u{fffd}");
        }
    }
    println!();
}
