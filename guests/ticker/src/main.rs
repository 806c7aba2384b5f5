//! Waits for a hundred timer interrupts and reads the time at each.
//!
//! Shows timer interrupts and the clock: a replay must print the same times.
#![no_std]
#![no_main]

use guest_rt::abi::irq::PIT;
use guest_rt::{clock, irq, pit, println};

/// Interrupts to wait for.
const TICKS: u64 = 100;
/// Time between two interrupts, microseconds.
const INTERVAL_US: u32 = 1000;

guest_rt::entry!(main);

fn main() -> u32 {
    irq::unmask(PIT);
    pit::periodic(INTERVAL_US);
    let mut seen_ticks = 0;
    while seen_ticks < TICKS {
        let seen = clock::activity();
        let ticks = irq::count(PIT);
        if ticks == seen_ticks {
            clock::idle(seen, clock::NEVER);
            continue;
        }
        seen_ticks = ticks;
        println!("ticker: tick {ticks} at {} ns", clock::now_ns());
    }
    pit::stop();
    irq::mask(PIT);
    println!("ticker: done, {seen_ticks} ticks");
    0
}
