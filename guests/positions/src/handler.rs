//! A timer handler that takes long, with interrupts off.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use guest_rt::abi::irq::PIT;
use guest_rt::irq;

// Only a limited number of interrupts is slow (late_left), so that later ones interrupt the program
// again. late_places sums up the interrupted RIPs.
global_asm!(
    r#"
.section .text
.balign 16
late_handler:
    push rax
    push rcx
    inc qword ptr [rip + late_count]
    mov rax, [rip + late_places]
    rol rax, 7
    add rax, [rsp + 16]
    mov [rip + late_places], rax
    cmp qword ptr [rip + late_left], 0
    je 2f
    dec qword ptr [rip + late_left]
    mov ecx, 100
1:  out 0x80, al
    dec ecx
    jnz 1b
2:  pop rcx
    pop rax
    iretq

.section .data
.balign 8
late_left:
    .quad 24
late_count:
    .quad 0
late_places:
    .quad 0
"#
);

/// A word that the handler writes.
#[repr(transparent)]
struct Shared(UnsafeCell<u64>);

// SAFETY: only the handler writes it, and Rust only reads it, volatile.
unsafe impl Sync for Shared {}

unsafe extern "C" {
    fn late_handler();
    static late_count: Shared;
    static late_places: Shared;
}

/// Installs it as the timer's handler. The line must be masked.
pub fn install() {
    // SAFETY: `late_handler` saves what it uses, writes only its own words, and takes 16 bytes of
    // stack; and the caller masked the line.
    unsafe { irq::set_raw_handler(PIT, late_handler) };
}

/// Number of interrupts handled.
pub fn count() -> u64 {
    // SAFETY: volatile, as the handler may write it at any exit.
    unsafe { late_count.0.get().read_volatile() }
}

/// A checksum of the instructions that were interrupted.
pub fn places() -> u64 {
    // SAFETY: as in `count`.
    unsafe { late_places.0.get().read_volatile() }
}
