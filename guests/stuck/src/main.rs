//! A loop without an exit: no position follows, so the guest takes no input, no interrupt and no
//! request to stop.
//!
//! Shows what a machine does with a guest that makes no exit any more: a backup or a replay that
//! follows its log to the end must not wait for the guest's next position.
#![no_std]
#![no_main]

use core::arch::asm;

use guest_rt::{clock, console, println};

/// Time before the loop, nanoseconds.
const REST_NS: u64 = 5_000_000;

guest_rt::entry!(main);

fn main() -> u32 {
    println!("stuck: no exit from here on");
    console::flush();
    // The last exit. When it ends, the log has everything that came before.
    clock::sleep_until(clock::fresh_ns() + REST_NS);
    // SAFETY: it accesses no memory.
    unsafe { asm!("2: jmp 2b", options(noreturn, nomem, nostack)) }
}
