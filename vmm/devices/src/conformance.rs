//! What every device must fulfil, tested in the same way for each. A new device is a line in
//! [`SUBJECTS`].

use crate::clock::Clock;
use crate::cmos::Cmos;
use crate::edges::EdgeCounter;
use crate::hpet::Hpet;
use crate::keyboard::Keyboard;
use crate::pit::Pit;
use crate::power::Power;
use crate::triggers::Triggers;
use crate::uart::Uart;
use crate::virtio::{Console, Mmio, Net, Rng};
use crate::{Component, Device, InputKind, Line, Output, Outputs, Pic, Saved, World};
use lockstep_memory::Ram;
use xxhash_rust::xxh3::xxh3_64;

/// Guest time while a subject is busy, nanoseconds.
const NOW_NS: u64 = 3_000_000;
/// Memory of a subject, MiB.
const MEM_MIB: u32 = 16;
/// Most bytes that a device may emit for one access: a full ring of the longest console writes.
const MOST_OUTPUT: usize = 256 * crate::virtio::console::MAX_WRITE;

/// A device, how to bring it into a state in the middle of its work, and the digest of that state.
struct Subject {
    make: fn() -> Box<dyn Device>,
    busy: fn(&mut Rig),
    /// If this digest changes, the meaning of the device's state changed: old logs and peers of other
    /// versions would diverge. Raise [`ft_protocol::log::MODEL_VERSION`] and write the new digest here.
    golden: u64,
    /// The number of its ports, each one byte wide; `None` if it has MMIO registers.
    ports: Option<u64>,
}

const SUBJECTS: &[Subject] = &[
    Subject {
        make: || Box::new(Pit::default()),
        busy: |rig| {
            for (offset, value) in [(3, 0x34), (0, 0xa9), (0, 4), (3, 0x70), (1, 9), (3, 0xe4)] {
                rig.write(offset, &[value]);
            }
            rig.write(4, &[3]);
            rig.advance(NOW_NS);
        },
        golden: 0x6ea1_f030_c91b_4eae,
        ports: Some(5),
    },
    Subject {
        make: || Box::new(Cmos::new(1_767_225_599_000_000_000)),
        busy: |rig| {
            for (offset, value) in [(0, 0x8f), (1, 7)] {
                rig.write(offset, &[value]);
            }
            rig.advance(NOW_NS);
        },
        golden: 0x471a_3a3b_0b42_f4f3,
        ports: Some(2),
    },
    Subject {
        make: || Box::new(Hpet::default()),
        busy: |rig| {
            for (offset, value) in [(0x100, 4u32), (0x108, 100_000_000), (0x120, 8), (0x10, 3)] {
                rig.write(offset, &value.to_le_bytes());
            }
            rig.advance(NOW_NS);
        },
        golden: 0x2b40_b7c1_d946_0dc3,
        ports: None,
    },
    Subject {
        make: || Box::new(Keyboard::default()),
        busy: |rig| rig.write(1, &[0xfe]),
        golden: 0x2fbc_5935_64db_792e,
        ports: Some(2),
    },
    Subject {
        make: || Box::new(Triggers::default()),
        busy: |rig| rig.write(1, &[8]),
        golden: 0x843b_e9b4_47f6_4cd1,
        ports: Some(2),
    },
    Subject {
        make: || Box::new(Power::default()),
        busy: |rig| {
            for (offset, value) in [(3, 1), (4, 1), (5, 0x34)] {
                rig.write(offset, &[value]);
            }
        },
        golden: 0xe884_750c_b49b_c3fd,
        ports: Some(13),
    },
    Subject {
        make: || Box::new(Uart::default()),
        busy: |rig| {
            for (offset, value) in [(1, 3), (7, 9), (0, b'x')] {
                rig.write(offset, &[value]);
            }
            rig.process();
            rig.device.receive(InputKind::Console, b"typed");
            rig.process();
        },
        golden: 0x91ba_f32b_7d20_68d5,
        ports: Some(8),
    },
    Subject {
        make: || Box::new(Mmio::new(Console::default())),
        busy: |rig| {
            rig.start_virtio();
            rig.device.receive(InputKind::Console, b"typed");
            rig.process();
        },
        golden: 0xa906_7e7d_146f_49a0,
        ports: None,
    },
    Subject {
        make: || Box::new(Mmio::new(Net::new([2; 6]))),
        busy: |rig| {
            rig.start_virtio();
            rig.device.receive(InputKind::Frame, &[7; 61]);
            rig.process();
        },
        golden: 0xe0bb_222c_e4ce_86f0,
        ports: None,
    },
    Subject {
        make: || Box::new(Mmio::new(Rng::default())),
        busy: |rig| {
            rig.start_virtio();
            // One buffer of 8 bytes: descriptor 0, writable, the first in the ring.
            let buffer = 0x13_0000u64.to_le_bytes();
            rig.ram.write(RINGS, &buffer).unwrap();
            rig.ram.write(RINGS + 8, &[8, 0, 0, 0, 2, 0, 0, 0]).unwrap();
            rig.ram.write(RINGS + 0x1000, &[0, 0, 1, 0, 0, 0]).unwrap();
            rig.process();
            assert_eq!(rig.device.room(InputKind::Entropy), Some(8));
        },
        golden: 0x9f50_d2ef_2613_9be9,
        ports: None,
    },
];

