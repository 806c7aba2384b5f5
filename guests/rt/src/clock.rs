//! Guest time, and idling without a lost wake-up.
//!
//! Reading the clock page needs no exit. Guest time changes at positions only: a loop that waits for a
//! time without an exit never ends. Use [`idle`] or [`sleep_until`] to wait.

use core::ptr::{read_volatile, write_volatile};

use lockstep_abi::{CLOCK_PAGE, ClockPage, port};

use crate::{boot_info, cpu};

const PAGE: *mut ClockPage = CLOCK_PAGE as *mut ClockPage;

/// A port without a device (a PC's diagnostic port).
const PORT_NOTHING: u16 = 0x80;

/// As `wake_at_ns` of [`idle`]: time does not end the wait.
pub const NEVER: u64 = u64::MAX;

pub(crate) fn init() {
    set_wake_at(NEVER);
}

/// Guest time since boot, nanoseconds.
pub fn now_ns() -> u64 {
    // SAFETY: the page is mapped for CPL 3 for the machine's whole life. The machine writes to it only
    // while the vCPU does not run. The same is true for the two functions below.
    unsafe { read_volatile(&raw const (*PAGE).now_ns) }
}

/// Guest time since boot, nanoseconds, at most 50 µs old: makes an exit to update it.
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
    // SAFETY: as in `now_ns`; only the guest writes this field.
    unsafe { write_volatile(&raw mut (*PAGE).wake_at_ns, ns) }
}

/// Waits until the machine has delivered something after `seen` (a value of [`activity`]), guest time
/// is `wake_at_ns`, or an interrupt can be delivered, whichever comes first.
///
/// Read `seen` before looking for work: then what arrives between that look and this call ends the wait
/// at once. With a `wake_at_ns` in the past there is no wait, only an exit.
pub fn idle(seen: u64, wake_at_ns: u64) {
    set_wake_at(wake_at_ns);
    cpu::out32(port::IDLE, seen as u32);
}

/// Waits until guest time is `ns`.
pub fn sleep_until(ns: u64) {
    while now_ns() < ns {
        idle(activity(), ns);
    }
}
