//! The 16550, for text before virtio-console works and after it may not work any more. Each byte is an
//! exit, so bulk output goes elsewhere.

use core::fmt;

use lockstep_abi::port;

use crate::cpu::out8;

/// Writes to the transmit register of the 16550, which is always ready for the next byte on this
/// machine.
pub struct Uart;

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            out8(port::COM1, byte);
        }
        Ok(())
    }
}
