//! The 16550 console: `vm-superio`'s model with its interrupt and its writer handed to it.

use super::BadState;
use bincode::{Decode, Encode};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial, SerialState};

/// Collects edges of the interrupt line until the machine carries them to the PIC.
#[derive(Clone, Debug, Default)]
struct Line(Arc<AtomicBool>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The UART.
pub struct Uart {
    serial: Serial<Line, NoEvents, Vec<u8>>,
    line: Line,
}

/// Its state. What was sent and an edge of the line are carried on at once, so they are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UartState {
    /// DLL, DLH, IER, IIR, LCR, LSR, MCR, MSR, SCR.
    pub registers: [u8; 9],
    /// Received bytes not read yet.
    pub receive_buffer: Vec<u8>,
}

impl Default for Uart {
    fn default() -> Uart {
        let line = Line::default();
        Uart {
            serial: Serial::new(line.clone(), Vec::new()),
            line,
        }
    }
}

impl Uart {
    /// A UART in this state.
    pub fn restore(state: &UartState) -> Result<Uart, BadState> {
        let [dll, dlh, ier, iir, lcr, lsr, mcr, msr, scr] = state.registers;
        let serial = SerialState {
            baud_divisor_low: dll,
            baud_divisor_high: dlh,
            interrupt_enable: ier,
            interrupt_identification: iir,
            line_control: lcr,
            line_status: lsr,
            modem_control: mcr,
            modem_status: msr,
            scratch: scr,
            in_buffer: state.receive_buffer.clone(),
        };
        let line = Line::default();
        let serial = Serial::from_state(&serial, line.clone(), NoEvents, Vec::new());
        let serial = serial.map_err(|e| BadState {
            device: "16550",
            what: format!("{e:?}"),
        })?;
        let mut uart = Uart { serial, line };
        // The model makes an edge of an interrupt that is pending; the PIC had that one.
        uart.take_edge();
        Ok(uart)
    }

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

    /// Room for received bytes: none before the driver asked to be told of them (IER bit 0), so that
    /// input typed early is not lost to a driver that never looks here.
    pub fn room(&self) -> usize {
        match self.serial.state().interrupt_enable & 1 {
            0 => 0,
            _ => self.serial.fifo_capacity(),
        }
    }

    /// Bytes arrive; what finds no room is lost, as on the wire.
    pub fn receive(&mut self, bytes: &[u8]) {
        let fitting = &bytes[..bytes.len().min(self.room())];
        // The model refuses input in loopback mode: those bytes are lost too.
        let _refused = self.serial.enqueue_raw_bytes(fitting);
    }

    /// Bytes sent since the last call.
    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(self.serial.writer_mut())
    }

    /// Did the interrupt line rise since the last call?
    pub fn take_edge(&mut self) -> bool {
        self.line.0.swap(false, Ordering::Relaxed)
    }

    /// The state.
    pub fn state(&self) -> UartState {
        let s = self.serial.state();
        UartState {
            registers: [
                s.baud_divisor_low,
                s.baud_divisor_high,
                s.interrupt_enable,
                s.interrupt_identification,
                s.line_control,
                s.line_status,
                s.modem_control,
                s.modem_status,
                s.scratch,
            ],
            receive_buffer: s.in_buffer,
        }
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
        assert!(uart.state().receive_buffer.is_empty());
        uart.write(1, 1);
        uart.receive(&[7; 1000]);
        assert_eq!(uart.room(), 0);
        uart.receive(&[7; 1000]);
        assert_eq!(uart.state().receive_buffer.len(), 64);
    }
}
