//! Shared by the tests of several modules.

use crate::log::*;

/// Random numbers from a seed (xorshift64*); not for secrets.
pub struct Rng(u64);

impl Rng {
    /// Seeded by [`Rng::seed`]; prints it.
    pub fn seeded(default: u64) -> Rng {
        let seed = Rng::seed(default);
        println!("LOCKSTEP_SEED={seed}");
        Rng::new(seed)
    }

    /// The number in `LOCKSTEP_SEED`, otherwise `default`.
    pub fn seed(default: u64) -> u64 {
        let seed = std::env::var("LOCKSTEP_SEED").ok();
        seed.and_then(|s| s.parse().ok()).unwrap_or(default)
    }

    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub const NET: NetConfig = NetConfig {
    mac: [2, 0, 0, 0, 0, 1],
    ip: [10, 77, 0, 2],
    prefix_len: 24,
    gateway: [10, 77, 0, 1],
};

pub fn header() -> Header {
    Header {
        vm: "demo".into(),
        machine: MachineConfig {
            quantum: 250_000,
            seed: 7,
            wall_ns: 1_700_000_000_000_000_000,
            ..MachineConfig::new(64).with_net(Some(NET))
        },
        guest: GuestImage {
            name: "kv".into(),
            hash: 0x1234_5678_9abc_def0,
        },
        host: host(),
        started_ns: 1_700_000_000_000_000_001,
    }
}

pub fn host() -> HostPrint {
    HostPrint {
        exits: 0xfeed,
        cpu: "GenuineIntel 6/143/8".into(),
    }
}

pub fn entry(at: u64, event: Event) -> Entry {
    let check = Some(Check {
        rip: !at,
        regs: at as u32,
    });
    Entry {
        at: Position::exit(at),
        check,
        event,
    }
}

/// One entry of each kind, the end last.
pub fn entries() -> Vec<Entry> {
    let mark = OutputMark {
        number: 1,
        port: OutputPort::Net,
        len: 60,
        hash: 99,
    };
    let digest = MachineDigest {
        ram: 1,
        cpu: u64::MAX,
        devices: 3,
    };
    vec![
        entry(0, Event::Clock { ns: 5 }),
        entry(
            3,
            Event::Frame {
                data: (0..=200).collect(),
            },
        ),
        entry(3, Event::Frame { data: vec![] }),
        entry(
            900,
            Event::ConsoleInput {
                data: b"hello\n".to_vec(),
            },
        ),
        entry(70_000, Event::Time { ns: u64::MAX }),
        entry(70_001, Event::Output(mark)),
        entry(70_001, Event::Interrupt { vector: 0x20 }),
        Entry {
            at: Position::exit(80_000),
            check: None,
            event: Event::Progress,
        },
        entry(80_001, Event::Digest(digest)),
        entry(80_002, Event::Control(Control::GoLive { generation: 3 })),
        entry(
            80_003,
            Event::End(End {
                reason: EndReason::Exited { status: 0 },
                digest,
            }),
        ),
    ]
}
