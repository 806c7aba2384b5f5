//! The virtio-mmio transport, version 2 (Virtio 1.2, section 4.2.2).

use super::{Device, QUEUE_SIZE, QUEUES};
use crate::{BadState, Output};
use bincode::{Decode, Encode};
use lockstep_memory::ram::GuestMap;
use virtio_queue::{Queue, QueueState, QueueT};

/// Register offsets, named as in the specification.
mod register {
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// `virt`.
const MAGIC: u32 = 0x7472_6976;
/// `LKST`.
const VENDOR: u32 = u32::from_le_bytes(*b"LKST");

/// Device status bits (Virtio 1.2, section 2.1).
mod status {
    pub const FEATURES_OK: u32 = 8;
    pub const DRIVER_OK: u32 = 4;
}

/// InterruptStatus bit 0: a buffer was used.
const USED_BUFFER: u32 = 1;

/// One device and its transport.
#[derive(Debug)]
pub struct Mmio<D> {
    device: D,
    queues: [Queue; QUEUES],
    registers: Registers,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Registers {
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    interrupt_status: u32,
    status: u32,
}

/// State of a transport and its queues.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MmioState {
    registers: Registers,
    queues: [QueueWords; QUEUES],
}

/// Size, ready, next available, next used, and the addresses of descriptors, available and used ring.
type QueueWords = (u16, bool, u16, u16, u64, u64, u64);

fn new_queue() -> Queue {
    Queue::new(QUEUE_SIZE).expect("the queue size is a power of two")
}

/// A queue that became ready does lie in RAM: as a driver's would, or it is refused.
fn restore_queue(
    &(size, ready, next_avail, next_used, desc_table, avail_ring, used_ring): &QueueWords,
    mem: &GuestMap,
) -> Result<Queue, String> {
    let state = QueueState {
        max_size: QUEUE_SIZE,
        next_avail,
        next_used,
        event_idx_enabled: false,
        size,
        ready,
        desc_table,
        avail_ring,
        used_ring,
    };
    let queue = Queue::try_from(state).map_err(|e| e.to_string())?;
    match ready && !queue.is_valid(mem) {
        true => Err("a queue that is ready does not lie in RAM".into()),
        false => Ok(queue),
    }
}

impl<D: Device> Mmio<D> {
    /// A device as it is after reset.
    pub fn new(device: D) -> Mmio<D> {
        Mmio {
            device,
            queues: [new_queue(), new_queue()],
            registers: Registers::default(),
        }
    }

    /// The device behind a transport in this state.
    pub fn restore(device: D, state: &MmioState, mem: &GuestMap) -> Result<Mmio<D>, BadState> {
        let mut queues = [new_queue(), new_queue()];
        for (queue, state) in queues.iter_mut().zip(&state.queues) {
            *queue = restore_queue(state, mem).map_err(|what| BadState {
                device: D::NAME,
                what,
            })?;
        }
        Ok(Mmio {
            device,
            queues,
            registers: state.registers.clone(),
        })
    }

    /// The device behind the transport.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// Level of the interrupt line.
    pub fn line(&self) -> bool {
        self.registers.interrupt_status != 0
    }

    /// Has the driver finished setting the device up?
    pub fn live(&self) -> bool {
        let up = self.registers.status & status::DRIVER_OK != 0;
        up && self.queues[..D::QUEUE_COUNT].iter().all(|q| q.ready())
    }

    /// Lets the device work on its rings.
    pub fn process(&mut self, mem: &GuestMap, outputs: &mut Vec<Output>) {
        if self.live() && self.device.process(&mut self.queues, mem, outputs) {
            self.registers.interrupt_status |= USED_BUFFER;
        }
    }

    /// A read of `data.len()` bytes at `offset` in the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(at) = offset.checked_sub(register::CONFIG) {
            let config = self.device.config();
            for (index, byte) in data.iter_mut().enumerate() {
                *byte = config.get(at as usize + index).copied().unwrap_or(0);
            }
            return;
        }
        // Registers are read 32 bits wide and aligned; anything else reads as zero.
        data.fill(0);
        if data.len() == 4 {
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let r = &self.registers;
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => 2,
            register::DEVICE_ID => D::ID,
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => match r.device_features_sel {
                0 => self.device.features() as u32,
                1 => (self.device.features() >> 32) as u32,
                _ => 0,
            },
            register::QUEUE_NUM_MAX => self.queue().map_or(0, |_| u32::from(QUEUE_SIZE)),
            register::QUEUE_READY => self.queue().map_or(0, |q| u32::from(q.ready())),
            register::INTERRUPT_STATUS => r.interrupt_status,
            register::STATUS => r.status,
            register::CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues[..D::QUEUE_COUNT].get(self.registers.queue_sel as usize)
    }

