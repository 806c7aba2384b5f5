//! A loop without an exit: no position comes any more, so no input, interrupt or request to stop either.
//!
//! Shows what a machine does with a guest that never leaves again: whoever follows its log to the end must
//! not wait for its next position.
#![no_std]
#![no_main]

use core::arch::asm;

use guest_rt::{clock, console, println};

/// Before the loop, nanoseconds.
const REST_NS: u64 = 5_000_000;

guest_rt::entry!(main);

fn main() -> u32 {
    println!("stuck: no exit from here on");
    console::flush();
    // The last exit: by its end the log has all that came before.
    clock::sleep_until(clock::fresh_ns() + REST_NS);
    // SAFETY: it touches nothing.
    unsafe { asm!("2: jmp 2b", options(noreturn, nomem, nostack)) }
}
