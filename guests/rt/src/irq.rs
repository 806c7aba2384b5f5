//! The 8259 pair: sixteen lines, each masked at first. Interrupts are counted by line.
//!
//! Both chips end an interrupt by themselves (automatic EOI), so a handler is one `inc` and an `iretq`
//! and makes no exit. Handlers run at CPL 0, where some hosts emulate only few instructions, so they
//! are not written in Rust. A program reads [`count`] after it has idled.

use core::cell::UnsafeCell;

use lockstep_abi::{port, selector};

use crate::cpu::out8;
use crate::single::Single;

/// Vector of the master's line 0; the slave's vectors follow the master's.
pub const FIRST_VECTOR: usize = 0x20;
/// Lines of the pair.
pub const LINES: usize = 16;

/// ICW1: edge-triggered, cascaded, ICW4 follows (Intel 8259A data sheet).
const ICW1: u8 = 0x11;
/// ICW4: automatic EOI, 8086 mode.
const ICW4: u8 = 0x03;
/// Line of the master to which the slave is connected.
const CASCADE: u8 = 2;

/// The masks of both chips (OCW1): a set bit masks its line.
static MASKS: Single<u16> = Single::new(0xffff);

/// A word that assembly writes.
#[repr(transparent)]
struct Shared(UnsafeCell<u64>);

// SAFETY: only handlers write it, by one instruction each, and Rust only reads it, volatile.
unsafe impl Sync for Shared {}

/// An IDT gate, in two halves.
#[repr(C)]
struct Gate([UnsafeCell<u64>; 2]);

// SAFETY: only `set_gate` writes it, and its caller makes sure that the vector is not used meanwhile.
unsafe impl Sync for Gate {}

unsafe extern "C" {
    static irq_counts: [Shared; LINES];
    static idt: [Gate; FIRST_VECTOR + LINES];
}

pub(crate) fn init() {
    let [master, slave] = [port::PIC1, port::PIC2];
    let slave_vector = FIRST_VECTOR + LINES / 2;
    for (chip, icw2, icw3) in [
        (master, FIRST_VECTOR as u8, 1 << CASCADE),
        (slave, slave_vector as u8, CASCADE),
    ] {
        out8(chip, ICW1);
        out8(chip + 1, icw2);
        out8(chip + 1, icw3);
        out8(chip + 1, ICW4);
        out8(chip + 1, 0xff);
    }
}

/// Lets interrupts of `line` pass.
pub fn unmask(line: u8) {
    let slave_used = if line >= 8 { 1 << CASCADE } else { 0 };
    change(|masks| masks & !bit(line) & !slave_used);
}

/// Holds interrupts of `line` back; a request stays pending.
pub fn mask(line: u8) {
    change(|masks| masks | bit(line));
}

/// Interrupts of `line` handled so far.
pub fn count(line: u8) -> u64 {
    assert!((line as usize) < LINES, "there is no interrupt line {line}");
    // SAFETY: in bounds by the assertion; volatile, as a handler may write it at any exit.
    unsafe {
        (&raw const irq_counts[line as usize].0)
            .cast::<u64>()
            .read_volatile()
    }
}

/// Sets the gate of an exception vector (below the vectors of lines) to `handler`. As
/// [`set_raw_handler`]; the handler also runs for `int3` at CPL 3 if `from_program` is set.
///
/// # Safety
/// As for [`set_raw_handler`], with the exception in place of the line.
pub unsafe fn set_raw_exception(
    vector: usize,
    handler: unsafe extern "C" fn(),
    from_program: bool,
) {
    assert!(vector < FIRST_VECTOR, "vector {vector} is a line's");
    let dpl = if from_program { 3 } else { 0 };
    // SAFETY: the caller fulfils the conditions above.
    unsafe { set_gate(vector, handler, dpl) }
}

/// Sets the gate of `line` to `handler`: assembly that runs at CPL 0 with IF = 0 and ends with `iretq`.
///
/// # Safety
/// The handler must preserve every register, use only plain moves, arithmetic, jumps and port I/O (CPL
/// 0 may be emulated), write no memory that Rust code borrows, and fit the 4 KiB kernel stack. The line
/// must be masked.
pub unsafe fn set_raw_handler(line: u8, handler: unsafe extern "C" fn()) {
    assert!((line as usize) < LINES, "there is no interrupt line {line}");
    // SAFETY: the caller fulfils the conditions above.
    unsafe { set_gate(FIRST_VECTOR + line as usize, handler, 0) }
}

/// # Safety
/// See [`set_raw_handler`].
unsafe fn set_gate(vector: usize, handler: unsafe extern "C" fn(), dpl: u64) {
    let address = handler as usize as u64;
    // Intel SDM 3A, 7.14.1: an interrupt gate, present.
    let low = address & 0xffff
        | u64::from(selector::KERNEL_CODE) << 16
        | (0x8e00 | dpl << 13) << 32
        | (address >> 16 & 0xffff) << 48;
    // SAFETY: in bounds; the caller makes sure that the CPU does not use the gate meanwhile.
    unsafe {
        let gate = &idt[vector];
        gate.0[0].get().write_volatile(low);
        gate.0[1].get().write_volatile(address >> 32);
    }
}

fn bit(line: u8) -> u16 {
    assert!((line as usize) < LINES, "there is no interrupt line {line}");
    1 << line
}

fn change(to: impl FnOnce(u16) -> u16) {
    MASKS.with(|masks| {
        let (old, new) = (*masks, to(*masks));
        *masks = new;
        if old as u8 != new as u8 {
            out8(port::PIC1 + 1, new as u8);
        }
        if old >> 8 != new >> 8 {
            out8(port::PIC2 + 1, (new >> 8) as u8);
        }
    });
}
