//! The one list of devices: each with its place and its interrupt line.

use ft_protocol::log::{DeviceConfig, MachineConfig};
use lockstep_abi::{MMIO_CONSOLE, MMIO_HPET, MMIO_NET, MMIO_RNG, MMIO_STRIDE, irq, port};
use lockstep_devices::cmos::Cmos;
use lockstep_devices::hpet::Hpet;
use lockstep_devices::keyboard::Keyboard;
use lockstep_devices::pit::Pit;
use lockstep_devices::power::Power;
use lockstep_devices::triggers::Triggers;
use lockstep_devices::uart::Uart;
use lockstep_devices::virtio::{Console, Mmio, Net, Rng};
use lockstep_devices::{Device, Line, Pic};

/// Where a device is accessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// I/O ports: the first and how many, once or twice. They follow each other in the device.
    Ports(&'static [(u16, u16)]),
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
            Place::Ports(ranges) => {
                let mut before = 0;
                for &(first, count) in *ranges {
                    if (first..first + count).contains(&port) {
                        return Some(u64::from(before + port - first));
                    }
                    before += count;
                }
                None
            }
            Place::Window(_) => None,
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
    let devices = config.devices.iter();
    devices.map(|device| slot(device, config)).collect()
}

const PIT: [(u16, u16); 2] = [(port::PIT, 4), (port::SPEAKER, 1)];
const COM1: [(u16, u16); 1] = [(port::COM1, 8)];
const CMOS: [(u16, u16); 1] = [(port::CMOS, 2)];
const KEYBOARD: [(u16, u16); 2] = [(port::KEYBOARD, 1), (port::KEYBOARD_COMMAND, 1)];
const TRIGGERS: [(u16, u16); 1] = [(port::TRIGGERS, 2)];
const POWER: [(u16, u16); 1] = [(port::POWER, port::POWER_LEN)];

fn slot(device: &DeviceConfig, config: &MachineConfig) -> Slot {
    match device {
        DeviceConfig::Pit => Slot::new(Pit::default(), Place::Ports(&PIT), irq::PIT),
        DeviceConfig::Uart => Slot::new(Uart::default(), Place::Ports(&COM1), irq::COM1),
        // It makes no interrupts, as the last three.
        DeviceConfig::Cmos => Slot::new(Cmos::new(config.wall_ns), Place::Ports(&CMOS), irq::POWER),
        // It takes the 8254's line.
        DeviceConfig::Hpet => Slot::new(Hpet::default(), Place::Window(MMIO_HPET), irq::PIT),
        DeviceConfig::Keyboard => {
            Slot::new(Keyboard::default(), Place::Ports(&KEYBOARD), irq::POWER)
        }
        DeviceConfig::Triggers => {
            Slot::new(Triggers::default(), Place::Ports(&TRIGGERS), irq::POWER)
        }
        DeviceConfig::Power => Slot::new(Power::default(), Place::Ports(&POWER), irq::POWER),
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