/// Where a subject's rings lie in RAM: 16 KiB for each queue.
const RINGS: u64 = 0x12_0000;

/// A master with no line masked.
fn initialised_pic() -> Pic {
    let mut pic = Pic::default();
    for (data, value) in [(false, 0x11), (true, 0x20), (true, 4), (true, 1), (true, 0)] {
        pic.write(false, data, value);
    }
    pic
}

/// A device with what it works on.
struct Rig {
    device: Box<dyn Device>,
    ports: Option<u64>,
    ram: Ram,
    pic: Pic,
    now_ns: u64,
    emitted: usize,
}

impl Rig {
    fn new(subject: &Subject) -> Rig {
        Rig {
            device: (subject.make)(),
            ports: subject.ports,
            ram: Ram::new(MEM_MIB).unwrap(),
            pic: initialised_pic(),
            now_ns: 0,
            emitted: 0,
        }
    }

    fn busy(subject: &Subject) -> Rig {
        let mut rig = Rig::new(subject);
        (subject.busy)(&mut rig);
        rig
    }

    fn world(&self) -> World<'_> {
        World {
            now_ns: self.now_ns,
            mem: self.ram.map(),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (now_ns, mem) = (self.now_ns, self.ram.map());
        self.device.write(offset, data, &World { now_ns, mem });
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let (now_ns, mem) = (self.now_ns, self.ram.map());
        self.device.read(offset, data, &World { now_ns, mem });
    }

    fn advance(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.device.advance(now_ns, Line::new(&mut self.pic, 3));
    }

    fn process(&mut self) -> Vec<Output> {
        let mut outputs = Outputs::default();
        let line = Line::new(&mut self.pic, 3);
        self.device.process(self.ram.map(), &mut outputs, line);
        let outputs = outputs.waiting();
        self.emitted = outputs.iter().map(|output| output.data.len()).sum();
        outputs.to_vec()
    }

    fn take_in(&mut self, kind: InputKind, data: &[u8]) -> Vec<Output> {
        let mut outputs = Outputs::default();
        let line = Line::new(&mut self.pic, 3);
        self.device
            .take_in(kind, data, self.ram.map(), &mut outputs, line);
        outputs.waiting().to_vec()
    }

    /// The same device in the same memory, elsewhere.
    fn twin(&self, subject: &Subject) -> Rig {
        let mut twin = Rig::new(subject);
        (twin.ram, twin.now_ns) = (copy(&self.ram), self.now_ns);
        let mut device = (subject.make)();
        let restored = device.restore_saved(&self.device.saved(), &twin.world());
        restored.expect("its state is sound");
        twin.device = device;
        twin
    }

