//! Text in and out through virtio-console: one exit for a line, not one for a byte.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use lockstep_abi::MMIO_CONSOLE;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::single::Single;
use crate::uart::Uart;
use crate::virtio::{OneToOne, transport};

/// Most text kept back for want of the line's end, bytes.
const MAX_LINE: usize = 1024;

struct Console {
    device: VirtIOConsole<OneToOne, MmioTransport<'static>>,
    /// What has been printed and not sent.
    line: Vec<u8>,
}

static CONSOLE: Single<Option<Console>> = Single::new(None);

pub(crate) fn init() {
    let Some(device) = transport(MMIO_CONSOLE).and_then(|it| VirtIOConsole::new(it).ok()) else {
        return;
    };
    let line = Vec::with_capacity(MAX_LINE);
    CONSOLE.with(|console| *console = Some(Console { device, line }));
}

/// Prints; use [`crate::print!`]. Goes to the 16550 while there is no virtio-console, and when
/// called from a `Display` that is being printed.
pub fn print(text: fmt::Arguments) {
    let printed = CONSOLE.with(|console| {
        console.as_mut().is_some_and(|console| {
            let _ = console.write_fmt(text);
            console.send_lines();
            true
        })
    });
    if printed != Some(true) {
        let _ = Uart.write_fmt(text);
    }
}

/// Sends what has been printed, whole line or not.
pub fn flush() {
    CONSOLE.with(|console| {
        if let Some(console) = console {
            let all = console.line.len();
            console.send(all);
        }
    });
}

/// Moves console input to `buffer`; returns its bytes, 0 if there is none now. End of input is a
/// byte 0x04.
///
/// It lowers the device's interrupt line, so that the next input raises it again. Call it until it
/// returns 0 before idling.
pub fn read(buffer: &mut [u8]) -> usize {
    let read = CONSOLE.with(|console| {
        let device = &mut console.as_mut()?.device;
        device.ack_interrupt().ok()?;
        let mut read = 0;
        while read < buffer.len()
            && let Ok(Some(byte)) = device.recv(true)
        {
            buffer[read] = byte;
            read += 1;
        }
        Some(read)
    });
    read.flatten().unwrap_or(0)
}

impl Console {
    /// Sends up to the last line's end.
    fn send_lines(&mut self) {
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            self.send(end + 1);
        }
    }

    /// Sends the first `bytes`.
    fn send(&mut self, bytes: usize) {
        if bytes > 0 {
            // An error leaves nobody to tell: what cannot be said is dropped.
            let _ = self.device.send_bytes(&self.line[..bytes]);
            self.line.drain(..bytes);
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.as_bytes().chunks(MAX_LINE) {
            if self.line.len() + part.len() > MAX_LINE {
                let all = self.line.len();
                self.send(all);
            }
            self.line.extend_from_slice(part);
        }
        Ok(())
    }
}
