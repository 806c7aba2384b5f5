//! The machine's devices and the addresses they answer to.

use crate::cpu::Exit;
use crate::devices::clock::Clock;
use crate::devices::edges::EdgeCounter;
use crate::devices::pic::Pic;
use crate::devices::pit::Pit;
use crate::devices::uart::{Uart, UartState};
use crate::devices::virtio::{Console, Mmio, MmioState, Net, NetState, Rng};
use crate::devices::{BadState, Output};
use crate::memory::Ram;
use crate::memory::ram::GuestMap;
use bincode::{Decode, Encode};
use ft_protocol::log::{MachineConfig, OutputPort};
use lockstep_abi::{MMIO_CONSOLE, MMIO_NET, MMIO_RNG, MMIO_STRIDE, irq, port};
use std::collections::VecDeque;
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

/// The state of every device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BusState {
    pic: Pic,
    pit: Pit,
    clock: Clock,
    edges: EdgeCounter,
    uart: UartState,
    console: (MmioState, VecDeque<u8>),
    net: Option<(MmioState, NetState)>,
    rng: (MmioState, Rng),
}

impl BusState {
    /// A digest of each device, by name.
    pub fn components(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("8259 pair", hash(&self.pic)),
            ("8254", hash(&self.pit)),
            ("clock", hash(&self.clock)),
            ("edge counter", hash(&self.edges)),
            ("16550", hash(&self.uart)),
            ("virtio-console", hash(&self.console)),
            ("virtio-net", hash(&self.net)),
            ("virtio-rng", hash(&self.rng)),
        ]
    }
}

/// xxh3-64 of the encoding.
fn hash(state: impl Encode) -> u64 {
    let bytes = bincode::encode_to_vec(state, bincode::config::standard())
        .expect("device state is plain data");
    xxh3_64(&bytes)
}

impl Bus {
    /// The devices of a machine of this configuration in this state, which may come from anybody.
    pub fn restore(config: &MachineConfig, state: &BusState, ram: &Ram) -> Result<Bus, BadState> {
        state.pic.validate()?;
        state.clock.validate()?;
        state.pit.validate(state.clock.now_ns())?;
        state.edges.validate(config.quantum)?;
        let net = match (config.net, &state.net) {
            (None, None) => None,
            (Some(net), Some((transport, device))) => {
                let device = Net::restore(net.mac, device.clone())?;
                Some(Mmio::restore(device, transport, ram.map())?)
            }
            _ => {
                return Err(BadState {
                    device: "virtio-net",
                    what: "either the state or the machine has none".into(),
                });
            }
        };
        let (console, input) = &state.console;
        let (rng, requests) = &state.rng;
        requests.validate()?;
        Ok(Bus {
            pic: state.pic.clone(),
            pit: state.pit.clone(),
            clock: state.clock.clone(),
            edges: state.edges.clone(),
            uart: Uart::restore(&state.uart)?,
            console: Mmio::restore(Console::restore(input.clone())?, console, ram.map())?,
            net,
            rng: Mmio::restore(requests.clone(), rng, ram.map())?,
        })
    }

    /// The state of every device, after [`Bus::process`].
    pub fn save(&mut self) -> BusState {
        let unsent = self.uart.take_edge() || !self.uart.take_sent().is_empty();
        assert!(
            !unsent,
            "the 16550's edges and bytes are carried on at once"
        );
        BusState {
            pic: self.pic.clone(),
            pit: self.pit.clone(),
            clock: self.clock.clone(),
            edges: self.edges.clone(),
            uart: self.uart.state(),
            console: (
                self.console.state(),
                self.console.device().waiting().clone(),
            ),
            net: self
                .net
                .as_mut()
                .map(|net| (net.state(), net.device().state().clone())),
            rng: (self.rng.state(), self.rng.device().clone()),
        }
    }

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
mod tests {
    use super::*;
    use ft_protocol::log::NetConfig;

    fn config(net: Option<NetConfig>) -> MachineConfig {
        MachineConfig {
            mem_mib: 16,
            net,
            quantum: 1000,
            seed: 0,
            wall_ns: 0,
        }
    }

    #[test]
    fn ports_and_windows_without_a_device_read_as_on_a_bus() {
        let mut bus = Bus::new(&config(None), &Ram::new(16).unwrap());
        let mut data = [0; 4];
        bus.pio_read(0x80, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.mmio_read(MMIO_NET, &mut data);
        assert_eq!(data, [0; 4]);
        bus.mmio_read(0xf000_0000, &mut data);
        assert_eq!(data, [0xff; 4]);
        // The last port there is, four bytes wide.
        bus.pio_read(0xfffe, &mut data);
        bus.pio_write(0xfffe, &data);
    }

    #[test]
    fn every_device_is_in_the_digest() {
        let ram = Ram::new(16).unwrap();
        let net = NetConfig {
            mac: [2; 6],
            ip: [10, 0, 0, 1],
            prefix_len: 8,
            gateway: [0; 4],
        };
        let fresh = || Bus::new(&config(Some(net)), &ram);
        let empty = fresh().digest();
        let changes: [fn(&mut Bus, &Ram); 8] = [
            |bus, ram| bus.edges.grant(ram),
            |bus, ram| bus.mmio_write(MMIO_RNG + 0x30, &[1, 0, 0, 0], ram.map()),
            |bus, _| bus.pio_write(0x21, &[0xfe]),
            |bus, _| bus.pio_write(0x43, &[0x34]),
            |bus, ram| bus.clock.set(1, ram),
            |bus, _| bus.pio_write(0x3ff, &[7]),
            |bus, ram| bus.mmio_write(MMIO_CONSOLE + 0x30, &[1, 0, 0, 0], ram.map()),
            |bus, ram| bus.receive_frame(vec![0; 60], ram),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut bus = fresh();
            change(&mut bus, &ram);
            assert_ne!(bus.digest(), empty, "change {index}");
        }
    }
}
