//! Time as the machine tells it, and idling without a lost wake-up.
//!
//! The clock page costs no exit to read. Time stands still between two positions of the machine:
//! a loop that waits for it without an exit never ends, so wait with [`idle`] or [`sleep_until`].

use core::ptr::{read_volatile, write_volatile};

use lockstep_abi::{CLOCK_PAGE, ClockPage, port};

use crate::{boot_info, cpu};

const PAGE: *mut ClockPage = CLOCK_PAGE as *mut ClockPage;

/// A port that nothing answers (a PC's diagnostic port).
const PORT_NOTHING: u16 = 0x80;

/// No end by time: see [`idle`].
pub const NEVER: u64 = u64::MAX;

pub(crate) fn init() {
    set_wake_at(NEVER);
}

/// Guest time since boot, nanoseconds.
pub fn now_ns() -> u64 {
    // SAFETY: the page is mapped for CPL 3 for the machine's whole life; the machine writes it
    // only while the vCPU does not run. The same goes for the two functions below.
    unsafe { read_volatile(&raw const (*PAGE).now_ns) }
}

/// Guest time since boot, nanoseconds, brought up to date by an exit: no more than 50 µs old.
pub fn fresh_ns() -> u64 {
    cpu::out8(PORT_NOTHING, 0);
    now_ns()
}

/// Wall-clock time, nanoseconds since 1970.
pub fn wall_ns() -> u64 {
    boot_info().wall_ns.saturating_add(now_ns())
}

/// How many inputs the machine has delivered: frames, console input, timer expiries.
pub fn activity() -> u64 {
    // SAFETY: as in `now_ns`.
    unsafe { read_volatile(&raw const (*PAGE).activity) }
}

fn set_wake_at(ns: u64) {
    // SAFETY: as in `now_ns`; the field is the guest's to write.
    unsafe { write_volatile(&raw mut (*PAGE).wake_at_ns, ns) }
}

/// Stops until the machine has delivered something after `seen` (a value of [`activity`]), the
/// time is `wake_at_ns`, or an interrupt can be delivered: whichever comes first.
///
/// Take `seen` before looking for work; what arrives between the look and this call ends it at
/// once. A `wake_at_ns` in the past makes it a position without a wait.
pub fn idle(seen: u64, wake_at_ns: u64) {
    set_wake_at(wake_at_ns);
    cpu::out32(port::IDLE, seen as u32);
}

/// Idles until the time is `ns`.
pub fn sleep_until(ns: u64) {
    while now_ns() < ns {
        idle(activity(), ns);
    }
}
