//! Interrupt handlers that let other interrupts nest in them.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use guest_rt::abi::irq::{CONSOLE, NET, PIT, RNG};
use guest_rt::irq;

// Up to four deep, a handler turns interrupts on and makes a few exits, so that the next tick and other
// lines interrupt it. A level takes at most 64 bytes of the 4 KiB kernel stack; a fast handler may be
// on top. Only a limited number of interrupts is slow (slow_left): on a host whose exits take longer
// than a tick, nothing but handlers would run otherwise. `places` sums up which line interrupted which
// instruction: RIP is at [rsp + 16].
global_asm!(
    r#"
.section .text
.macro nested_line name, line
.balign 16
\name:
    push rax
    push rcx
    mov ecx, \line
    jmp nested_common
.endm
nested_line nested_pit, 0
nested_line nested_net, 5
nested_line nested_rng, 9
nested_line nested_console, 10

.balign 16
nested_common:
    mov rax, [rip + nested_places]
    rol rax, 7
    add rax, [rsp + 16]
    add rax, rcx
    mov [rip + nested_places], rax
    inc qword ptr [rip + nested_total]
    mov rcx, [rip + nested_depth]
    cmp rcx, 4
    jae 2f
    inc rcx
    mov [rip + nested_depth], rcx
    cmp rcx, [rip + nested_deepest]
    jbe 1f
    mov [rip + nested_deepest], rcx
1:  cmp qword ptr [rip + nested_slow_left], 0
    je 4f
    dec qword ptr [rip + nested_slow_left]
    mov ecx, 6
    sti
3:  out 0x80, al
    dec rcx
    jnz 3b
    cli
4:  dec qword ptr [rip + nested_depth]
2:  pop rcx
    pop rax
    iretq

.section .bss
.balign 8
nested_places:
    .skip 8
nested_total:
    .skip 8
nested_depth:
    .skip 8
nested_deepest:
    .skip 8
nested_slow_left:
    .skip 8
"#
);

/// A word that assembly and Rust share.
#[repr(transparent)]
struct Shared(UnsafeCell<u64>);

// SAFETY: Rust reads and writes these volatile, by one instruction each, as the handlers do.
unsafe impl Sync for Shared {}

unsafe extern "C" {
    fn nested_pit();
    fn nested_net();
    fn nested_rng();
    fn nested_console();
    static nested_places: Shared;
    static nested_total: Shared;
    static nested_deepest: Shared;
    static nested_slow_left: Shared;
}

/// Installs these handlers for the timer, virtio-net, virtio-rng and virtio-console, and unmasks their
/// lines. The lines must be masked before.
pub fn install() {
    let handlers: [(u8, unsafe extern "C" fn()); 4] = [
        (PIT, nested_pit),
        (NET, nested_net),
        (RNG, nested_rng),
        (CONSOLE, nested_console),
    ];
    for (line, handler) in handlers {
        // SAFETY: a handler saves what it uses, writes only its own words, and takes at most 5 * 64
        // bytes of stack with the handlers nested in it; and the caller masked the lines.
        unsafe { irq::set_raw_handler(line, handler) };
        irq::unmask(line);
    }
}

/// Makes the next `interrupts` interrupts slow, so that others nest in them.
pub fn slow_down(interrupts: u64) {
    // SAFETY: see `Shared`. An interrupt during this write subtracts one before or after it, and both
    // are fine.
    unsafe { nested_slow_left.0.get().write_volatile(interrupts) }
}

/// The number of interrupts handled, a checksum of what they interrupted, and the deepest nesting.
pub fn seen() -> [u64; 3] {
    // SAFETY: see `Shared`.
    unsafe {
        [
            nested_total.0.get().read_volatile(),
            nested_places.0.get().read_volatile(),
            nested_deepest.0.get().read_volatile(),
        ]
    }
}