    /// Puts buffers into a virtio device's receive ring, of lengths by this seed, one of them outside RAM; and
    /// the first of them, as it is now, into its transmit ring.
    fn offer_buffers(&mut self, seed: u64) {
        let descriptor = |address: u64, len: u32, flags: u16| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&address.to_le_bytes());
            bytes[8..12].copy_from_slice(&len.to_le_bytes());
            bytes[12..14].copy_from_slice(&flags.to_le_bytes());
            bytes
        };
        for index in 0..8u64 {
            let address = match index {
                3 => 0xff00_0000,
                _ => 0x13_0000 + index * 0x800,
            };
            let len = [2048, 72, 73, 12, 11, 1][((seed + index) % 6) as usize];
            let at = RINGS + 16 * index;
            let bytes = descriptor(address, len, 2);
            self.ram.write(at, &bytes).unwrap();
            let entry = RINGS + 0x1004 + 2 * index;
            self.ram
                .write(entry, &(index as u16).to_le_bytes())
                .unwrap();
        }
        self.ram.write(RINGS + 0x1000, &[0, 0, 8, 0]).unwrap();
        let bytes = descriptor(0x13_0000, 72, 0);
        self.ram.write(RINGS + 0x4000, &bytes).unwrap();
        self.ram.write(RINGS + 0x5000, &[0, 0, 1, 0, 0, 0]).unwrap();
    }

    /// What a virtio driver does at its start: negotiates features, sets up both queues, reports ready.
    fn start_virtio(&mut self) {
        self.write(0x24, &[1, 0, 0, 0]);
        self.write(0x20, &[1, 0, 0, 0]);
        for queue in 0..2u32 {
            let ring = RINGS as u32 + 0x4000 * queue;
            for (offset, value) in [
                (0x30, queue),
                (0x38, 16),
                (0x80, ring),
                (0x90, ring + 0x1000),
                (0xa0, ring + 0x2000),
                (0x44, 1),
            ] {
                self.write(offset, &value.to_le_bytes());
            }
        }
        self.write(0x70, &[0xf, 0, 0, 0]);
    }

    /// Makes random reads, writes, input and time from this seed. Returns a digest of what the device
    /// gave back, and its state.
    fn live(&mut self, seed: u64, steps: u64) -> (u64, Saved) {
        let mut told = Vec::new();
        for step in 0..steps {
            let random = xxh3_64(&(seed << 32 | step).to_le_bytes());
            let [kind, offset, width, value @ ..] = random.to_le_bytes();
            // Registers of all devices lie below 0x110; ports are a byte wide.
            let offset = u64::from(offset) * 5 % 0x110;
            let width = [1, 2, 4, 4, 4, 8][usize::from(width % 6)];
            let (offset, width) = match self.ports {
                Some(ports) => (offset % ports, 1),
                None => (offset, width),
            };
            let value = [value, value].concat();
            match kind % 8 {
                0..4 => self.write(offset, &value[..width]),
                4 => {
                    let mut data = [0; 8];
                    self.read(offset, &mut data[..width]);
                    told.extend(data);
                }
                5 => self.advance(self.now_ns + random % 5_000_000),
                _ => {
                    for kind in [InputKind::Frame, InputKind::Console, InputKind::Entropy] {
                        if let Some(room) = self.device.room(kind) {
                            told.extend(room.to_le_bytes());
                            self.device.receive(kind, &vec![value[0]; room.min(60)]);
                        }
                    }
                }
            }
            for output in self.process() {
                told.extend(output.data);
            }
            assert!(self.emitted <= MOST_OUTPUT);
        }
        (xxh3_64(&told), self.device.saved())
    }
}

#[test]
fn a_changed_state_has_a_new_model_version() {
    let mut wrong = Vec::new();
    let mut look = |saved: Saved, golden: u64| {
        if saved.digest() != golden {
            wrong.push(format!("{}: {:#018x}", saved.name(), saved.digest()));
        }
    };
    for subject in SUBJECTS {
        look(Rig::busy(subject).device.saved(), subject.golden);
    }
    let ram = Ram::new(MEM_MIB).unwrap();
    let mut pic = initialised_pic();
    pic.pulse(3);
    look(pic.saved(), GOLDEN_PIC);
    let mut clock = Clock::default();
    clock.set(NOW_NS, &ram);
    clock.note_activity(&ram);
    look(clock.saved(), GOLDEN_CLOCK);
    let mut edges = EdgeCounter::new(1000);
    edges.start(&ram);
    edges.grant(&ram);
    look(edges.saved(), GOLDEN_EDGES);
    assert!(
        wrong.is_empty(),
        "raise MODEL_VERSION, then write these digests down: {wrong:#?}"
    );
}

