//! Interrupt handlers that let others nest in them.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use guest_rt::abi::irq::{CONSOLE, NET, PIT, RNG};
use guest_rt::irq;

// Up to four deep, a handler turns interrupts on and leaves the guest a few times, so that the next
// tick and the other lines come while it runs. A level takes at most 64 bytes of the 4 KiB kernel
// stack, and one that is not counted can be on top. Only so many interrupts are slow (slow_left), or
// a host whose exits take longer than a tick would run nothing but handlers. places adds up which
// line interrupted which instruction: RIP is at [rsp + 16].
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

/// Makes them the handlers of the timer, virtio-net, virtio-rng and virtio-console, and unmasks
/// these. The lines must be masked.
pub fn install() {
    let handlers: [(u8, unsafe extern "C" fn()); 4] = [
        (PIT, nested_pit),
        (NET, nested_net),
        (RNG, nested_rng),
        (CONSOLE, nested_console),
    ];
    for (line, handler) in handlers {
        // SAFETY: a handler saves what it uses, writes only its own words, takes at most
        // 5 * 64 bytes of stack with those nested in it, and the caller masked the lines.
        unsafe { irq::set_raw_handler(line, handler) };
        irq::unmask(line);
    }
}

/// So many of the next interrupts are slow and let others in.
pub fn slow_down(interrupts: u64) {
    // SAFETY: see `Shared`: an interrupt that comes while it is written takes one off before or
    // after, and either is fine.
    unsafe { nested_slow_left.0.get().write_volatile(interrupts) }
}

/// Interrupts handled, a checksum of what they interrupted, and how many were under way at most.
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
