//! The machine's devices and the addresses they answer to.

mod state;

pub use state::BusState;

use bincode::Encode;
use ft_protocol::log::{MachineConfig, OutputPort};
use lockstep_abi::{MMIO_CONSOLE, MMIO_NET, MMIO_RNG, MMIO_STRIDE, irq, port};
use lockstep_cpu::Exit;
use lockstep_devices::Output;
use lockstep_devices::clock::Clock;
use lockstep_devices::edges::EdgeCounter;
use lockstep_devices::pic::Pic;
use lockstep_devices::pit::Pit;
use lockstep_devices::uart::Uart;
use lockstep_devices::virtio::{Console, Mmio, Net, Rng};
use lockstep_memory::Ram;
use lockstep_memory::ram::GuestMap;
use xxhash_rust::xxh3::xxh3_64;

/// Does a device model need the time to handle this exit?
pub fn needs_time(exit: &Exit) -> bool {
    let first = match exit {
        Exit::PioOut { port, .. } | Exit::PioIn { port, .. } => *port,
        _ => return false,
    };
    (port::PIT..port::PIT + 4).contains(&first)
}

/// Every device of the machine.
pub struct Bus {
    pub(super) pic: Pic,
    pub(super) pit: Pit,
    pub(super) clock: Clock,
    pub(super) edges: EdgeCounter,
    uart: Uart,
    console: Mmio<Console>,
    net: Option<Mmio<Net>>,
    rng: Mmio<Rng>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

/// xxh3-64 of the encoding.
fn hash(state: impl Encode) -> u64 {
    let bytes = bincode::encode_to_vec(state, bincode::config::standard())
        .expect("device state is plain data");
    xxh3_64(&bytes)
}

impl Bus {
    /// All devices as after reset; a network only if there is to be one.
    pub fn new(config: &MachineConfig, ram: &Ram) -> Bus {
        Bus {
            edges: EdgeCounter::new(config.quantum, ram),
            pic: Pic::default(),
            pit: Pit::default(),
            clock: Clock::default(),
            uart: Uart::default(),
            console: Mmio::new(Console::default()),
            net: config.net.map(|net| Mmio::new(Net::new(net.mac))),
            rng: Mmio::new(Rng::default()),
        }
    }

    /// Guest time goes on to `ns`; what expires by then, expires.
    pub fn set_time(&mut self, ns: u64, ram: &Ram) {
        self.clock.set(ns, ram);
        if self.pit.advance(self.clock.now_ns()) {
            self.pic.pulse(irq::PIT);
            self.clock.note_activity(ram);
        }
    }

    /// Frames that virtio-net can take in; none without one.
    pub fn net_room(&mut self) -> usize {
        self.net.as_mut().map_or(0, |net| net.device().room())
    }

    /// Bytes that the console can take in.
    pub fn console_room(&mut self) -> usize {
        match self.console.live() {
            true => self.console.device().room(),
            false => self.uart.room(),
        }
    }

    /// Random bytes that virtio-rng asks for.
    pub fn entropy_wanted(&mut self) -> usize {
        self.rng.device().wanted()
    }

    /// Random bytes arrive.
    pub fn receive_entropy(&mut self, bytes: &[u8], ram: &Ram) {
        self.rng.device().receive(bytes);
        self.clock.note_activity(ram);
    }

    /// A frame arrives.
    pub fn receive_frame(&mut self, frame: Vec<u8>, ram: &Ram) {
        if let Some(net) = &mut self.net {
            net.device().receive(frame);
            self.clock.note_activity(ram);
        }
    }

    /// Console input arrives: at virtio-console once its driver is up, before that at the 16550.
    pub fn receive_console(&mut self, bytes: &[u8], ram: &Ram) {
        match self.console.live() {
            true => self.console.device().receive(bytes),
            false => self.uart.receive(bytes),
        }
        self.clock.note_activity(ram);
    }

