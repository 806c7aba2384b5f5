//! A CPU that keeps its translations does the same as one that forgets all of them after each step.

use crate::SoftVcpu;
use crate::differential::random::Random;
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::{CpuState, Exit, Run, Vcpu};

/// Tables of the first level, one for each address space.
const SPACES: [u64; 3] = [0x10_0000, 0x10_1000, 0x10_2000];
/// What they share: tables of the second and third level, and two of the last.
const SHARED: u64 = 0x10_4000;
const LAST: [u64; 2] = [0x10_6000, 0x10_7000];
/// A third one of the last level, which maps pages of the second space alone.
const OTHERS: u64 = 0x10_8000;
/// What the last tables map: linear addresses from here on.
const WINDOW: u64 = 0x4000_0000;
/// The upper half has the pages of the second table once more.
const HIGH: u64 = 0xffff_8000_0000_0000;
/// Physical pages that the window shows.
const POOL: u64 = 0x40_0000;
const POOL_PAGES: u64 = 24;
/// Only the window's pages from this one on are called.
const CALLED: u64 = 12;
const CODE: u64 = 0x20_0000;
const HANDLER: u64 = 0x30_0000;
const STACK: u32 = 0x38_0000;
/// Operations in a program, and how often the program is run through.
const OPERATIONS: usize = 60;
const ROUNDS: u32 = 12;

fn entry(random: &mut Random) -> u64 {
    let flags = match random.below(8) {
        0 => 0,
        1 => 1 << 63 | 3,
        2 => 1,
        3 => 0x63,
        _ => 3 | random.next() & 0x64,
    };
    (POOL + (random.below(POOL_PAGES) << 12)) | flags
}

/// Where a program writes entries: mostly where one page is mapped once and has no code, as more than that page
/// is forgotten elsewhere.
fn place(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => SHARED + 0x1000 + 8 * random.below(2),
        1 => SPACES[random.below(3) as usize] + 8 * 256,
        2 => LAST[1] + 8 * random.below(16),
        3 => LAST[0] + 8 * random.below(16),
        4..8 => OTHERS + 8 * random.below(CALLED),
        _ => LAST[0] + 8 * random.below(CALLED),
    }
}

/// One of the window's pages, from this one on.
fn linear(random: &mut Random, first: u64) -> u64 {
    let half = [0, 0, HIGH][random.below(3) as usize];
    let table = random.below(3) / 2;
    half + WINDOW + (table << 21) + ((first + random.below(16 - first)) << 12)
}

/// One operation, with the address of the next in R15, where the handler goes on.
fn operation(random: &mut Random, code: &mut Vec<u8>) {
    let mut body = Vec::new();
    let rax = |value: u64, body: &mut Vec<u8>| {
        body.extend([0x48, 0xb8]);
        body.extend(value.to_le_bytes());
    };
    let rbx = |value: u64, body: &mut Vec<u8>| {
        body.extend([0x48, 0xbb]);
        body.extend(value.to_le_bytes());
    };
    match random.below(24) {
        0..6 => {
            let value = match random.below(10) {
                0 => LAST[random.below(2) as usize] | 3,
                _ => entry(random),
            };
            rax(value, &mut body);
            rbx(place(random) + random.below(2) * random.below(7), &mut body);
            let stores: [&[u8]; 6] = [
                &[0x48, 0x89, 0x03],       // mov [rbx], rax
                &[0x48, 0x89, 0x03],       // the same
                &[0x89, 0x03],             // mov [rbx], eax
                &[0x88, 0x03],             // mov [rbx], al
                &[0x48, 0x87, 0x03],       // xchg [rbx], rax
                &[0xf0, 0x48, 0x09, 0x03], // lock or [rbx], rax
            ];
            body.extend(stores[random.below(6) as usize]);
        }
        6..14 => {
            rbx(linear(random, 0) + random.below(0xffc), &mut body);
            body.extend([0x48, 0x8b, 0x0b, 0x48, 0x01, 0xca]); // mov rcx, [rbx]; add rdx, rcx
        }
        14..18 => {
            rbx(linear(random, 0) + 64 + random.below(0xfc0), &mut body);
            body.extend([0x48, 0x89, 0x13]); // mov [rbx], rdx
        }
        18..22 => {
            rbx(linear(random, CALLED), &mut body);
            body.extend([0xff, 0xd3]); // call rbx
        }
        22 => {
            rax(SPACES[random.below(3) as usize], &mut body);
            body.extend([0x0f, 0x22, 0xd8]); // mov cr3, rax
        }
        _ => {
            // A table is filled: rep stosq.
            rax(entry(random), &mut body);
            body.extend([0x48, 0xbf]);
            body.extend((LAST[0] + 8 * random.below(8)).to_le_bytes());
            body.extend([0xb9]);
            body.extend((random.below(4) as u32).to_le_bytes());
            body.extend([0xf3, 0x48, 0xab]);
        }
    }
    code.extend([0x48, 0xc7, 0xc4]); // mov rsp, STACK
    code.extend(STACK.to_le_bytes());
    code.extend([0x4c, 0x8d, 0x3d]); // lea r15, [what follows]
    code.extend((body.len() as u32).to_le_bytes());
    code.extend(body);
}

