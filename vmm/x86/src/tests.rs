//! The engine: steps are exact however they are granted, code may change itself, and nothing that a guest
//! does makes the CPU panic.

use crate::SoftVcpu;
use crate::differential::assemble::assemble;
use crate::differential::generate::{Generator, Pool};
use crate::differential::native::Registers;
use crate::differential::random::Random;
use crate::differential::soft::Soft;
use crate::differential::{forms, layout};
use crate::state::Mode;
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::{Exit, Run, Until, Vcpu};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Registers that begin a piece of code.
fn start() -> Registers {
    let mut registers = Registers::NEW;
    registers.rip = layout::CODE.at;
    registers.r[4] = layout::STACK.at + 0x1000;
    registers
}

#[test]
fn steps_are_exact_however_they_are_granted() {
    let (forms, pool) = (forms(Mode::Long), Pool::new());
    let mut soft = Soft::new();
    let mut random = Random(99);
    let template: Vec<u8> = (0..layout::DATA.len).map(|_| random.next() as u8).collect();
    for seed in 0..4000 {
        let mut generator = Generator::new(seed, Mode::Long, false, &pool);
        let case = generator.case(&forms, 12);
        let code = assemble(&case.code, layout::CODE.at, Mode::Long);
        let end = code.end();
        let mut before = start();
        (before.r, before.rflags) = (case.r, case.rflags);
        let mut outcome = |slice: &mut dyn FnMut() -> u64| {
            // Code may write over itself.
            soft.load(&code.bytes, Mode::Long);
            for area in [layout::DATA, layout::STACK] {
                soft.write(area.at, &template[..area.len]);
            }
            let steps = soft.steps();
            let after = soft.run_sliced(&before, end, slice)?;
            let memory = [layout::DATA, layout::STACK].map(|a| soft.read(a.at, a.len));
            Some((
                after.r,
                after.rflags,
                after.rip,
                after.trap,
                soft.steps() - steps,
                memory,
            ))
        };
        let whole = outcome(&mut || 100_000);
        assert_eq!(outcome(&mut || 1), whole, "seed {seed}");
        assert_eq!(outcome(&mut || 1 + random.below(9)), whole, "seed {seed}");
    }
}

/// The code may be anywhere in its page, so that instructions cross into the next one.
fn run(code: &[u8], offset: u64) -> Registers {
    let mut soft = Soft::new();
    let mut before = start();
    before.rip += offset;
    let code = [&vec![0x90; offset as usize], code].concat();
    let end = layout::CODE.at + code.len() as u64;
    soft.load(&code, Mode::Long);
    soft.run(&before, end, Mode::Long).expect("it ends")
}

#[test]
fn code_that_changes_what_comes_next_runs_what_it_wrote() {
    // mov byte [rip + 1], 7; mov eax, 1
    let next = [0xc6, 0x05, 1, 0, 0, 0, 7, 0xb8, 1, 0, 0, 0];
    // mov ecx, 2; again: mov eax, 1; mov byte [again + 1], 9; loop again
    let again = [
        0xb9, 2, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xc6, 0x05, 0xf5, 0xff, 0xff, 0xff, 9, 0xe2, 0xf2,
    ];
    for offset in (0..16).chain(4070..4100) {
        assert_eq!(run(&next, offset).r[0], 7, "offset {offset}");
        assert_eq!(run(&again, offset).r[0], 9, "offset {offset}");
    }
}

