//! A timer handler that stays at CPL 0 and turns interrupts on and off there.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use guest_rt::abi::irq::PIT;
use guest_rt::irq;

// The first interrupt makes rounds of exits until enough other interrupts have come; those are only
// counted. kernel_places sums up what they interrupted: RIP, relative to the handler, and the round.
global_asm!(
    r#"
.section .text
.balign 16
kernel_handler:
    push rax
    push rcx
    lea rcx, [rip + kernel_handler]
    mov rax, [rip + kernel_places]
    rol rax, 7
    add rax, [rsp + 16]
    sub rax, rcx
    add rax, [rip + kernel_rounds]
    mov [rip + kernel_places], rax
    inc qword ptr [rip + kernel_count]
    cmp qword ptr [rip + kernel_rounds], 0
    jne 9f

1:  inc qword ptr [rip + kernel_rounds]
    # In the shadow of STI, and beyond it.
    sti
    out 0x80, al
    cli
    sti
    nop
    out 0x80, al
    cli
    # Off at the exits, on between them: nothing arrives here.
    mov eax, 8
3:  out 0x80, al
    sti
    mov ecx, 60
4:  dec ecx
    jnz 4b
    cli
    dec eax
    jnz 3b
    # On by POPF.
    pushfq
    or qword ptr [rsp], 0x200
    popfq
    out 0x80, al
    cli
    # On by IRETQ.
    mov rcx, rsp
    mov eax, ss
    push rax
    push rcx
    pushfq
    or qword ptr [rsp], 0x200
    mov eax, cs
    push rax
    lea rax, [rip + 2f]
    push rax
    iretq
2:  out 0x80, al
    cli
    # In the shadow of MOV SS.
    mov eax, ss
    sti
    nop
    mov ss, eax
    out 0x80, al
    cli
    # Exits that read, and that touch memory outside RAM.
    sti
    nop
    in al, 0x80
    mov ecx, {console}
    mov eax, [rcx]
    mov dword ptr [rcx + 0x64], 0
    cli
    # HLT right after STI.
    sti
    hlt
    cli
    cmp qword ptr [rip + kernel_count], {interrupts}
    jb 1b
9:  pop rcx
    pop rax
    iretq

.section .bss
.balign 8
kernel_count:
    .skip 8
kernel_rounds:
    .skip 8
kernel_places:
    .skip 8
"#,
    console = const guest_rt::abi::MMIO_CONSOLE,
    interrupts = const INTERRUPTS,
);

/// Least number of interrupts that come while the handler is at CPL 0.
const INTERRUPTS: u64 = 60;

/// A word that the handler writes.
#[repr(transparent)]
struct Shared(UnsafeCell<u64>);

// SAFETY: only the handler writes it, and Rust only reads it, volatile.
unsafe impl Sync for Shared {}

unsafe extern "C" {
    fn kernel_handler();
    static kernel_count: Shared;
    static kernel_places: Shared;
}

/// Installs it as the timer's handler. The line must be masked.
pub fn install() {
    // SAFETY: `kernel_handler` saves what it uses, writes only its own words, and takes less than 256
    // bytes of stack with one other interrupt nested in it; and the caller masked the line.
    unsafe { irq::set_raw_handler(PIT, kernel_handler) };
}

/// Number of interrupts handled.
pub fn count() -> u64 {
    // SAFETY: volatile, as the handler may write it at any exit.
    unsafe { kernel_count.0.get().read_volatile() }
}

/// A checksum of what was interrupted.
pub fn places() -> u64 {
    // SAFETY: as in `count`.
    unsafe { kernel_places.0.get().read_volatile() }
}
