//! The platform of a Linux guest: a kernel of a few instructions, in a vmlinux that is made here.

use ft_protocol::log::{
    BootProtocol, Counts, CpuKind, End, EndReason, MachineConfig, MachineDigest, SOFT_CPU_MODEL,
};
use lockstep_devices::Output;
use lockstep_loader::{Image, Parts};
use lockstep_machine::drive::Driven;
use lockstep_machine::{Input, Machine, Moment, Next, Sink, Source, View, drive};
use lockstep_x86::Soft;
use std::convert::Infallible;

const CODE: u64 = 0x100_0000;
/// Where it writes what it has read: CODE plus 1 MiB.
const READINGS: u64 = 0x110_0000;
const COUNT: usize = 200;

/// Reads the power management timer and the time-stamp counter, again and again, and powers off.
const CLOCKS: &[u8] = &[
    0xbf, 0, 0, 0x10, 1, // mov edi, READINGS
    0xbe, 200, 0, 0, 0, // mov esi, COUNT
    0x66, 0xba, 0x08, 0x06, // mov dx, 0x608
    0xed, // in eax, dx
    0xab, // stosd
    0x0f, 0x31, // rdtsc
    0xab, // stosd
    0x89, 0xd0, // mov eax, edx
    0xab, // stosd
    0xff, 0xce, // dec esi
    0x75, 0xf0, // jnz to the mov dx
    0x66, 0xba, 0x04, 0x06, // mov dx, 0x604
    0x66, 0xb8, 0x00, 0x34, // mov ax, 0x3400: S5
    0x66, 0xef, // out dx, ax
];

/// mov al, 0xfe; out 0x64, al
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4];

/// mov al, 'x'; mov dx, 0x3f8; out dx, al; hlt, with interrupts off
const HALT: &[u8] = &[0xb0, b'x', 0x66, 0xba, 0xf8, 0x03, 0xee, 0xf4];

/// A vmlinux with this code.
fn vmlinux(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [CODE, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let len = code.len() as u64;
    for word in [120, 0xffff_ffff_8100_0000, CODE, len, len, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    [&file, code].concat()
}

/// Moves guest time at every `every`th position, by more each time.
struct Jumps {
    every: u64,
    moved: Option<u64>,
    printed: Vec<u8>,
    end: Option<EndReason>,
}

impl Source for Jumps {
    type Error = Infallible;

    fn next(&mut self, view: &View) -> Result<Next<'_>, Infallible> {
        let exit = view.moment.at.exit;
        if let Some(reason) = view.ended {
            return Ok(Next::Finish(reason));
        }
        // Time that is earlier than the guest's changes nothing.
        let ns = match exit.checked_rem(self.every) {
            _ if self.moved == Some(exit) => return Ok(Next::Leave),
            Some(0) => view.now_ns + exit * 1000,
            _ => view.now_ns.saturating_sub(5000),
        };
        self.moved = Some(exit);
        Ok(Next::Apply(Input::Clock { ns }))
    }

    fn time(&mut self, _: Moment) -> Result<Option<u64>, Infallible> {
        panic!("a machine whose time goes on by itself asks for it")
    }
}

impl Sink for Jumps {
    type Error = Infallible;

    fn output(&mut self, _: Moment, output: &Output) -> Result<(), Infallible> {
        self.printed.extend(&output.data);
        Ok(())
    }

    fn leave(&mut self, _: Moment, _: Option<u8>) -> Result<(), Infallible> {
        Ok(())
    }

    fn digest(&mut self, _: Moment, _: MachineDigest) -> Result<(), Infallible> {
        Ok(())
    }

    fn end(&mut self, _: Moment, end: End) -> Result<(), Infallible> {
        self.end = Some(end.reason);
        Ok(())
    }
}

/// Runs this code to its end, with a jump of time at every so many positions (0 for none).
fn run(code: &[u8], every: u64) -> (Machine, Jumps) {
    let parts = Parts {
        kernel: &vmlinux(code),
        initrd: &[],
        command_line: b"",
    };
    let image = Image::linux("code", &parts).unwrap();
    let cpu = CpuKind::Soft {
        model: SOFT_CPU_MODEL,
    };
    let config = MachineConfig::new(64)
        .on(cpu, Counts::Instructions)
        .for_boot(BootProtocol::Linux);
    let mut machine = Machine::new(&Soft, &config, &image).unwrap();
    let mut jumps = Jumps {
        every,
        moved: None,
        printed: Vec::new(),
        end: None,
    };
    let driven = drive(&mut machine, &mut jumps).unwrap();
    assert!(matches!(driven, Driven::Ended(_)));
    (machine, jumps)
}

/// The readings of both clocks, in nanoseconds.
fn readings(machine: &Machine) -> Vec<(u64, u64)> {
    let mut bytes = vec![0; 12 * COUNT];
    machine.ram().read(READINGS, &mut bytes).unwrap();
    let word = |bytes: &[u8]| u64::from(u32::from_le_bytes(bytes.try_into().unwrap()));
    let reading = |r: &[u8]| {
        let timer = word(&r[..4]) * 1_000_000_000 / 3_579_545;
        (timer, word(&r[4..8]) | word(&r[8..]) << 32)
    };
    bytes.chunks_exact(12).map(reading).collect()
}

/// A tick of the power management timer, nanoseconds.
const TICK_NS: u64 = 280;

#[test]
fn the_cpu_and_the_devices_have_one_time() {
    let (machine, jumps) = run(CLOCKS, 0);
    assert_eq!(jumps.end, Some(EndReason::Exited { status: 0 }));
    for (index, (timer, tsc)) in readings(&machine).into_iter().enumerate() {
        // Three instructions later.
        let behind = tsc - timer;
        assert!(behind <= TICK_NS + 3, "{index}: {timer} {tsc}");
        // A reading takes nine, and RDTSC counts itself.
        assert_eq!(tsc, 6 + 9 * index as u64, "a step is a nanosecond");
    }
}

#[test]
fn a_jump_moves_both_and_neither_goes_back() {
    for every in [1, 3, 7] {
        let (machine, _) = run(CLOCKS, every);
        let mut last = 0;
        for (timer, tsc) in readings(&machine) {
            assert!(
                last <= timer + TICK_NS && timer <= tsc,
                "{last} {timer} {tsc}"
            );
            last = tsc;
        }
        assert!(last > 1_000_000, "time was moved");
    }
}

#[test]
fn a_guest_ends_its_machine_in_each_way() {
    assert_eq!(run(RESET, 0).1.end, Some(EndReason::Reset));
    let (_, halted) = run(HALT, 0);
    assert_eq!(halted.end, Some(EndReason::Dead));
    assert_eq!(halted.printed, b"x");
}
