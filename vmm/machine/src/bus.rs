//! The machine's devices and their addresses.

mod slot;

use bincode::{Decode, Encode};
use ft_protocol::log::{BootProtocol, Counts, EndReason, MachineConfig};
use lockstep_abi::{MMIO_STRIDE, port};
use lockstep_devices::clock::Clock;
use lockstep_devices::edges::EdgeCounter;
use lockstep_devices::{BadState, Component, InputKind, Outputs, Pic, Saved, World};
use lockstep_memory::Ram;
use lockstep_vcpu::Exit;
use slot::{Place, Slot};

/// Every device of the machine: those that all others need, and a list of the others.
pub struct Bus {
    pub(super) pic: Pic,
    pub(super) clock: Clock,
    pub(super) edges: EdgeCounter,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

/// The state of every device, in the order of the machine's list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BusState(Vec<Saved>);

impl BusState {
    /// A digest of each device, by name.
    pub fn components(&self) -> Vec<(String, u64)> {
        let named = |saved: &Saved| (saved.name().to_owned(), saved.digest());
        self.0.iter().map(named).collect()
    }

    /// Digest of every device's state.
    pub fn digest(&self) -> u64 {
        let digests: Vec<u64> = self.0.iter().map(Saved::digest).collect();
        lockstep_devices::state::digest(&digests)
    }
}

impl Bus {
    /// All devices as after a reset. Writes to RAM what the guest must find there.
    pub fn new(config: &MachineConfig, ram: &Ram) -> Bus {
        let bus = Bus::reset(config);
        if config.boot == BootProtocol::LockstepAbi {
            bus.edges.start(ram);
        }
        bus
    }

    fn reset(config: &MachineConfig) -> Bus {
        Bus {
            pic: Pic::default(),
            clock: match config.boot {
                BootProtocol::LockstepAbi => Clock::default(),
                BootProtocol::Linux => Clock::without_page(),
            },
            edges: EdgeCounter::new(match config.counts {
                Counts::BranchEdges => config.quantum,
                Counts::Instructions => 0,
            }),
            slots: slot::all(config),
        }
    }

    /// The devices of a machine of this configuration in this state. The state may come from an
    /// untrusted peer or file.
    pub fn restore(config: &MachineConfig, state: &BusState, ram: &Ram) -> Result<Bus, BadState> {
        let mut bus = Bus::reset(config);
        let mut saved = state.0.iter();
        let mut restore = |component: &mut dyn Component, now_ns| {
            let saved = saved.next().ok_or_else(|| BadState {
                device: component.name().into(),
                what: "the state has none, and the machine has one".into(),
            })?;
            let mem = ram.map();
            component.restore_saved(saved, &World { now_ns, mem })
        };
        restore(&mut bus.pic, 0)?;
        restore(&mut bus.clock, 0)?;
        restore(&mut bus.edges, 0)?;
        let now_ns = bus.clock.now_ns();
        for slot in &mut bus.slots {
            restore(&mut *slot.device, now_ns)?;
        }
        match saved.next() {
            None => Ok(bus),
            Some(more) => Err(BadState {
                device: more.name().into(),
                what: "the state has one, and the machine has none".into(),
            }),
        }
    }

    /// The state of every device. Only after [`Bus::process`].
    pub fn save(&self) -> BusState {
        let platform = [self.pic.saved(), self.clock.saved(), self.edges.saved()];
        let slots = self.slots.iter().map(|slot| slot.device.saved());
        BusState(platform.into_iter().chain(slots).collect())
    }

    /// Sets guest time to `ns`. Timers that expire by then do so.
    pub fn set_time(&mut self, ns: u64, ram: &Ram) {
        self.clock.set(ns, ram);
        let now_ns = self.clock.now_ns();
        for slot in &mut self.slots {
            let (device, line) = slot.with_line(&mut self.pic);
            if device.advance(now_ns, line) {
                self.clock.note_activity(ram);
            }
        }
    }

    /// Guest time of the next interrupt that a device makes by itself, nanoseconds.
    pub fn next_edge_ns(&self) -> Option<u64> {
        let edges = self.slots.iter().map(|slot| slot.device.next_edge_ns());
        edges.flatten().min()
    }

    /// The same, but only for interrupts that the 8259 pair would request from the CPU.
    pub fn next_interrupt_ns(&self) -> Option<u64> {
        let heard = |slot: &Slot| {
            let edge_ns = slot.device.next_edge_ns()?;
            slot.is_heard(&self.pic).then_some(edge_ns)
        };
        self.slots.iter().filter_map(heard).min()
    }

    /// How much input of this kind the machine can take now: frames, or bytes.
    pub fn room(&self, kind: InputKind) -> usize {
        let rooms = self.slots.iter().rev().map(|slot| slot.device.room(kind));
        rooms.flatten().next().unwrap_or(0)
    }

