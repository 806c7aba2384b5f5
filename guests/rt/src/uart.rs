//! The 16550, for first and last words: a byte is an exit, so bulk output goes elsewhere.

use core::fmt;

use lockstep_abi::port;

use crate::cpu::out8;

/// Writes to the 16550's transmit register. The machine's is always ready for the next byte.
pub struct Uart;

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            out8(port::COM1, byte);
        }
        Ok(())
    }
}
