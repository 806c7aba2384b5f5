//! A fast timer whose interrupts the guest does not take.
//!
//! First the timer's handler makes many exits with interrupts off and turns them on only between two
//! exits. Interrupts are taken at exits only, so the next tick waits until the handler returns, and the
//! machine warns. Then the guest halts while the timer, whose line is masked, expires a million times a
//! second. Only an interrupt that can be delivered ends a halt, so the machine rests until there is
//! console input. The guest ends at a byte 0x04 (end of input).
#![no_std]
#![no_main]

mod handler;

use guest_rt::abi::{irq, port};
use guest_rt::cpu::{halt, out8};
use guest_rt::{clock, console, pit, println};

/// A port without a device (a PC's diagnostic port).
const PORT_NOTHING: u16 = 0x80;
/// Time between two ticks, microseconds.
const INTERVAL_US: u32 = 500;
/// Control word of the 8254 (data sheet): counter 0, low byte only, mode 2.
const LOW_BYTE_PERIODIC: u8 = 0x14;
/// End of input.
const END: u8 = 0x04;

guest_rt::entry!(main);

fn main() -> u32 {
    handler::install();
    guest_rt::irq::unmask(irq::PIT);
    pit::periodic(INTERVAL_US);
    while handler::count() == 0 {
        out8(PORT_NOTHING, 0);
    }
    guest_rt::irq::mask(irq::PIT);
    println!("deaf: {} interrupts came between exits", handler::early());

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
            return u32::from(handler::early() != 0);
        }
        halt();
        woken += 1;
    }
}
