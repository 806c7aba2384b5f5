//! A guest of a user's own: Rust, the stock compiler, no runtime and no instrumentation.
//!
//! ```text
//! rustc -O --edition 2024 -C panic=abort -C relocation-model=static -C no-redzone=yes \
//!     -C link-args="-nostartfiles -nostdlib -static -no-pie" -o primes guests/own/primes.rs
//! lockstep run ./primes
//! ```
//!
//! It does what `primes.c` does.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

const COM1: u16 = 0x3f8;
const PIC: u16 = 0x20;
const PIT: u16 = 0x40;
const END: u16 = 0xf4;
const BELOW: u32 = 3000;
const PRIMES: u32 = 430;
const TICKS: u64 = 500;
const TICKS_PER_LINE: u64 = 25;
/// 1 ms, in counts of the 8254.
const COUNTS: u16 = 1193;

// The machine enters at `_start`, with interrupts off and a stack of 4 KiB. The timer's handler counts, and
// ends the interrupt at the 8259. `core` names the last symbol for unwinding, which is never done here.
global_asm!(
    ".globl _start",
    "_start: call {run}",
    "tick: inc qword ptr [rip + {ticks}]",
    "push rax",
    "mov al, 0x20",
    "out 0x20, al",
    "pop rax",
    "iretq",
    ".globl rust_eh_personality",
    "rust_eh_personality: ud2",
    run = sym run,
    ticks = sym TICKED,
);

unsafe extern "C" {
    fn tick();
}

static TICKED: AtomicU64 = AtomicU64::new(0);
/// Two words for each of the vectors 0 to 32.
static IDT: [AtomicU64; 66] = [const { AtomicU64::new(0) }; 66];

fn out8(port: u16, value: u8) {
    // SAFETY: a device's register is written; no memory is.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) }
}

fn print(text: &str) {
    text.bytes().for_each(|byte| out8(COM1, byte));
}

fn print_number(number: u64) {
    if number >= 10 {
        print_number(number / 10);
    }
    out8(COM1, b'0' + (number % 10) as u8);
}

/// The limit and the base for LIDT.
#[repr(C, packed)]
struct Pointer(u16, u64);

/// An interrupt gate for vector 32 (Intel SDM vol. 3, 7.14.1); the machine's GDT has the code segment 8.
fn install() {
    let handler = tick as *const () as u64;
    let gate = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
    IDT[64].store(gate, Ordering::Relaxed);
    IDT[65].store(handler >> 32, Ordering::Relaxed);
    let pointer = Pointer(size_of_val(&IDT) as u16 - 1, IDT.as_ptr() as u64);
    // SAFETY: the table is there for ever.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) }
    // The master 8259: vectors from 32, only line 0 heard.
    out8(PIC, 0x11);
    for value in [32, 4, 1, 0xfe] {
        out8(PIC + 1, value);
    }
    // Counter 0 of the 8254: mode 2.
    out8(PIT + 3, 0x34);
    for value in COUNTS.to_le_bytes() {
        out8(PIT, value);
    }
    // SAFETY: the only handler there is keeps every register.
    unsafe { asm!("sti", options(nostack)) }
}

fn primes_below(limit: u32) -> u32 {
    let is_prime = |n: &u32| (2..).take_while(|f| f * f <= *n).all(|f| n % f != 0);
    (2..limit).filter(is_prime).count() as u32
}

extern "C" fn run() -> ! {
    install();
    let (mut rounds, mut wrong, mut next) = (0u64, false, TICKS_PER_LINE);
    while TICKED.load(Ordering::Relaxed) < TICKS {
        wrong |= primes_below(core::hint::black_box(BELOW)) != PRIMES;
        rounds += 1;
        let ticked = TICKED.load(Ordering::Relaxed);
        if ticked >= next {
            next += TICKS_PER_LINE;
            print("primes: tick ");
            print_number(ticked);
            print(", round ");
            print_number(rounds);
            print("\n");
        }
    }
    print(if wrong { "primes: WRONG\n" } else { "primes: done\n" });
    loop {
        // SAFETY: the machine ends here.
        unsafe { asm!("out dx, eax", in("dx") END, in("eax") u32::from(wrong)) }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        // SAFETY: the machine ends here.
        unsafe { asm!("out dx, eax", in("dx") END, in("eax") 101) }
    }
}
