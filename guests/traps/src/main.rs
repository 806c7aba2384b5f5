//! Halts while a debug exception is pending, again and again.
//!
//! The trap flag, set before HLT, makes a debug exception pending when the machine exits for the halt.
//! A state that is moved to another host at that position must contain it. The guest ends at a byte
//! 0x04 (end of input).
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use guest_rt::{console, irq, println};

/// Vectors of the debug exception and of `int3`.
const DEBUG: usize = 1;
const BREAKPOINT: usize = 3;
/// Halts before it reads the console again.
const HALTS: u64 = 200;
/// End of input.
const END: u8 = 0x04;

// The interrupted flags keep TF, so each instruction up to the POPF that clears TF traps as well.
global_asm!(
    r#"
.section .text
.balign 16
trap_counter:
    inc qword ptr [rip + trap_count]
    iretq
.balign 16
trap_halt:
    pushfq
    or qword ptr [rsp], 0x300
    popfq
    hlt
    pushfq
    and qword ptr [rsp], ~0x100
    popfq
    iretq

.section .bss
.balign 8
trap_count:
    .skip 8
"#
);

/// A word that the handler writes.
#[repr(transparent)]
struct Shared(UnsafeCell<u64>);

// SAFETY: only the handler writes it, and Rust only reads it, volatile.
unsafe impl Sync for Shared {}

unsafe extern "C" {
    fn trap_counter();
    fn trap_halt();
    static trap_count: Shared;
}

guest_rt::entry!(main);

fn main() -> u32 {
    // SAFETY: the handlers change no register and take 16 bytes of stack. No trap occurs before this.
    unsafe {
        irq::set_raw_exception(DEBUG, trap_counter, false);
        irq::set_raw_exception(BREAKPOINT, trap_halt, true);
    }
    println!("traps: ready");
    let mut halts = 0;
    loop {
        for _ in 0..HALTS {
            // SAFETY: the gate was just set, and its handler changes only the count.
            unsafe { asm!("int3") }
            halts += 1;
        }
        let mut input = [0; 64];
        let read = console::read(&mut input);
        if input[..read].contains(&END) {
            break;
        }
    }
    // SAFETY: volatile, as the handler wrote it.
    let traps = unsafe { trap_count.0.get().read_volatile() };
    println!("traps: done, {traps} traps in {halts} halts");
    u32::from(traps == 0 || traps % halts != 0)
}
