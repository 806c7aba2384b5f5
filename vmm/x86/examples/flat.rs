//! Runs one of the kvm-unit-tests on the software CPU: `flat FILE.elf [ARGUMENT...]`.
//!
//! `tests/hosts/kvm-unit-tests/run` builds them and calls this. They expect a PC; here are as much of one as
//! they need of it: a serial port, the port that ends them, and a local APIC that only sends interrupts to
//! its own CPU. There are no NMIs. Where their 32-bit start-up ends, this program begins.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own"
)]

use lockstep_memory::Ram;
use lockstep_vcpu::{CpuBackend, CpuError, CpuState, Exit, Run, Until, Vcpu};
use lockstep_x86::Soft;
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSymbol as _};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::ExitCode;
use thiserror::Error;

/// What a test can use of memory, MiB.
const MIB: u32 = 256;
/// A test that makes so many steps has no end.
const MOST_STEPS: u64 = 200_000_000_000;
/// Where what a boot loader leaves lies: the Multiboot structure, the command line, a module's place and the
/// module, which the tests take their environment from.
const BOOT: u64 = 0x9000;
const COMMAND_LINE: u64 = 0x9100;
const MODULES: u64 = 0x9800;
const MODULE: u64 = 0x9900;
const ENVIRONMENT: &str = "NR_CPUS=1\nMEMSIZE=256\nMEMLIMIT=0\nTEST_DEVICE=1\nBOOTLOADER=0\n";
/// Bytes for each CPU below the first stack's top.
const PER_CPU: u64 = 3 * 4096;

/// Ports.
const SERIAL: u16 = 0x3f8;
const SERIAL_STATUS: u16 = 0x3fd;
const END: u16 = 0xf4;

/// A port that keeps what is written to it, and memory that is a device's.
const TEST_PORT: u16 = 0xe0;
const DEVICE_MEMORY: u64 = 0xff00_0000;
const DEVICE_BYTES: u64 = 0x1_0000;

/// The local APIC.
const APIC: u64 = 0xfee0_0000;
const APIC_VERSION: u64 = 0x30;
const APIC_TASK_PRIORITY: u64 = 0x80;
const APIC_EOI: u64 = 0xb0;
const APIC_COMMAND: u64 = 0x300;
const APIC_TIMER: u64 = 0x320;
const APIC_TIMER_START: u64 = 0x380;
/// A vector in the local vector table that is masked.
const MASKED: u32 = 1 << 16;

/// A local APIC of one CPU: what is written stays, interrupts to itself arrive, and its timer's time is over
/// as soon as the CPU halts.
#[derive(Debug, Default)]
struct Apic {
    registers: BTreeMap<u64, u32>,
    requested: BTreeSet<u8>,
    in_service: BTreeSet<u8>,
    /// Does its timer run?
    runs: bool,
}

impl Apic {
    fn read(&self, register: u64) -> u32 {
        match register {
            APIC_VERSION => 0x5_0014,
            _ => self.registers.get(&register).copied().unwrap_or(0),
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        match register {
            APIC_EOI => {
                self.in_service.pop_last();
            }
            APIC_COMMAND => {
                let (vector, kind, to) = (value as u8, value >> 8 & 7, value >> 18 & 3);
                let destination = self.read(APIC_COMMAND + 0x10) >> 24;
                let arrives = to == 1 || to == 2 || to == 0 && matches!(destination, 0 | 0xff);
                if kind == 0 && arrives {
                    self.requested.insert(vector);
                }
            }
            APIC_TIMER_START => self.runs = value != 0,
            _ => {
                self.registers.insert(register, value);
            }
        }
    }

    /// The interrupt that would be next.
    fn next(&self) -> Option<u8> {
        let vector = *self.requested.last()?;
        let now = self.in_service.last().copied().unwrap_or(0);
        let task = self.read(APIC_TASK_PRIORITY) as u8;
        (vector >> 4 > now.max(task) >> 4).then_some(vector)
    }

    /// The CPU halts. Will an interrupt wake it?
    fn halted(&mut self) -> bool {
        let timer = self.read(APIC_TIMER);
        if std::mem::take(&mut self.runs) && timer & MASKED == 0 {
            self.requested.insert(timer as u8);
        }
        self.next().is_some()
    }

    fn take(&mut self, vector: u8) {
        self.requested.remove(&vector);
        self.in_service.insert(vector);
    }
}

/// Puts the file into memory, and the CPU where 64-bit code begins.
fn load(ram: &Ram, file: &[u8], arguments: &str) -> Result<CpuState, Box<dyn std::error::Error>> {
    let elf = ElfFile64::<Endianness>::parse(file)?;
    for segment in elf.elf_program_headers() {
        let data = segment
            .data(Endianness::Little, file)
            .map_err(|()| "no data")?;
        ram.write(segment.p_paddr(Endianness::Little), data)?;
    }
    let symbol = |name: &str| {
        let found = elf.symbols().find(|symbol| symbol.name() == Ok(name));
        found
            .map(|symbol| symbol.address())
            .ok_or_else(|| format!("no symbol {name}"))
    };
    let long = |at: u64, value: u32| ram.write(at, &value.to_le_bytes());
    // Flags, the size of memory from 1 MiB on, the command line, one module.
    long(BOOT, 0xd)?;
    long(BOOT + 8, (MIB - 1) * 1024)?;
    long(BOOT + 16, COMMAND_LINE as u32)?;
    long(BOOT + 20, 1)?;
    long(BOOT + 24, MODULES as u32)?;
    long(MODULES, MODULE as u32)?;
    long(MODULES + 4, (MODULE as usize + ENVIRONMENT.len()) as u32)?;
    ram.write(MODULE, ENVIRONMENT.as_bytes())?;
    ram.write(COMMAND_LINE, format!("{arguments}\0").as_bytes())?;
    ram.write_u64(symbol("mb_boot_info")?, BOOT)?;

    let mut state = lockstep_loader::start_state(symbol("start64")?);
    // PE ET PG; PAE; LME and LMA: as the start-up that is left out leaves them.
    state.system.control = [0x8000_0011, 0, symbol("ptl4")?, 0x20, 0, 0x500];
    let mut table = [0; 10];
    ram.read(symbol("gdt_descr")?, &mut table)?;
    let limit = u16::from_le_bytes([table[0], table[1]]);
    let base = u64::from_le_bytes(table[2..].try_into()?);
    state.system.tables = [(base, limit), (0, 0)];
    let stack = symbol("stacktop")?;
    state.registers.general[6] = stack;
    state.system.segments[4].base = stack - PER_CPU;
    Ok(state)
}

/// What the outside of a test has.
struct Outside {
    apic: Apic,
    memory: Vec<u8>,
    test_port: [u8; 4],
    /// The value written to the port that ends it.
    end: Option<u32>,
}

impl Outside {
    fn out(&mut self, port: u16, data: [u8; 4]) {
        match port {
            SERIAL => {
                let _ = std::io::stdout().write_all(&data[..1]);
            }
            TEST_PORT => self.test_port = data,
            END => self.end = Some(u32::from_le_bytes(data)),
            _ => {}
        }
    }