/// A CPU at CPL 0 with memory full of random bytes, and page tables that mostly make sense.
fn wild(random: &mut Random) -> (Ram, SoftVcpu) {
    let ram = Ram::new(MIN_MIB).unwrap();
    let mut page = [0; 4096];
    for at in (0..0x40_0000).step_by(4096) {
        for chunk in page.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes());
        }
        ram.write(at, &page).unwrap();
    }
    let mut state = lockstep_loader::start_state(0x20_0000 + random.below(0x1000));
    for value in &mut state.registers.general {
        *value = random.value();
    }
    // Tables at 0x10_0000: identity, with random rights and an entry now and then that is anything.
    let tables = 0x10_0000;
    state.system.control[2] = tables;
    ram.write_u64(tables, (tables + 0x1000) | 7).unwrap();
    ram.write_u64(tables + 0x1000, (tables + 0x2000) | 7)
        .unwrap();
    for large in 0..512 {
        let entry = match random.below(12) {
            0 => random.next(),
            1 => random.next() & 0xff_ffff,
            _ => large << 21 | 0x80 | 1 | random.next() & 0x66,
        };
        ram.write_u64(tables + 0x2000 + 8 * large, entry).unwrap();
    }
    ram.write_u64(tables + 0x2000, 0x87).unwrap();
    ram.write_u64(tables + 0x2008, 0x20_0087).unwrap();
    // An IDT of random gates, most of which lead into the code.
    state.system.tables = [(0x1000, 0xffff), (0x30_0000, 0xfff)];
    for gate in 0..256 {
        let target = 0x20_0000 + random.below(0x10_0000);
        let low = target & 0xffff | 8 << 16 | 0x8e00 << 32 | (target >> 16 & 0xffff) << 48;
        let low = if random.one_in(20) {
            random.next()
        } else {
            low
        };
        ram.write_u64(0x30_0000 + 16 * gate, low).unwrap();
        ram.write_u64(0x30_0008 + 16 * gate, target >> 32).unwrap();
    }
    ram.write_u64(0x1008, 0x00af_9b00_0000_ffff).unwrap();
    ram.write_u64(0x1010, 0x00cf_9300_0000_ffff).unwrap();
    state.registers.rflags = random.next() & 0x24_7fd5 | 2;
    if random.one_in(3) {
        // 32-bit code.
        state.system.segments[0].attributes.l = 0;
        state.system.segments[0].attributes.db = 1;
        for value in &mut state.registers.general {
            *value &= 0xffff_ffff;
        }
    }
    if random.one_in(3) {
        // As a user.
        state.system.segments[0].attributes.dpl = 3;
        state.system.segments[0].selector |= 3;
        state.system.segments[5].attributes.dpl = 3;
    }
    let vcpu = SoftVcpu::new(ram.clone(), &state).unwrap();
    (ram, vcpu)
}

/// Fills the tables with entries that are anything: to other tables and to themselves, to RAM and beyond, with
/// reserved bits and without.
fn spoil_tables(ram: &Ram, random: &mut Random) {
    for place in (0x10_0000..0x10_3000).step_by(8) {
        let entry = match random.below(16) {
            0..8 => continue,
            8..11 => (0x10_0000 + (random.below(3) << 12)) | random.next() & 0xe7,
            11..14 => random.next() & 0x3f_f0e7 | 1,
            14 => random.next() & 0x8000_00ff_ffff_ffff | 1,
            _ => random.next(),
        };
        ram.write_u64(place, entry).unwrap();
    }
}

/// Code of instructions that exist, which random bytes seldom are, all over the first pages of code.
fn plant_code(ram: &Ram, random: &mut Random, forms: &[iced_x86::Code], pool: &Pool) {
    let mut generator = Generator::new(random.next(), Mode::Long, false, pool);
    let mut at = 0x20_0000;
    while at < 0x20_2000 {
        let case = generator.case(forms, 20);
        let code = assemble(&case.code, at, Mode::Long);
        ram.write(at, &code.bytes).unwrap();
        at += code.bytes.len() as u64 + random.below(4);
    }
}

/// Machines that are tried. Each has a seed of its own; `LOCKSTEP_SEED` gives the first.
const MACHINES: u64 = 2000;

