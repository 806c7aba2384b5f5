//! Reads and writes of device registers.
//!
//! As port I/O does ([`crate::cpu`]), each begins with a comparison that defines every flag. The drivers of
//! `virtio-drivers` come here as well, by way of `safe-mmio`.

use core::arch::asm;

pub use safe_mmio::MmioOps;
use safe_mmio::set_mmio_ops;

/// An access by one instruction, its operands sized by a register's modifier.
macro_rules! read {
    ($from:expr, $class:ident, $modifier:literal) => {{
        let value;
        // SAFETY: the caller says that the register may be read; the rest is flags.
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
        // SAFETY: the caller says that the register may be written; the rest is flags.
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

/// The accesses, of every width that a register can have. None needs an alignment.
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
