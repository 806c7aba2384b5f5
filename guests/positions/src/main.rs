//! Takes interrupts at every kind of position.
//!
//! A fast timer interrupts loops that make exits of one kind each. A checksum covers what the guest had
//! done when each interrupt came. So it depends on the positions of the interrupts, and a replay must
//! print the same. In one kind, the timer's handler itself makes so many exits with interrupts off that
//! the next tick comes meanwhile and must wait. In another, the handler turns interrupts on and off in
//! all ways that exist at CPL 0, between exits and at them.
#![no_std]
#![no_main]

mod handler;
mod kernel;

use guest_rt::abi::{MMIO_CONSOLE, irq::PIT};
use guest_rt::cpu::{halt, in8, out8};
use guest_rt::mmio::{MmioOps, Registers};
use guest_rt::{clock, irq, pit, println};

/// A port without a device (a PC's diagnostic port).
const PORT_NOTHING: u16 = 0x80;
/// Time between two ticks, microseconds.
const INTERVAL_US: u32 = 200;
/// Least number of interrupts per kind.
const INTERRUPTS: u64 = 20;

/// Registers of virtio-mmio (virtio 1.2, 4.2.2) and of virtio-console's configuration.
const MAGIC_VALUE: u64 = MMIO_CONSOLE;
const INTERRUPT_ACK: u64 = MMIO_CONSOLE + 0x64;
const CONFIG: u64 = MMIO_CONSOLE + 0x100;
/// Eight bytes across the border of two windows: one read, two exits.
const STRADDLING: u64 = MMIO_CONSOLE - 4;

/// The kinds: a name, and what each round does.
const KINDS: [(&str, fn()); 8] = [
    ("out", || out8(PORT_NOTHING, 0)),
    ("in", || {
        in8(PORT_NOTHING);
    }),
    ("mmio-read", || read32(MAGIC_VALUE)),
    ("mmio-read-8", || read64(CONFIG)),
    ("mmio-read-straddling", || read64(STRADDLING)),
    ("mmio-write", acknowledge_nothing),
    ("hlt", halt),
    ("idle", || clock::idle(clock::activity(), clock::NEVER)),
];

guest_rt::entry!(main);

fn main() -> u32 {
    let mut checksum = 0;
    irq::unmask(PIT);
    pit::periodic(INTERVAL_US);
    for (name, operation) in KINDS {
        let (count, sum) = until_interrupted(operation, || irq::count(PIT));
        println!("positions: {name} {count} interrupts");
        checksum = mix(checksum, sum);
    }
    irq::mask(PIT);

    handler::install();
    irq::unmask(PIT);
    let (count, sum) = until_interrupted(|| out8(PORT_NOTHING, 1), handler::count);
    irq::mask(PIT);
    println!("positions: late {count} interrupts");
    checksum = mix(mix(checksum, sum), handler::places());

    kernel::install();
    irq::unmask(PIT);
    let (_, sum) = until_interrupted(|| out8(PORT_NOTHING, 2), kernel::count);
    irq::mask(PIT);
    pit::stop();
    println!("positions: kernel {} interrupts", kernel::count());
    checksum = mix(mix(checksum, sum), kernel::places());

    println!("positions: checksum {checksum:016x}");
    println!("positions: done");
    0
}

/// Repeats `operation` until [`INTERRUPTS`] have come. Returns how many came, and a checksum of the
/// rounds in which they were seen.
fn until_interrupted(operation: fn(), interrupts: fn() -> u64) -> (u64, u64) {
    let before = interrupts();
    let (mut seen, mut round, mut sum) = (0, 0u64, 0);
    while seen < INTERRUPTS {
        operation();
        round += 1;
        let now = interrupts() - before;
        if now != seen {
            seen = now;
            sum = mix(mix(sum, round), seen);
        }
    }
    (seen, sum)
}

fn mix(state: u64, value: u64) -> u64 {
    (state ^ value)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

fn read32(address: u64) {
    // SAFETY: the windows are mapped for the machine's whole life, every access width is answered, and
    // reading these registers changes nothing.
    unsafe { Registers::read_u32(address as *const u32) };
}

fn read64(address: u64) {
    // SAFETY: as in `read32`.
    unsafe { Registers::read_u64(address as *const u64) };
}

fn acknowledge_nothing() {
    // SAFETY: as in `read32`; acknowledging no interrupt changes nothing.
    unsafe { Registers::write_u32(INTERRUPT_ACK as *mut u32, 0) };
}