/// Random bytes and random instructions as code, at each privilege and in both modes, with tables that make
/// sense or are anything. An access outside RAM would panic: [`lockstep_memory::Direct`] looks.
#[test]
fn whatever_runs_the_cpu_goes_on_or_says_why_not() {
    let (forms, pool) = (forms(Mode::Long), Pool::new());
    let first = crate::differential::seed();
    let mut steps = 0;
    for machine in 0..MACHINES {
        let seed = first.wrapping_add(machine);
        println!("LOCKSTEP_SEED={seed:#x}");
        let mut random = Random(seed);
        let (ram, mut vcpu) = wild(&mut random);
        if machine % 3 == 0 {
            spoil_tables(&ram, &mut random);
        }
        if machine % 2 == 0 {
            plant_code(&ram, &mut random, &forms, &pool);
        }
        for _ in 0..50 {
            match vcpu.run_steps(1 + random.below(2000)) {
                Ok(Run::Exit(Exit::PioIn { len, .. } | Exit::MmioRead { len, .. })) => {
                    vcpu.answer(&random.next().to_le_bytes()[..len]);
                }
                Ok(Run::Exit(Exit::Shutdown)) | Err(_) => break,
                Ok(Run::Exit(_) | Run::Kicked) => {}
            }
            if vcpu.ready() && random.one_in(2) {
                vcpu.deliver(random.below(256) as u8).unwrap();
            }
        }
        steps += vcpu.steps();
    }
    println!("{MACHINES} machines, {steps} steps");
    assert!(steps > 100_000);
}

/// The handler of #PF lies where nothing is, and has a stack of its own: a real processor would deliver for
/// ever.
#[test]
fn a_guest_whose_handler_always_faults_shuts_down() {
    const NOWHERE: u64 = 0x4000_0000;
    let ram = Ram::new(MIN_MIB).unwrap();
    for (at, entry) in [(0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x87)] {
        ram.write_u64(at, entry).unwrap();
    }
    // IST 1, the gate, and the code segment.
    let gate = NOWHERE & 0xffff | 8 << 16 | 0x8e01 << 32 | (NOWHERE >> 16 & 0xffff) << 48;
    for (at, word) in [
        (0x5024, 0x9000),
        (0x6000 + 16 * 14, gate),
        (0x7008, 0x00af_9b00_0000_ffff),
    ] {
        ram.write_u64(at, word).unwrap();
    }
    let mut state = lockstep_loader::start_state(NOWHERE);
    state.system.control[2] = 0x1000;
    state.system.tables = [(0x7000, 0xf), (0x6000, 0xfff)];
    state.system.segments[6].base = 0x5000;
    state.system.segments[6].limit = 0x67;
    let mut vcpu = SoftVcpu::new(ram, &state).unwrap();
    assert!(matches!(
        vcpu.run_steps(1000),
        Ok(Run::Exit(Exit::Shutdown))
    ));
    assert_eq!(vcpu.steps(), 0);
    assert_eq!(vcpu.save().unwrap().system.control[1], NOWHERE);
}

#[test]
fn a_guest_that_loops_is_left_by_a_kick() {
    let ram = Ram::new(MIN_MIB).unwrap();
    // Identity for the first 2 MiB, and a jump to itself.
    for (at, entry) in [(0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x87)] {
        ram.write_u64(at, entry).unwrap();
    }
    ram.write(0x8000, &[0xeb, 0xfe]).unwrap();
    let mut state = lockstep_loader::start_state(0x8000);
    state.system.control[2] = 0x1000;
    let mut vcpu = SoftVcpu::new(ram, &state).unwrap();
    let flag = Arc::new(AtomicBool::new(true));
    vcpu.heed(flag.clone());
    assert_eq!(vcpu.run(Until::GUEST).unwrap(), Run::Kicked);
    assert!(!flag.load(Ordering::Relaxed));
    assert_eq!(vcpu.run_steps(1000).unwrap(), Run::Kicked);
    assert_eq!(vcpu.check().rip, 0x8000);
}
