//! Interrupts at every kind of position.
//!
//! A fast timer interrupts loops of one kind of exit each. What the guest had done when each
//! interrupt came goes into a checksum, so the checksum tells where the interrupts landed, and a
//! replay must print the same. In one kind the timer's handler itself exits so often with interrupts off
//! that the next tick comes meanwhile and has to wait; in another it turns them on and off in all the ways
//! that CPL 0 has, between exits and at them.
#![no_std]
#![no_main]

mod handler;
mod kernel;

use guest_rt::abi::{MMIO_CONSOLE, irq::PIT};
use guest_rt::cpu::{halt, in8, out8};
use guest_rt::mmio::{MmioOps, Registers};
use guest_rt::{clock, irq, pit, println};

/// A port that nothing answers (a PC's diagnostic port).
const PORT_NOTHING: u16 = 0x80;
/// Between two ticks, microseconds.
const INTERVAL_US: u32 = 200;
/// Interrupts per kind, at least.
const INTERRUPTS: u64 = 20;

/// Registers of virtio-mmio (virtio 1.2, 4.2.2) and of virtio-console's configuration.
const MAGIC_VALUE: u64 = MMIO_CONSOLE;
const INTERRUPT_ACK: u64 = MMIO_CONSOLE + 0x64;
const CONFIG: u64 = MMIO_CONSOLE + 0x100;
/// Eight bytes over the edge of two windows: one read, two exits.
const STRADDLING: u64 = MMIO_CONSOLE - 4;

/// What happens once per round, and what it is called.
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

/// Repeats `operation` until [`INTERRUPTS`] came. Returns how many did, and a checksum of the
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
    // SAFETY: the windows are mapped for the machine's whole life, any access width is answered,
    // and these registers change nothing by being read.
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
