use super::*;
use crate::state::differing;
use ft_protocol::log::NetConfig;
use ft_protocol::log::codec::{decode_payload, encode_payload};
use lockstep_abi::{MMIO_CONSOLE, MMIO_NET, MMIO_RNG};
use std::collections::BTreeSet;

fn config(net: Option<NetConfig>) -> MachineConfig {
    MachineConfig {
        quantum: 1000,
        ..MachineConfig::new(16).with_net(net)
    }
}

const NET: NetConfig = NetConfig {
    mac: [2; 6],
    ip: [10, 0, 0, 1],
    prefix_len: 8,
    gateway: [0; 4],
};

/// A change of a device's state, and the components whose digests show it.
type Change = (fn(&mut Bus, &Ram), &'static [&'static str]);

const CHANGES: [Change; 8] = [
    (|bus, ram| bus.edges.grant(ram), &["edge counter"]),
    (
        |bus, ram| bus.mmio_write(MMIO_RNG + 0x30, &[1, 0, 0, 0], ram),
        &["virtio-rng"],
    ),
    (|bus, ram| bus.pio_write(0x21, &[0xfe], ram), &["8259 pair"]),
    (|bus, ram| bus.pio_write(0x43, &[0x34], ram), &["8254"]),
    (|bus, ram| bus.clock.set(1, ram), &["clock"]),
    (|bus, ram| bus.pio_write(0x3ff, &[7], ram), &["16550"]),
    (
        |bus, ram| bus.mmio_write(MMIO_CONSOLE + 0x30, &[1, 0, 0, 0], ram),
        &["virtio-console"],
    ),
    (
        |bus, ram| bus.mmio_write(MMIO_NET + 0x30, &[1, 0, 0, 0], ram),
        &["virtio-net"],
    ),
];

#[test]
fn ports_and_windows_without_a_device_read_as_on_a_bus() {
    let ram = Ram::new(16).unwrap();
    let mut bus = Bus::new(&config(None), &ram);
    let mut data = [0; 4];
    bus.pio_read(0x80, &mut data, &ram);
    assert_eq!(data, [0xff; 4]);
    bus.mmio_read(MMIO_NET, &mut data, &ram);
    assert_eq!(data, [0; 4]);
    bus.mmio_read(0xf000_0000, &mut data, &ram);
    assert_eq!(data, [0xff; 4]);
    // The last port, accessed four bytes wide.
    bus.pio_read(0xfffe, &mut data, &ram);
    bus.pio_write(0xfffe, &data, &ram);
}

#[test]
fn every_device_is_in_the_digest_under_a_name_of_its_own() {
    let ram = Ram::new(16).unwrap();
    let fresh = || Bus::new(&config(Some(NET)), &ram);
    let empty = fresh().save();
    let components = empty.components();
    let mut changed = BTreeSet::new();
    for (change, names) in CHANGES {
        let mut bus = fresh();
        change(&mut bus, &ram);
        let state = bus.save();
        assert_ne!(state.digest(), empty.digest(), "{names:?}");
        assert_eq!(differing(&components, &state.components()), names);
        changed.extend(names);
    }
    let names: BTreeSet<&str> = components.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), components.len());
    assert_eq!(changed.into_iter().copied().collect::<BTreeSet<_>>(), names);
}

/// Sets up queue `index` of a device as its driver would, at `ring` in RAM.
fn set_queue_up(bus: &mut Bus, ram: &Ram, window: u64, index: u32, ring: u32) {
    let registers = [
        (0x24, 1),
        (0x20, 1),
        (0x30, index),
        (0x38, 16),
        (0x80, ring),
        (0x90, ring + 0x1000),
        (0xa0, ring + 0x2000),
        (0x44, 1),
        (0x70, 0xf),
    ];
    for (offset, value) in registers {
        bus.mmio_write(window + offset, &u32::to_le_bytes(value), ram);
    }
}

/// A bus whose devices are all in the middle of their work.
fn busy(ram: &Ram) -> Bus {
    let mut bus = Bus::new(&config(Some(NET)), ram);
    for (index, window) in [MMIO_CONSOLE, MMIO_NET, MMIO_RNG].into_iter().enumerate() {
        for queue in 0..2 {
            let ring = 0x10_0000 + 0x1_0000 * index as u32 + 0x4000 * queue;
            set_queue_up(&mut bus, ram, window, queue, ring);
        }
    }
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0),
        (0x43, 0x34),
        (0x40, 0xa9),
        (0x40, 4),
        // The UART interrupts when it can send.
        (0x3f9, 2),
        (0x3f8, b'x'),
    ] {
        bus.pio_write(port, &[value], ram);
    }
    bus.edges.grant(ram);
    bus.set_time(3_000_000, ram);
    bus.receive(InputKind::Frame, vec![7; 60], ram);
    bus.receive(InputKind::Console, b"typed".to_vec(), ram);
    bus.process(ram, &mut Vec::new());
    bus
}