    /// Gives input to the last device in the list that takes its kind, and lets all devices work as
    /// [`Bus::process`] does. Console input goes to virtio-console when its driver is up, and to the 16550
    /// before that.
    pub fn take_in(&mut self, kind: InputKind, data: &[u8], ram: &Ram, outputs: &mut Outputs) {
        let takes = |slot: &Slot| slot.device.room(kind).is_some();
        let target = self.slots.iter().rposition(takes);
        if target.is_some() {
            self.clock.note_activity(ram);
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let (device, line) = slot.with_line(&mut self.pic);
            match Some(index) == target {
                true => device.take_in(kind, data, ram.map(), outputs, line),
                false => device.process(ram.map(), outputs, line),
            }
        }
    }

    /// Lets the devices work on their rings and carries their interrupt lines to the PIC. Called after
    /// every exit and every input, so that a replay looks at the rings at the same positions.
    pub fn process(&mut self, ram: &Ram, outputs: &mut Outputs) {
        for slot in &mut self.slots {
            let (device, line) = slot.with_line(&mut self.pic);
            device.process(ram.map(), outputs, line);
        }
    }

    /// Does a device need the time to handle this exit?
    pub fn needs_time(&mut self, exit: &Exit) -> bool {
        let first = match exit {
            Exit::PioOut { port, .. } | Exit::PioIn { port, .. } => *port,
            Exit::MmioWrite { addr, .. } | Exit::MmioRead { addr, .. } => {
                let at = self.at_address(*addr);
                return at.is_some_and(|(slot, _)| slot.device.needs_time());
            }
            Exit::Hlt | Exit::Shutdown | Exit::Steps | Exit::Interruptible => {
                return false;
            }
        };
        self.at_port(first)
            .is_some_and(|(slot, _)| slot.device.needs_time())
    }

    /// Has the guest ended the machine through a device?
    pub fn ends(&self) -> Option<EndReason> {
        self.slots.iter().find_map(|slot| slot.device.ends())
    }

    /// The device at a port, and the port's offset in the device.
    fn at_port(&mut self, port: u16) -> Option<(&mut Slot, u64)> {
        self.slots.iter_mut().find_map(|slot| {
            let offset = slot.offset_of_port(port)?;
            Some((slot, offset))
        })
    }

    /// The device at an address, and the address's offset in the device.
    fn at_address(&mut self, addr: u64) -> Option<(&mut Slot, u64)> {
        let offset = addr % MMIO_STRIDE;
        let place = Place::Window(addr - offset);
        let found = self.slots.iter_mut().find(|slot| slot.place == place);
        found.map(|slot| (slot, offset))
    }

    /// OUT. A wide access writes one byte to each of the consecutive ports, as on an ISA bus.
    pub fn pio_write(&mut self, first: u16, data: &[u8], ram: &Ram) {
        let (now_ns, mem) = (self.clock.now_ns(), ram.map());
        for (index, &value) in data.iter().enumerate() {
            match first.wrapping_add(index as u16) {
                p @ (port::PIC1 | 0x21) => self.pic.write(false, p & 1 != 0, value),
                p @ (port::PIC2 | 0xa1) => self.pic.write(true, p & 1 != 0, value),
                // A port without a device ignores the write.
                p => {
                    if let Some((slot, offset)) = self.at_port(p) {
                        slot.device.write(offset, &[value], &World { now_ns, mem });
                    }
                }
            }
        }
    }

    /// IN. A port without a device reads as all ones.
    pub fn pio_read(&mut self, first: u16, data: &mut [u8], ram: &Ram) {
        let (now_ns, mem) = (self.clock.now_ns(), ram.map());
        data.fill(0xff);
        for (index, value) in data.iter_mut().enumerate() {
            match first.wrapping_add(index as u16) {
                p @ (port::PIC1 | 0x21) => *value = self.pic.read(false, p & 1 != 0),
                p @ (port::PIC2 | 0xa1) => *value = self.pic.read(true, p & 1 != 0),
                p => {
                    if let Some((slot, offset)) = self.at_port(p) {
                        let byte = std::slice::from_mut(value);
                        slot.device.read(offset, byte, &World { now_ns, mem });
                    }
                }
            }
        }
    }

    /// A write outside RAM.
    pub fn mmio_write(&mut self, addr: u64, data: &[u8], ram: &Ram) {
        let (now_ns, mem) = (self.clock.now_ns(), ram.map());
        if let Some((slot, offset)) = self.at_address(addr) {
            slot.device.write(offset, data, &World { now_ns, mem });
        }
    }

    /// A read outside RAM. A virtio window without a device reads as zero, so that a driver finds no
    /// device there. Every other address reads as all ones.
    pub fn mmio_read(&mut self, addr: u64, data: &mut [u8], ram: &Ram) {
        let (now_ns, mem) = (self.clock.now_ns(), ram.map());
        match self.at_address(addr) {
            Some((slot, offset)) => slot.device.read(offset, data, &World { now_ns, mem }),
            None => data.fill(if slot::is_window(addr) { 0 } else { 0xff }),
        }
    }
}

#[cfg(test)]
mod tests;
