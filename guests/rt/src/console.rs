//! Text in and out through virtio-console: one exit per line, not one per byte.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use lockstep_abi::MMIO_CONSOLE;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::single::Single;
use crate::uart::Uart;
use crate::virtio::{OneToOne, transport};

/// Most bytes of an incomplete line that are kept back.
const MAX_LINE: usize = 1024;

struct Console {
    device: VirtIOConsole<OneToOne, MmioTransport<'static>>,
    /// Text that was printed and not sent yet.
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

/// Prints; use [`crate::print!`]. The text goes to the 16550 while virtio-console is missing or in use:
/// a `Display` that is being printed may print too.
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

/// Sends all text that was printed, also an incomplete line.
pub fn flush() {
    CONSOLE.with(|console| {
        if let Some(console) = console {
            let all = console.line.len();
            console.send(all);
        }
    });
}

/// Moves console input to `buffer`. Returns the number of bytes, 0 if there is no input now. The end of
/// input is a byte 0x04.
///
/// This lowers the device's interrupt line, so that the next input raises it again. Before idling, call
/// this until it returns 0.
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
    /// Sends all complete lines.
    fn send_lines(&mut self) {
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            self.send(end + 1);
        }
    }

    /// Sends the first `bytes`.
    fn send(&mut self, bytes: usize) {
        if bytes > 0 {
            // If this fails, there is nowhere to report it: the text is dropped.
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
