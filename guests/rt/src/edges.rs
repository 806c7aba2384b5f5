//! The software instruction counter from the guest's side.
//!
//! Compiled code counts at the start of every basic block. Every critical edge has a basic block of its
//! own, so every edge counts once. Not counted are the precompiled `core` and `alloc` (except for
//! generic code, which is compiled here) and assembly: the memory functions of this crate and the
//! interrupt handlers. So the longest stretch without a count is one call of such a function.

use core::cell::UnsafeCell;
use core::mem::offset_of;

use lockstep_abi::{CLOCK_PAGE, ClockPage, port};

// Constants of edges.s.
const _: () = assert!(CLOCK_PAGE + offset_of!(ClockPage, edges_left) as u64 == 0x8018);
const _: () = assert!(port::QUANTUM == 0xe4);

/// A word that edges.s writes.
#[repr(transparent)]
pub(crate) struct Shared(UnsafeCell<u64>);

// SAFETY: only edges.s writes it, by one instruction, and Rust only reads it, volatile.
unsafe impl Sync for Shared {}

unsafe extern "C" {
    static quanta: Shared;
}

/// How many exits at [`port::QUANTUM`] the guest has made: one per [`lockstep_abi::BootInfo::quantum`]
/// edges.
pub fn quanta_passed() -> u64 {
    // SAFETY: volatile, as every counted edge may change it.
    unsafe { quanta.0.get().read_volatile() }
}
