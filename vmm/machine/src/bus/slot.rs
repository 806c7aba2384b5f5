//! The one list of devices: each with its place and its interrupt line.

use ft_protocol::log::{DeviceConfig, MachineConfig};
use lockstep_abi::{MMIO_CONSOLE, MMIO_NET, MMIO_RNG, MMIO_STRIDE, irq, port};
use lockstep_devices::pit::Pit;
use lockstep_devices::uart::Uart;
use lockstep_devices::virtio::{Console, Mmio, Net, Rng};
use lockstep_devices::{Device, Line, Pic};
use std::ops::Range;

/// Where a device is accessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// I/O ports.
    Ports(Range<u16>),
    /// A window of [`MMIO_STRIDE`] bytes from this guest-physical address.
    Window(u64),
}

/// A device at its place.
pub(super) struct Slot {
    pub(super) device: Box<dyn Device>,
    pub(super) place: Place,
    irq: u8,
}

impl Slot {
    fn new(device: impl Device + 'static, place: Place, irq: u8) -> Slot {
        Slot {
            device: Box::new(device),
            place,
            irq,
        }
    }

    /// The offset of a port in the device; `None` if the port belongs to another device.
    pub(super) fn offset_of_port(&self, port: u16) -> Option<u64> {
        match &self.place {
            Place::Ports(ports) if ports.contains(&port) => Some(u64::from(port - ports.start)),
            Place::Ports(_) | Place::Window(_) => None,
        }
    }

    /// Would an edge on the device's line make `pic` request an interrupt?
    pub(super) fn is_heard(&self, pic: &Pic) -> bool {
        pic.would_request(self.irq)
    }

    /// The device, and its line of `pic`.
    pub(super) fn with_line<'a>(&'a mut self, pic: &'a mut Pic) -> (&'a mut dyn Device, Line<'a>) {
        (&mut *self.device, Line::new(pic, self.irq))
    }
}

/// The devices of a machine, as after a reset. They work and are saved in this order. Console input
/// goes to the last one that takes it.
pub(super) fn all(config: &MachineConfig) -> Vec<Slot> {
    config.devices.iter().map(slot).collect()
}

fn slot(device: &DeviceConfig) -> Slot {
    let ports = |first, count| Place::Ports(first..first + count);
    match device {
        DeviceConfig::Pit => Slot::new(Pit::default(), ports(port::PIT, 4), irq::PIT),
        DeviceConfig::Uart => Slot::new(Uart::default(), ports(port::COM1, 8), irq::COM1),
        DeviceConfig::VirtioConsole => {
            let device = Mmio::new(Console::default());
            Slot::new(device, Place::Window(MMIO_CONSOLE), irq::CONSOLE)
        }
        DeviceConfig::VirtioRng => {
            let device = Mmio::new(Rng::default());
            Slot::new(device, Place::Window(MMIO_RNG), irq::RNG)
        }
        DeviceConfig::VirtioNet(net) => {
            let device = Mmio::new(Net::new(net.mac));
            Slot::new(device, Place::Window(MMIO_NET), irq::NET)
        }
    }
}

/// Can a virtio-mmio device's window be at this address? Drivers look there on every machine.
pub(super) fn is_window(addr: u64) -> bool {
    let base = addr - addr % MMIO_STRIDE;
    [MMIO_CONSOLE, MMIO_NET, MMIO_RNG].contains(&base)
}