    /// A write of `data` at `offset` in the window.
    pub fn write(&mut self, offset: u64, data: &[u8], mem: &GuestMap) {
        // The configuration spaces here are read-only, and registers are 32 bits wide.
        let Ok(word) = data.try_into() else { return };
        let value = u32::from_le_bytes(word);
        let r = &mut self.registers;
        match offset {
            register::DEVICE_FEATURES_SEL => r.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => r.driver_features_sel = value,
            register::DRIVER_FEATURES => match r.driver_features_sel {
                0 => r.driver_features = r.driver_features >> 32 << 32 | u64::from(value),
                1 => {
                    let low = r.driver_features & 0xffff_ffff;
                    r.driver_features = u64::from(value) << 32 | low;
                }
                _ => {}
            },
            register::QUEUE_SEL => r.queue_sel = value,
            register::INTERRUPT_ACK => r.interrupt_status &= !value,
            register::STATUS => self.write_status(value),
            // The rings are looked at after every exit: a notification needs no more than itself.
            register::QUEUE_NOTIFY => {}
            _ => self.write_queue(offset, value, mem),
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.registers = Registers::default();
            self.queues = [new_queue(), new_queue()];
            self.device.reset();
            return;
        }
        let mut value = value;
        let unknown = self.registers.driver_features & !self.device.features();
        if unknown != 0 || self.registers.driver_features & super::F_VERSION_1 == 0 {
            value &= !status::FEATURES_OK;
        }
        self.registers.status = value;
    }

    fn write_queue(&mut self, offset: u64, value: u32, mem: &GuestMap) {
        let queues = &mut self.queues[..D::QUEUE_COUNT];
        let Some(queue) = queues.get_mut(self.registers.queue_sel as usize) else {
            return;
        };
        if offset == register::QUEUE_READY {
            queue.set_ready(value != 0);
            // A queue that does not lie in RAM never becomes ready; the driver reads that back.
            if value != 0 {
                let usable =
                    queue.is_valid(mem) && (!D::POLLS || queue.disable_notification(mem).is_ok());
                queue.set_ready(usable);
            }
            return;
        }
        if queue.ready() {
            return;
        }
        match offset {
            register::QUEUE_NUM => queue.set_size(value.min(u32::from(u16::MAX)) as u16),
            register::QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            register::QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            register::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            register::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// The state.
    pub fn state(&self) -> MmioState {
        MmioState {
            registers: self.registers.clone(),
            queues: std::array::from_fn(|index| {
                let s = self.queues[index].state();
                let addresses = (s.desc_table, s.avail_ring, s.used_ring);
                let (desc, avail, used) = addresses;
                (
                    s.size,
                    s.ready,
                    s.next_avail,
                    s.next_used,
                    desc,
                    avail,
                    used,
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::Console;
    use lockstep_memory::Ram;

    fn read(device: &Mmio<Console>, offset: u64) -> u32 {
        let mut word = [0; 4];
        device.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    #[test]
    fn a_driver_finds_the_device_and_negotiates() {
        let ram = Ram::new(16).unwrap();
        let mut device = Mmio::new(Console::default());
        assert_eq!(read(&device, register::MAGIC_VALUE), 0x7472_6976);
        assert_eq!(read(&device, register::VERSION), 2);
        assert_eq!(read(&device, register::DEVICE_ID), 3);
        let mut write = |offset, value: u32| {
            device.write(offset, &value.to_le_bytes(), ram.map());
            read(&device, register::STATUS)
        };
        assert_eq!(write(register::STATUS, 3), 3);
        // Without VERSION_1 the device does not agree.
        assert_eq!(write(register::STATUS, 0xb), 3);
        write(register::DRIVER_FEATURES_SEL, 1);
        write(register::DRIVER_FEATURES, 1);
        assert_eq!(write(register::STATUS, 0xb), 0xb);
        assert_eq!(write(register::STATUS, 0), 0);
    }

    #[test]
    fn a_queue_outside_ram_never_becomes_ready() {
        let ram = Ram::new(16).unwrap();
        let mut device = Mmio::new(Console::default());
        let mut write = |offset, value: u32| {
            device.write(offset, &value.to_le_bytes(), ram.map());
            read(&device, register::QUEUE_READY)
        };
        write(register::QUEUE_NUM, 16);
        write(register::QUEUE_DESC_LOW, 0xffff_0000);
        write(register::QUEUE_DRIVER_LOW, 0x1000);
        write(register::QUEUE_DEVICE_LOW, 0x2000);
        assert_eq!(write(register::QUEUE_READY, 1), 0);
        write(register::QUEUE_DESC_LOW, 0x3000);
        assert_eq!(write(register::QUEUE_READY, 1), 1);
        // There is no third queue.
        write(register::QUEUE_SEL, 2);
        assert_eq!(write(register::QUEUE_READY, 1), 0);
    }

    #[test]
    fn odd_accesses_are_harmless() {
        let ram = Ram::new(16).unwrap();
        let mut device = Mmio::new(Console::default());
        for len in 1..=8 {
            for offset in [0, 1, 0x6e, 0xfe, 0x100, 0xfff] {
                device.write(offset, &[0xff; 8][..len], ram.map());
                device.read(offset, &mut [0; 8][..len]);
            }
        }
    }
}
