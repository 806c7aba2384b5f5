//! Counter 0 of the 8254, which drives [`abi::irq::PIT`](lockstep_abi::irq::PIT).

use lockstep_abi::port;

use crate::cpu::out8;

/// Input clock, Hz.
pub const INPUT_HZ: u64 = 1_193_182;
/// Longest interval, counts.
const MAX_COUNTS: u64 = 0x1_0000;

/// Control words (Intel 8254 data sheet): counter 0, low byte then high byte, binary.
const MODE_0_ONE_SHOT: u8 = 0x30;
const MODE_2_RATE: u8 = 0x34;

/// Starts an interrupt every `microseconds` (rounded to the input clock, at most 54 ms).
pub fn periodic(microseconds: u32) {
    start(MODE_2_RATE, microseconds);
}

/// Starts one interrupt, `microseconds` from now (rounded to the input clock, at most 54 ms).
pub fn one_shot(microseconds: u32) {
    start(MODE_0_ONE_SHOT, microseconds);
}

/// Stops the interrupts: after the control word, the counter waits for a count that is never written.
pub fn stop() {
    out8(port::PIT + 3, MODE_0_ONE_SHOT);
}

fn start(mode: u8, microseconds: u32) {
    let counts = (u64::from(microseconds) * INPUT_HZ / 1_000_000).clamp(2, MAX_COUNTS);
    out8(port::PIT + 3, mode);
    // A count of 0 means 0x10000.
    out8(port::PIT, counts as u8);
    out8(port::PIT, (counts >> 8) as u8);
}
