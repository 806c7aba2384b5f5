//! A timer handler that exits with interrupts off, and turns them on only between its exits.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use guest_rt::abi::irq::PIT;
use guest_rt::irq;

// The first interrupt makes the exits, with deaf_inside set. Another one that comes meanwhile is early.
global_asm!(
    r#"
.section .text
.balign 16
deaf_handler:
    push rax
    push rcx
    mov rax, [rip + deaf_inside]
    add [rip + deaf_early], rax
    cmp qword ptr [rip + deaf_count], 0
    jne 9f
    inc qword ptr [rip + deaf_count]
    inc qword ptr [rip + deaf_inside]
    mov ecx, {exits}
2:  out 0x80, al
    sti
    mov eax, 8
3:  dec eax
    jnz 3b
    cli
    dec ecx
    jnz 2b
    dec qword ptr [rip + deaf_inside]
9:  pop rcx
    pop rax
    iretq

.section .bss
.balign 8
deaf_count:
    .skip 8
deaf_inside:
    .skip 8
deaf_early:
    .skip 8
"#,
    exits = const EXITS,
);

/// Exits with interrupts off. The machine warns after fewer than these.
const EXITS: u32 = 12_000;

/// A word that the handler writes.
#[repr(transparent)]
struct Shared(UnsafeCell<u64>);

// SAFETY: only the handler writes it, and Rust only reads it, volatile.
unsafe impl Sync for Shared {}

unsafe extern "C" {
    fn deaf_handler();
    static deaf_count: Shared;
    static deaf_early: Shared;
}

/// Installs it as the timer's handler. The line must be masked.
pub fn install() {
    // SAFETY: `deaf_handler` saves what it uses, writes only its own words, and takes less than 128
    // bytes of stack with another one nested in it; and the caller masked the line.
    unsafe { irq::set_raw_handler(PIT, deaf_handler) };
}

/// 1 if the handler has made its exits, else 0.
pub fn count() -> u64 {
    // SAFETY: volatile, as the handler may write it at any exit.
    unsafe { deaf_count.0.get().read_volatile() }
}

/// Number of interrupts that came inside the handler, between two of its exits.
pub fn early() -> u64 {
    // SAFETY: as in `count`.
    unsafe { deaf_early.0.get().read_volatile() }
}
