//! The 16550 console: the model of `vm-superio`, with an interrupt and a writer of our own.

use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, InputKind, Line, Output, World};
use ft_protocol::log::OutputPort;
use lockstep_memory::ram::GuestMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial, SerialState};

/// Remembers an edge of the interrupt line until the machine hands it to the PIC.
#[derive(Clone, Debug, Default)]
struct Edges(Arc<AtomicBool>);

impl Trigger for Edges {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The UART.
pub struct Uart {
    serial: Serial<Edges, NoEvents, Vec<u8>>,
    edges: Edges,
}

impl Default for Uart {
    fn default() -> Uart {
        let edges = Edges::default();
        Uart {
            serial: Serial::new(edges.clone(), Vec::new()),
            edges,
        }
    }
}

impl Uart {
    /// OUT to register `offset` (0 to 7).
    pub fn write(&mut self, offset: u16, value: u8) {
        // Writing to a Vec and setting a flag cannot fail.
        let done = self.serial.write(offset as u8, value);
        assert!(done.is_ok(), "the UART's writer is memory");
    }

    /// IN from register `offset` (0 to 7).
    pub fn read(&mut self, offset: u16) -> u8 {
        self.serial.read(offset as u8)
    }

    /// Room for received bytes. There is none until the driver enables the receive interrupt (IER bit
    /// 0), so that input typed early is not lost to a driver that never reads here.
    pub fn room(&self) -> usize {
        match self.serial.state().interrupt_enable & 1 {
            0 => 0,
            _ => self.serial.fifo_capacity(),
        }
    }

    /// Takes received bytes. Bytes without room are lost, as on the wire.
    pub fn receive(&mut self, bytes: &[u8]) {
        let fitting = &bytes[..bytes.len().min(self.room())];
        // In loopback mode the model refuses input: those bytes are lost too.
        let _refused = self.serial.enqueue_raw_bytes(fitting);
    }

    /// Bytes sent since the last call.
    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(self.serial.writer_mut())
    }

    /// Did the interrupt line rise since the last call?
    pub fn take_edge(&mut self) -> bool {
        self.edges.0.swap(false, Ordering::Relaxed)
    }
}

/// Most received bytes that wait for the driver: the FIFO of `vm-superio` (a real 16550 has 16 bytes).
const FIFO_BYTES: usize = 64;

impl Component for Uart {
    fn name(&self) -> &'static str {
        "16550"
    }

    /// DLL, DLH, IER, IIR, LCR, LSR, MCR, MSR, SCR, and received bytes that were not read yet. Sent bytes
    /// and an edge of the line are handed on at once, so they are not part of the state.
    fn save(&self, words: &mut Words) {
        assert!(
            self.serial.writer().is_empty() && !self.edges.0.load(Ordering::Relaxed),
            "the 16550's edges and bytes are carried on at once"
        );
        let s = self.serial.state();
        words.put_all([
            s.baud_divisor_low,
            s.baud_divisor_high,
            s.interrupt_enable,
            s.interrupt_identification,
            s.line_control,
            s.line_status,
            s.modem_control,
            s.modem_status,
            s.scratch,
        ]);
        words.put_bytes(&s.in_buffer);
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        let serial = SerialState {
            baud_divisor_low: words.take()?,
            baud_divisor_high: words.take()?,
            interrupt_enable: words.take()?,
            interrupt_identification: words.take()?,
            line_control: words.take()?,
            line_status: words.take()?,
            modem_control: words.take()?,
            modem_status: words.take()?,
            scratch: words.take()?,
            in_buffer: words.bytes(FIFO_BYTES)?,
        };
        let edges = self.edges.clone();
        let serial = Serial::from_state(&serial, edges, NoEvents, Vec::new());
        self.serial = serial.map_err(|e| words.bad(format!("{e:?}")))?;
        // The model makes an edge of an interrupt that is pending; the PIC had that one.
        self.take_edge();
        Ok(())
    }
}

impl Device for Uart {
    fn read(&mut self, offset: u64, data: &mut [u8], _: &World) {
        data.fill_with(|| self.read(offset as u16));
    }

    fn write(&mut self, offset: u64, data: &[u8], _: &World) {
        for &value in data {
            self.write(offset as u16, value);
        }
    }

    fn process(&mut self, _: &GuestMap, outputs: &mut Vec<Output>, mut line: Line) {
        let sent = self.take_sent();
        if !sent.is_empty() {
            outputs.push(Output {
                port: OutputPort::Console,
                data: sent,
            });
        }
        if self.take_edge() {
            line.pulse();
        }
    }

    fn room(&self, kind: InputKind) -> Option<usize> {
        (kind == InputKind::Console).then(|| self.room())
    }

    fn receive(&mut self, kind: InputKind, data: Vec<u8>) {
        assert_eq!(kind, InputKind::Console);
        self.receive(&data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_out_and_come_in() {
        let mut uart = Uart::default();
        uart.write(0, b'x');
        assert_eq!(uart.take_sent(), b"x");
        assert!(uart.take_sent().is_empty());
        uart.write(1, 1);
        uart.take_edge();
        uart.receive(b"y");
        assert!(uart.take_edge());
        assert_eq!(uart.read(0), b'y');
    }

    #[test]
    fn a_flood_of_input_is_bounded() {
        let mut uart = Uart::default();
        uart.receive(b"before the driver is up");
        assert!(uart.serial.state().in_buffer.is_empty());
        uart.write(1, 1);
        uart.receive(&[7; 1000]);
        assert_eq!(uart.room(), 0);
        uart.receive(&[7; 1000]);
        assert_eq!(uart.serial.state().in_buffer.len(), FIFO_BYTES);
    }
}