const GOLDEN_PIC: u64 = 0xaae1_3f38_32b1_0847;
const GOLDEN_CLOCK: u64 = 0x762d_f1cf_32a9_0522;
const GOLDEN_EDGES: u64 = 0xb0ca_76c7_cc16_93e0;

/// A copy of the memory.
fn copy(ram: &Ram) -> Ram {
    let other = Ram::new(MEM_MIB).unwrap();
    other.write(0, &content(ram)).unwrap();
    other
}

fn content(ram: &Ram) -> Vec<u8> {
    let mut content = vec![0; ram.len()];
    ram.read(0, &mut content).unwrap();
    content
}

/// Whatever the driver's rings hold: outputs, state and memory are those of the two calls that one stands for.
#[test]
fn taking_in_is_receiving_and_then_working() {
    for subject in SUBJECTS {
        for seed in 0..12 {
            let mut rig = Rig::busy(subject);
            if rig.ports.is_none() {
                rig.offer_buffers(seed);
            }
            let mut twin = rig.twin(subject);
            for kind in [InputKind::Frame, InputKind::Console, InputKind::Entropy] {
                for step in 1..10u8 {
                    let Some(room) = rig.device.room(kind) else {
                        break;
                    };
                    let data = vec![step; room.min(60)];
                    twin.device.receive(kind, &data);
                    assert_eq!(rig.take_in(kind, &data), twin.process());
                }
            }
            let name = rig.device.name();
            assert_eq!(rig.device.saved(), twin.device.saved(), "seed {seed}");
            let same = content(&rig.ram) == content(&twin.ram);
            assert!(same, "{name} left another memory, seed {seed}");
        }
    }
}

#[test]
fn a_device_that_was_moved_goes_on_as_if_nothing_had_happened() {
    for subject in SUBJECTS {
        for seed in 0..20 {
            let mut rig = Rig::busy(subject);
            rig.live(seed, 50);
            let saved = rig.device.saved();
            let mut moved = rig.twin(subject);
            assert_eq!(moved.device.saved(), saved, "seed {seed}");
            let (ours, theirs) = (rig.live(seed + 1000, 200), moved.live(seed + 1000, 200));
            assert_eq!(ours, theirs, "{} with seed {seed}", saved.name());
        }
    }
}

#[test]
fn a_damaged_state_is_refused_by_name_or_harmless() {
    let (mut refused, mut taken) = (0, 0);
    for subject in SUBJECTS {
        let sound = Rig::busy(subject).device.saved();
        let mut damaged = Vec::new();
        for word in 0..sound.words.len() {
            for change in [1, 1 << 63, u64::MAX, 0x100, 0x8000_0000] {
                let mut words = sound.words.clone();
                words[word] ^= change;
                damaged.push(words);
            }
            damaged.push(sound.words[..word].to_vec());
        }
        damaged.push([&sound.words[..], &[0]].concat());
        for words in damaged {
            let mut rig = Rig::new(subject);
            rig.now_ns = NOW_NS;
            let name = rig.device.name();
            let saved = Saved {
                name: name.into(),
                words,
            };
            let mut device = (subject.make)();
            match device.restore_saved(&saved, &rig.world()) {
                Ok(()) => {
                    rig.device = device;
                    rig.live(7, 100);
                    taken += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains(name), "{error}");
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} refused, {taken} taken");
    assert!(refused > 100 && taken > 100);
}

/// Random accesses in any number cause no panic, and no more output than the rings hold.
#[test]
fn a_storm_of_accesses_is_bounded() {
    for subject in SUBJECTS {
        for seed in 0..10 {
            let mut rig = Rig::new(subject);
            let (_, saved) = rig.live(seed, 2000);
            assert!(saved.words.len() < 64 << 10, "{} grew", saved.name());
        }
    }
}

#[test]
fn a_state_of_another_device_is_refused() {
    for subject in SUBJECTS {
        for other in SUBJECTS {
            let rig = Rig::new(subject);
            let mut device = (subject.make)();
            let saved = (other.make)().saved();
            let same = saved.name() == device.name();
            let restored = device.restore_saved(&saved, &rig.world());
            assert_eq!(restored.is_ok(), same);
        }
    }
}