/// The program, run through again and again, then HLT.
fn program(random: &mut Random) -> Vec<u8> {
    let mut code = vec![0x41, 0xbd]; // mov r13d, ROUNDS
    code.extend(ROUNDS.to_le_bytes());
    let again = code.len();
    for _ in 0..OPERATIONS {
        operation(random, &mut code);
    }
    code.extend([0x41, 0xff, 0xcd, 0x0f, 0x85]); // dec r13d; jnz again
    let back = again as i64 - (code.len() as i64 + 4);
    code.extend((back as i32).to_le_bytes());
    code.push(0xf4); // hlt
    code
}

fn machine(seed: u64) -> (Ram, SoftVcpu) {
    let mut random = Random(seed);
    let ram = Ram::new(MIN_MIB).unwrap();
    let put = |at: u64, word: u64| ram.write_u64(at, word).unwrap();
    for space in SPACES {
        put(space, SHARED | 7);
        put(space + 8 * 256, 0x10_c000 | 7);
    }
    put(0x10_c008, 0x10_d000 | 7);
    put(0x10_d008, LAST[1] | 7);
    put(SHARED, 0x10_9000 | 7);
    put(SHARED + 8, (SHARED + 0x1000) | 7);
    for large in 0..8 {
        put(0x10_9000 + 8 * large, large << 21 | 0x87);
    }
    for (index, table) in LAST.into_iter().enumerate() {
        put(SHARED + 0x1000 + 8 * index as u64, table | 7);
    }
    // The second space has a window of its own.
    put(SPACES[1], 0x10_a000 | 7);
    put(0x10_a000, 0x10_9000 | 7);
    put(0x10_a008, 0x10_b000 | 7);
    put(0x10_b000, OTHERS | 7);
    for table in [LAST[0], LAST[1], OTHERS] {
        for page in 0..16 {
            put(table + 8 * page, entry(&mut random));
        }
    }
    for page in 0..POOL_PAGES {
        let bytes: Vec<u8> = (0..4096).map(|_| random.next() as u8).collect();
        ram.write(POOL + (page << 12), &bytes).unwrap();
        // add rdx, imm32; ret
        let mut code = vec![0x48, 0x81, 0xc2];
        code.extend((random.next() as u32 >> 1).to_le_bytes());
        code.push(0xc3);
        ram.write(POOL + (page << 12), &code).unwrap();
    }
    // add rsp, 8; mov [rsp], r15; inc r14; iretq
    let handler = [
        0x48, 0x83, 0xc4, 8, 0x4c, 0x89, 0x3c, 0x24, 0x49, 0xff, 0xc6, 0x48, 0xcf,
    ];
    ram.write(HANDLER, &handler).unwrap();
    for vector in [13, 14] {
        let gate = HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16 & 0xffff) << 48;
        put(0x3_0000 + 16 * vector, gate);
    }
    put(0x3_1008, 0x00af_9b00_0000_ffff);
    put(0x3_1010, 0x00cf_9300_0000_ffff);
    ram.write(CODE, &program(&mut random)).unwrap();
    let mut state = lockstep_loader::start_state(CODE);
    state.system.control[2] = SPACES[0];
    state.system.tables = [(0x3_1000, 0x17), (0x3_0000, 0xfff)];
    let vcpu = SoftVcpu::new(ram.clone(), &state).unwrap();
    (ram, vcpu)
}

/// Machines that are tried. Each is told by its seed, the first of which `LOCKSTEP_SEED` gives.
const MACHINES: u64 = 60;
/// Steps that a program makes at most.
const MOST_STEPS: u64 = 100_000;

/// Runs it in pieces of so many steps, with something done between them.
fn outcome(seed: u64, piece: u64, between: fn(&mut SoftVcpu)) -> (CpuState, Vec<u8>) {
    let (ram, mut vcpu) = machine(seed);
    while vcpu.steps() < MOST_STEPS {
        match vcpu.run_steps(piece.min(MOST_STEPS - vcpu.steps())) {
            Ok(Run::Kicked) => between(&mut vcpu),
            Ok(Run::Exit(Exit::Hlt | Exit::Shutdown)) | Err(_) => break,
            Ok(Run::Exit(Exit::PioIn { len, .. } | Exit::MmioRead { len, .. })) => {
                vcpu.answer(&[0; 8][..len])
            }
            Ok(Run::Exit(_)) => {}
        }
    }
    let mut memory = vec![0; 0x100_0000];
    ram.read(0, &mut memory).unwrap();
    (vcpu.save().unwrap(), memory)
}

#[test]
fn what_is_kept_of_translations_is_never_older_than_the_tables() {
    let first = crate::differential::seed();
    let (mut faults, mut steps) = (0, 0);
    for number in 0..MACHINES {
        let seed = first.wrapping_add(number);
        let kept = outcome(seed, MOST_STEPS, |_| {});
        let forgotten = outcome(seed, 1, |vcpu| vcpu.engine.cpu.memory.flush());
        assert!(kept == forgotten, "LOCKSTEP_SEED={seed:#x}");
        faults += kept.0.registers.general[14];
        steps += kept.0.counters.steps;
    }
    println!("{steps} steps, {faults} page faults");
    assert!(faults > 2000 && steps > 100_000);
}
