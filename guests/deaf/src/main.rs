//! Halts under a timer that expires a million times a second, while its line is masked.
//!
//! Shows that only an edge that can be delivered ends a halt: the machine rests until the console has
//! something. Ends at a byte 0x04 (end of input).
#![no_std]
#![no_main]

use guest_rt::abi::{irq, port};
use guest_rt::cpu::{halt, out8};
use guest_rt::{clock, console, println};

/// Control word of the 8254 (data sheet): counter 0, low byte only, mode 2.
const LOW_BYTE_PERIODIC: u8 = 0x14;
/// End of input.
const END: u8 = 0x04;

guest_rt::entry!(main);

fn main() -> u32 {
    guest_rt::irq::unmask(irq::CONSOLE);
    out8(port::PIT + 3, LOW_BYTE_PERIODIC);
    out8(port::PIT, 1);
    println!("deaf: halts");
    let mut woken = 0;
    loop {
        let mut input = [0; 64];
        let read = console::read(&mut input);
        if input[..read].contains(&END) {
            println!("deaf: done, woken {woken} times in {} ns", clock::now_ns());
            return 0;
        }
        // Whatever came after the look has made an interrupt, which was handled: only the next one ends the
        // halt. The test sends one byte after the other.
        halt();
        woken += 1;
    }
}
