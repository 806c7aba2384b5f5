//! The virtio-mmio transport, version 2 (Virtio 1.2, section 4.2.2).

use super::{QUEUE_SIZE, QUEUES, VirtioDevice};
use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, InputKind, Line, Outputs, World};
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

#[derive(Debug, Default)]
struct Registers {
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    interrupt_status: u32,
    status: u32,
}

fn new_queue() -> Queue {
    Queue::new(QUEUE_SIZE).expect("the queue size is a power of two")
}

/// Words: size, ready, next available, next used, and the addresses of the descriptor table, the
/// available ring and the used ring.
fn save_queue(queue: &Queue, words: &mut Words) {
    let s = queue.state();
    words.put(s.size);
    words.put(s.ready);
    words.put_all([s.next_avail, s.next_used]);
    words.put_all([s.desc_table, s.avail_ring, s.used_ring]);
}

/// A queue that is ready must lie in RAM, as when a driver sets it up.
fn restore_queue(words: &mut Reader, mem: &GuestMap) -> Result<Queue, BadState> {
    let (size, ready) = (words.take()?, words.flag()?);
    let state = QueueState {
        max_size: QUEUE_SIZE,
        next_avail: words.take()?,
        next_used: words.take()?,
        event_idx_enabled: false,
        size,
        ready,
        desc_table: words.take()?,
        avail_ring: words.take()?,
        used_ring: words.take()?,
    };
    let queue = Queue::try_from(state).map_err(|e| words.bad(e.to_string()))?;
    let lies_in_ram = !ready || queue.is_valid(mem);
    words.unless(lies_in_ram, "a queue that is ready does not lie in RAM")?;
    Ok(queue)
}

impl Registers {
    fn save(&self, words: &mut Words) {
        words.put_all([self.device_features_sel, self.driver_features_sel]);
        words.put(self.driver_features);
        words.put_all([self.queue_sel, self.interrupt_status, self.status]);
    }

    fn restore(words: &mut Reader) -> Result<Registers, BadState> {
        Ok(Registers {
            device_features_sel: words.take()?,
            driver_features_sel: words.take()?,
            driver_features: words.take()?,
            queue_sel: words.take()?,
            interrupt_status: words.take()?,
            status: words.take()?,
        })
    }
}

impl<D: VirtioDevice> Mmio<D> {
    /// A device as it is after reset.
    pub fn new(device: D) -> Mmio<D> {
        Mmio {
            device,
            queues: [new_queue(), new_queue()],
            registers: Registers::default(),
        }
    }

    /// Has the driver finished setting the device up?
    fn live(&self) -> bool {
        let up = self.registers.status & status::DRIVER_OK != 0;
        up && self.queues[..D::QUEUE_COUNT].iter().all(|q| q.ready())
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
            // A queue outside RAM never becomes ready; the driver sees this when it reads QueueReady
            // back.
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
}

impl<D: VirtioDevice> Component for Mmio<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn save(&self, words: &mut Words) {
        self.registers.save(words);
        for queue in &self.queues {
            save_queue(queue, words);
        }
        self.device.save(words);
    }

    fn restore(&mut self, words: &mut Reader, world: &World) -> Result<(), BadState> {
        self.registers = Registers::restore(words)?;
        for queue in &mut self.queues {
            *queue = restore_queue(words, world.mem)?;
        }
        self.device.restore(words)
    }
}

impl<D: VirtioDevice> Device for Mmio<D> {
    fn read(&mut self, offset: u64, data: &mut [u8], _: &World) {
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

    fn write(&mut self, offset: u64, data: &[u8], world: &World) {
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
            // Nothing to do: the rings are looked at after every exit, and the notification was one.
            register::QUEUE_NOTIFY => {}
            _ => self.write_queue(offset, value, world.mem),
        }
    }

    fn process(&mut self, mem: &GuestMap, outputs: &mut Outputs, mut line: Line) {
        if self.live() && self.device.process(&mut self.queues, mem, outputs) {
            self.registers.interrupt_status |= USED_BUFFER;
        }
        line.set(self.registers.interrupt_status != 0);
    }

    fn room(&self, kind: InputKind) -> Option<usize> {
        self.device.room(kind).filter(|_| self.live())
    }

    fn receive(&mut self, _: InputKind, data: &[u8]) {
        self.device.receive(data);
    }

    fn take_in(
        &mut self,
        _: InputKind,
        data: &[u8],
        mem: &GuestMap,
        outputs: &mut Outputs,
        mut line: Line,
    ) {
        let (queues, device) = (&mut self.queues, &mut self.device);
        // A device without a driver has no room, so this is not called for it.
        if device.take_in(data, queues, mem, outputs) {
            self.registers.interrupt_status |= USED_BUFFER;
        }
        line.set(self.registers.interrupt_status != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::Console;
    use lockstep_memory::Ram;

    fn read(device: &Mmio<Console>, offset: u64) -> u32 {
        device.read_register(offset)
    }

    fn world(ram: &Ram) -> World<'_> {
        let mem = ram.map();
        World { now_ns: 0, mem }
    }

    #[test]
    fn a_driver_finds_the_device_and_negotiates() {
        let ram = Ram::new(16).unwrap();
        let mut device = Mmio::new(Console::default());
        assert_eq!(read(&device, register::MAGIC_VALUE), 0x7472_6976);
        assert_eq!(read(&device, register::VERSION), 2);
        assert_eq!(read(&device, register::DEVICE_ID), 3);
        let mut write = |offset, value: u32| {
            device.write(offset, &value.to_le_bytes(), &world(&ram));
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
            device.write(offset, &value.to_le_bytes(), &world(&ram));
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
                device.write(offset, &[0xff; 8][..len], &world(&ram));
                device.read(offset, &mut [0; 8][..len], &world(&ram));
            }
        }
    }
}
