//! Does everything that a guest can do, at random, from the machine's seed.
//!
//! Each step does one thing: memory, floating point, the timer, nested interrupt handlers, halting,
//! idling, the console, entropy, frames, the clock, bare exits. All that the guest sees of the world is
//! added to a hash, which is printed from time to time: two runs with the same inputs at the same
//! positions print the same.
//! positions print the same.
#![no_std]
#![no_main]

extern crate alloc;

mod entropy;
mod hash;
mod memory;
mod nested;
mod net;
mod random;

use guest_rt::abi::MMIO_CONSOLE;
use guest_rt::cpu::{halt, in8, out8};
use guest_rt::mmio::{MmioOps, Registers};
use guest_rt::{boot_info, clock, console, edges, pit, println};

use entropy::Entropy;
use hash::Hash;
use memory::Memory;
use net::Nic;
use random::Random;

/// Steps until the end.
const STEPS: u64 = 6000;
/// Steps between two printed lines.
const PER_LINE: u64 = 100;
/// Least and most time between two timer ticks, microseconds.
const INTERVAL_US: core::ops::Range<u64> = 300..5000;
/// Longest idling, nanoseconds.
const MAX_IDLE_NS: u64 = 2_000_000;
/// A port without a device (a PC's diagnostic port).
const PORT_NOTHING: u16 = 0x80;

guest_rt::entry!(main);

struct Chaos {
    random: Random,
    hash: Hash,
    memory: Memory,
    nic: Option<Nic>,
    entropy: Option<Entropy>,
    /// The logistic map's state.
    x: f64,
    /// Is the timer periodic? Only then is a halt certain to end.
    ticking: bool,
}

/// A random action.
type Action = fn(&mut Chaos);

/// What a step can do, each with its weight.
const ACTIONS: [(u64, Action); 12] = [
    (20, Chaos::memory),
    (20, Chaos::float),
    (4, Chaos::set_timer),
    (3, Chaos::nest),
    (4, Chaos::halt),
    (6, Chaos::idle),
    (3, Chaos::print),
    (4, Chaos::read_console),
    (6, Chaos::read_entropy),
    (8, Chaos::frames),
    (12, Chaos::time),
    (10, Chaos::exits),
];

fn main() -> u32 {
    let mut chaos = Chaos {
        random: Random::new(boot_info().seed),
        hash: Hash::default(),
        memory: Memory::new(),
        nic: Nic::new(),
        entropy: Entropy::new(),
        x: 0.5,
        ticking: false,
    };
    nested::install();
    println!(
        "chaos: seed {:016x}, network {}, entropy {}",
        boot_info().seed,
        if chaos.nic.is_some() { "yes" } else { "no" },
        if chaos.entropy.is_some() { "yes" } else { "no" },
    );
    for step in 1..=STEPS {
        chaos.step();
        if step.is_multiple_of(PER_LINE) {
            println!("chaos: step {step} hash {:016x}", chaos.hash.value());
        }
    }
    pit::stop();
    let [interrupts, _, deepest] = nested::seen();
    println!(
        "chaos: {interrupts} interrupts, {deepest} nested, {} quanta, {} ns",
        edges::quanta_passed(),
        clock::fresh_ns()
    );
    println!("chaos: done, hash {:016x}", chaos.hash.value());
    0
}

impl Chaos {
    fn step(&mut self) {
        let all = ACTIONS.iter().map(|(weight, _)| weight).sum();
        let mut choice = self.random.between(0, all);
        for (weight, action) in ACTIONS {
            if choice < weight {
                action(self);
                break;
            }
            choice -= weight;
        }
        for word in nested::seen() {
            self.hash.word(word);
        }
        self.hash.word(edges::quanta_passed());
    }

    fn memory(&mut self) {
        self.memory.change(&mut self.random, &mut self.hash);
    }

    fn float(&mut self) {
        for _ in 0..self.random.between(1000, 200_000) {
            self.x = 3.9 * self.x * (1.0 - self.x);
        }
        self.hash.word(self.x.to_bits());
    }

    fn set_timer(&mut self) {
        let us = self.random.between(INTERVAL_US.start, INTERVAL_US.end) as u32;
        let choice = self.random.between(0, 8);
        self.ticking = choice < 4;
        match choice {
            0..4 => pit::periodic(us),
            4..7 => pit::one_shot(us),
            _ => pit::stop(),
        }
    }

    fn nest(&mut self) {
        nested::slow_down(self.random.between(1, 30));
    }

    fn halt(&mut self) {
        if self.ticking {
            halt();
        }
    }

    fn idle(&mut self) {
        let ns = self.random.between(0, MAX_IDLE_NS);
        clock::idle(clock::activity(), clock::now_ns() + ns);
        self.time();
    }

    fn print(&mut self) {
        let (letter, length) = (self.random.between(0, 26), self.random.between(1, 60));
        let letter = char::from(b'a' + letter as u8);
        for _ in 0..length {
            guest_rt::print!("{letter}");
        }
        println!();
    }

    fn read_console(&mut self) {
        let mut buffer = [0; 64];
        let came = console::read(&mut buffer);
        self.hash.bytes(&buffer[..came]);
    }

    fn read_entropy(&mut self) {
        if let Some(entropy) = &mut self.entropy {
            let bytes = self.random.between(1, entropy::MAX_BYTES as u64 + 1);
            self.hash.bytes(entropy.read(bytes as usize));
        }
    }

    fn frames(&mut self) {
        if let Some(nic) = &mut self.nic {
            nic.receive(|frame| self.hash.bytes(frame));
            nic.send(&mut self.random);
        }
    }

    fn time(&mut self) {
        self.hash.word(clock::now_ns());
        self.hash.word(clock::wall_ns());
        self.hash.word(clock::activity());
    }

    fn exits(&mut self) {
        for _ in 0..self.random.between(1, 6) {
            match self.random.between(0, 3) {
                0 => out8(PORT_NOTHING, 0),
                1 => self.hash.word(u64::from(in8(PORT_NOTHING))),
                // SAFETY: the windows are mapped for the machine's whole life, and reading the
                // magic value (virtio 1.2, 4.2.2) changes nothing.
                _ => self
                    .hash
                    .word(unsafe { Registers::read_u64(MMIO_CONSOLE as *const u64) }),
            }
        }
    }
}
