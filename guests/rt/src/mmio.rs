//! Reads and writes of device registers.
//!
//! Like port I/O ([`crate::cpu`]), each access begins with a comparison that defines all flags. The
//! drivers of `virtio-drivers` use these functions too, through `safe-mmio`.

use core::arch::asm;

pub use safe_mmio::MmioOps;
use safe_mmio::set_mmio_ops;

/// Makes an access with one instruction. The modifier sets the operand's size.
macro_rules! read {
    ($from:expr, $class:ident, $modifier:literal) => {{
        let value;
        // SAFETY: the caller says that the register may be read; apart from that, only flags change.
        unsafe {
            asm!(
                "cmp {from:e}, {from:e}",
                concat!("mov {value", $modifier, "}, [{from}]"),
                from = in(reg) $from,
                value = lateout($class) value,
                options(nostack)
            )
        }
        value
    }};
}

macro_rules! write {
    ($to:expr, $value:expr, $class:ident, $modifier:literal) => {
        // SAFETY: the caller says that the register may be written; apart from that, only flags change.
        unsafe {
            asm!(
                "cmp {to:e}, {to:e}",
                concat!("mov [{to}], {value", $modifier, "}"),
                to = in(reg) $to,
                value = in($class) $value,
                options(nostack)
            )
        }
    };
}

/// Accesses of every width that a register can have. None of them needs an alignment.
pub struct Registers;

impl MmioOps for Registers {
    unsafe fn read_u8(from: *const u8) -> u8 {
        read!(from, reg_byte, "")
    }

    unsafe fn read_u16(from: *const u16) -> u16 {
        read!(from, reg, ":x")
    }

    unsafe fn read_u32(from: *const u32) -> u32 {
        read!(from, reg, ":e")
    }

    unsafe fn read_u64(from: *const u64) -> u64 {
        read!(from, reg, ":r")
    }

    unsafe fn write_u8(to: *mut u8, value: u8) {
        write!(to, value, reg_byte, "");
    }

    unsafe fn write_u16(to: *mut u16, value: u16) {
        write!(to, value, reg, ":x");
    }

    unsafe fn write_u32(to: *mut u32, value: u32) {
        write!(to, value, reg, ":e");
    }

    unsafe fn write_u64(to: *mut u64, value: u64) {
        write!(to, value, reg, ":r");
    }
}

set_mmio_ops!(Registers);