#[test]
fn devices_restored_are_those_saved() {
    let ram = Ram::new(16).unwrap();
    let mut bus = busy(&ram);
    let state = bus.save();
    let fresh = Bus::new(&config(Some(NET)), &Ram::new(16).unwrap()).save();
    assert_eq!(differing(&state.components(), &fresh.components()).len(), 8);
    let mut other = Bus::restore(&config(Some(NET)), &state, &ram).unwrap();
    assert_eq!(other.save(), state);
    // The restored bus goes on like the first: nothing is delivered twice, and what waits is delivered.
    let follow = |ram: &Ram, bus: &mut Bus| {
        let mut outputs = Vec::new();
        bus.process(ram, &mut outputs);
        let vector = bus.pic.acknowledge();
        bus.process(ram, &mut outputs);
        let requests = bus.pic.requests();
        bus.pio_write(0x20, &[0x20], ram);
        bus.set_time(6_000_000, ram);
        bus.process(ram, &mut outputs);
        (vector, requests, outputs, bus.save())
    };
    let copy = Ram::new(16).unwrap();
    let mut content = vec![0; ram.len()];
    ram.read(0, &mut content).unwrap();
    copy.write(0, &content).unwrap();
    assert_eq!(follow(&copy, &mut other), follow(&ram, &mut bus));
}

/// Flips every bit of a state: it is refused with a sentence, or gives devices that can be used without
/// a panic.
#[test]
fn a_state_that_was_damaged_breaks_nothing() {
    let ram = Ram::new(16).unwrap();
    let mut bytes = Vec::new();
    encode_payload(&busy(&ram).save(), &mut bytes);
    let (mut undecodable, mut refused, mut taken) = (0, 0, 0);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Ok(state) = decode_payload::<BusState>(&damaged) else {
            undecodable += 1;
            continue;
        };
        match Bus::restore(&config(Some(NET)), &state, &ram) {
            Ok(bus) => {
                use_all(bus, &ram);
                taken += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("makes no sense"), "{error}");
                refused += 1;
            }
        }
    }
    println!("{undecodable} undecodable, {refused} refused, {taken} taken");
    assert!(undecodable > 0 && refused > 0 && taken > 0);
}

/// Accesses all devices in every way.
fn use_all(mut bus: Bus, ram: &Ram) {
    let mut outputs = Vec::new();
    bus.process(ram, &mut outputs);
    bus.pic.acknowledge();
    let _edge = bus.next_edge_ns();
    for port in [0x20, 0x21, 0xa0, 0xa1, 0x3fa] {
        bus.pio_read(port, &mut [0], ram);
    }
    bus.set_time(bus.clock.now_ns() + 50_000_000, ram);
    bus.pio_write(0x20, &[0xa0], ram);
    for kind in [InputKind::Frame, InputKind::Console, InputKind::Entropy] {
        let room = bus.room(kind).min(60);
        bus.receive(kind, vec![7; room], ram);
    }
    bus.edges.grant(ram);
    bus.process(ram, &mut outputs);
    bus.save();
}

/// States that this machine cannot be in.
#[test]
fn a_state_of_another_machine_is_refused_by_name() {
    let ram = Ram::new(16).unwrap();
    let refusal = |config: &MachineConfig, state: &BusState| {
        let refused = Bus::restore(config, state, &ram).err();
        refused.expect("it is refused").to_string()
    };
    let sound = busy(&ram).save();
    let without = Bus::new(&config(None), &ram).save();
    for (config, state) in [(config(None), &sound), (config(Some(NET)), &without)] {
        let text = refusal(&config, state);
        assert!(text.contains("virtio-net"), "{text}");
    }
    let mut other = config(Some(NET));
    other.quantum += 1;
    let text = refusal(&other, &sound);
    assert!(text.contains("edge counter"), "{text}");
    // The rings of a larger machine may lie outside the memory of a smaller one.
    let large = Ram::new(32).unwrap();
    let mut bus = Bus::new(&config(Some(NET)), &large);
    set_queue_up(&mut bus, &large, MMIO_NET, 0, 20 << 20);
    let text = refusal(&config(Some(NET)), &bus.save());
    assert!(text.contains("does not lie in RAM"), "{text}");
}

/// A decoder allocates no more than the payload justifies, also when its numbers are encoded short.
#[test]
fn a_state_with_frames_of_zeros_comes_back() {
    let ram = Ram::new(16).unwrap();
    for frames in [1, 4, 90, 256] {
        let mut bus = busy(&ram);
        for _ in 0..frames {
            bus.receive(InputKind::Frame, vec![0; 1518], &ram);
        }
        let (state, mut bytes) = (bus.save(), Vec::new());
        encode_payload(&state, &mut bytes);
        let decoded = decode_payload::<BusState>(&bytes);
        assert_eq!(decoded.expect("it is sound"), state, "{frames} frames");
    }
}
