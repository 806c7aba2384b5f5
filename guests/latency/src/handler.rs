//! The timer's handler: records when it ran.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use guest_rt::abi::irq::PIT;
use guest_rt::irq;

/// Most ticks that are recorded.
pub const SAMPLES: usize = 2000;

// 0x8000 is ClockPage.now_ns; `quanta` is the runtime's count of exits at port::QUANTUM.
global_asm!(
    r#"
.section .text
.balign 16
latency_tick:
    push rax
    push rcx
    mov rcx, [rip + latency_count]
    cmp rcx, {samples}
    jae 1f
    mov rax, [0x8000]
    push rdx
    lea rdx, [rip + latency_samples]
    shl rcx, 4
    mov [rdx + rcx], rax
    mov rax, [rip + quanta]
    mov [rdx + rcx + 8], rax
    pop rdx
    inc qword ptr [rip + latency_count]
1:  pop rcx
    pop rax
    iretq

.section .bss
.balign 16
latency_samples:
    .skip 16 * {samples}
latency_count:
    .skip 8
"#,
    samples = const SAMPLES
);

/// A tick, as its handler recorded it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sample {
    /// Guest time, nanoseconds.
    pub ns: u64,
    /// How many exits at port::QUANTUM the guest had made.
    pub quanta: u64,
}

#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: only the handler writes these, and Rust only reads them, volatile.
unsafe impl<T> Sync for Shared<T> {}

unsafe extern "C" {
    fn latency_tick();
    static latency_count: Shared<u64>;
    static latency_samples: Shared<[Sample; SAMPLES]>;
}

/// Installs it as the timer's handler. The line must be masked.
pub fn install() {
    // SAFETY: `latency_tick` saves what it uses, writes only its own words, and takes 24 bytes of
    // stack; and the caller masked the line.
    unsafe { irq::set_raw_handler(PIT, latency_tick) };
}

/// Number of ticks recorded.
pub fn count() -> usize {
    // SAFETY: volatile, as the handler may write it at any exit.
    unsafe { latency_count.0.get().read_volatile() as usize }
}

/// Tick number `index`.
pub fn sample(index: usize) -> Sample {
    assert!(index < count());
    // SAFETY: in bounds, and the handler does not write it again.
    unsafe {
        latency_samples
            .0
            .get()
            .cast::<Sample>()
            .add(index)
            .read_volatile()
    }
}