    fn input(&self, port: u16, len: usize) -> Vec<u8> {
        match port {
            TEST_PORT => self.test_port[..len].to_vec(),
            SERIAL_STATUS => vec![0x60; len],
            _ => vec![0; len],
        }
    }

    /// Where an access lies in the device's memory.
    fn in_memory(addr: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let at = addr.checked_sub(DEVICE_MEMORY)?;
        let end = at + len as u64;
        (end <= DEVICE_BYTES).then_some(at as usize..end as usize)
    }

    fn mmio_write(&mut self, addr: u64, data: [u8; 8], len: usize) {
        if let Some(range) = Outside::in_memory(addr, len) {
            self.memory[range].copy_from_slice(&data[..len]);
        } else if addr & !0xfff == APIC && len == 4 {
            let value = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
            self.apic.write(addr & 0xfff, value);
        }
    }

    fn mmio_read(&self, addr: u64, len: usize) -> Vec<u8> {
        if let Some(range) = Outside::in_memory(addr, len) {
            return self.memory[range].to_vec();
        }
        let value = match addr & !0xfff == APIC {
            true => u64::from(self.apic.read(addr & 0xff0)) >> (8 * (addr & 3)),
            false => 0,
        };
        value.to_le_bytes()[..len].to_vec()
    }
}

/// Why a test did not come to the end that it should have.
#[derive(Debug, Error)]
enum NoEnd {
    #[error(transparent)]
    Cpu(#[from] CpuError),
    #[error("it halted for ever")]
    Halted,
    #[error("it shut down: a triple fault")]
    ShutDown,
    #[error("it made too many steps")]
    Endless,
}

/// Runs it to its end.
fn run(cpu: &mut dyn Vcpu) -> Result<u32, NoEnd> {
    let mut outside = Outside {
        apic: Apic::default(),
        memory: vec![0; DEVICE_BYTES as usize],
        test_port: [0; 4],
        end: None,
    };
    loop {
        if let Some(code) = outside.end {
            return Ok(code);
        }
        let wanted = outside.apic.next();
        if let Some(vector) = wanted
            && cpu.ready()
        {
            outside.apic.take(vector);
            cpu.deliver(vector)?;
        }
        let until = Until {
            steps: MOST_STEPS,
            interruptible: outside.apic.next().is_some(),
        };
        match cpu.run(until)? {
            Run::Kicked | Run::Exit(Exit::Interruptible) => {}
            Run::Exit(Exit::PioOut { port, data, .. }) => outside.out(port, data),
            Run::Exit(Exit::PioIn { port, len }) => cpu.answer(&outside.input(port, len)),
            Run::Exit(Exit::MmioWrite { addr, data, len }) => outside.mmio_write(addr, data, len),
            Run::Exit(Exit::MmioRead { addr, len }) => cpu.answer(&outside.mmio_read(addr, len)),
            Run::Exit(Exit::Hlt) if outside.apic.halted() => {}
            Run::Exit(Exit::Hlt) => return Err(NoEnd::Halted),
            Run::Exit(Exit::Shutdown) => return Err(NoEnd::ShutDown),
            Run::Exit(Exit::Steps) => return Err(NoEnd::Endless),
        }
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(path) = words.next() else {
        eprintln!("Usage: flat FILE.elf [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let arguments: Vec<String> = std::iter::once("test".into()).chain(words).collect();
    let file = match std::fs::read(&path) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("cannot read {path}: {error}");
            return ExitCode::from(2);
        }
    };
    let ram = Ram::new(MIB).expect("memory for it");
    let state = match load(&ram, &file, &arguments.join(" ")) {
        Ok(state) => state,
        Err(error) => {
            eprintln!("cannot load {path}: {error}");
            return ExitCode::from(2);
        }
    };
    let mut cpu = Soft.cpu(ram, &state).expect("a CPU in that state");
    match run(&mut *cpu) {
        Ok(code) => {
            println!("ended with {code} after {} steps", cpu.steps());
            ExitCode::from(u8::from(code != 0))
        }
        Err(why) => {
            println!("{why}, after {} steps: {cpu:?}", cpu.steps());
            ExitCode::FAILURE
        }
    }
}