    /// Lets the devices work on their rings and carries their interrupt lines to the PIC. Done after
    /// every exit and every input, so that when a ring is looked at depends on these alone.
    pub fn process(&mut self, ram: &Ram, outputs: &mut Vec<Output>) {
        let sent = self.uart.take_sent();
        if !sent.is_empty() {
            outputs.push(Output {
                port: OutputPort::Console,
                data: sent,
            });
        }
        if self.uart.take_edge() {
            self.pic.pulse(irq::COM1);
        }
        self.console.process(ram.map(), outputs);
        self.pic.set_line(irq::CONSOLE, self.console.line());
        self.rng.process(ram.map(), outputs);
        self.pic.set_line(irq::RNG, self.rng.line());
        if let Some(net) = &mut self.net {
            net.process(ram.map(), outputs);
            self.pic.set_line(irq::NET, net.line());
        }
    }

    /// OUT. A wide access is one to each of the consecutive byte ports, as on an ISA bus.
    pub fn pio_write(&mut self, first: u16, data: &[u8]) {
        let now = self.clock.now_ns();
        for (index, &value) in data.iter().enumerate() {
            match first.wrapping_add(index as u16) {
                p @ (port::PIC1 | 0x21) => self.pic.write(false, p & 1 != 0, value),
                p @ (port::PIC2 | 0xa1) => self.pic.write(true, p & 1 != 0, value),
                p @ 0x40..=0x43 => self.pit.write(p - port::PIT, value, now),
                p @ 0x3f8..=0x3ff => self.uart.write(p - port::COM1, value),
                // Nobody answers there: the bus ignores the write.
                _ => {}
            }
        }
    }

    /// IN. Ports that nobody answers at read as all ones.
    pub fn pio_read(&mut self, first: u16, data: &mut [u8]) {
        let now = self.clock.now_ns();
        for (index, value) in data.iter_mut().enumerate() {
            *value = match first.wrapping_add(index as u16) {
                p @ (port::PIC1 | 0x21) => self.pic.read(false, p & 1 != 0),
                p @ (port::PIC2 | 0xa1) => self.pic.read(true, p & 1 != 0),
                p @ 0x40..=0x43 => self.pit.read(p - port::PIT, now),
                p @ 0x3f8..=0x3ff => self.uart.read(p - port::COM1),
                _ => 0xff,
            };
        }
    }

    /// A write outside RAM.
    pub fn mmio_write(&mut self, addr: u64, data: &[u8], mem: &GuestMap) {
        let offset = addr % MMIO_STRIDE;
        match addr - offset {
            MMIO_CONSOLE => self.console.write(offset, data, mem),
            MMIO_RNG => self.rng.write(offset, data, mem),
            MMIO_NET => {
                if let Some(net) = &mut self.net {
                    net.write(offset, data, mem);
                }
            }
            _ => {}
        }
    }

    /// A read outside RAM. Windows without a device read as zero, so that a driver finds none;
    /// everything else reads as all ones.
    pub fn mmio_read(&mut self, addr: u64, data: &mut [u8]) {
        let offset = addr % MMIO_STRIDE;
        match (addr - offset, &self.net) {
            (MMIO_CONSOLE, _) => self.console.read(offset, data),
            (MMIO_RNG, _) => self.rng.read(offset, data),
            (MMIO_NET, Some(net)) => net.read(offset, data),
            (MMIO_NET, None) => data.fill(0),
            _ => data.fill(0xff),
        }
    }

    /// Digest of every device's state.
    pub fn digest(&mut self) -> u64 {
        hash((
            &self.pic,
            &self.pit,
            &self.clock,
            &self.edges,
            self.uart.state(),
            self.console.state(),
            self.console.device().waiting().clone(),
            self.net
                .as_mut()
                .map(|net| (net.state(), net.device().state().clone())),
            (self.rng.state(), self.rng.device().waiting().to_vec()),
        ))
    }
}

#[cfg(test)]
mod tests;
