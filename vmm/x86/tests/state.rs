//! The state: what the CPU is put into it gives back, to the bit, and no state makes it panic.

use ft_protocol::log::codec::{decode_payload, encode_payload};
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::state::MSRS;
use lockstep_vcpu::{CpuBackend, CpuState, Vcpu};
use lockstep_x86::{Soft, SoftVcpu};

fn start() -> CpuState {
    lockstep_loader::start_state(0x20_0000)
}

fn restored(state: &CpuState) -> CpuState {
    let ram = Ram::new(MIN_MIB).unwrap();
    let cpu = Soft.cpu(ram, state).unwrap_or_else(|e| panic!("{e}"));
    cpu.save().unwrap()
}

fn set_msr(state: &mut CpuState, index: u32, value: u64) {
    let at = MSRS.iter().position(|(known, _)| *known == index);
    state.msrs[at.expect("it is part of the state")] = value;
}

const CHANGES: [fn(&mut CpuState); 19] = [
    |s| s.registers.general[0] = 1,
    |s| s.registers.general[15] = 15,
    |s| s.registers.rip += 7,
    |s| s.registers.rflags |= 0x41,
    |s| s.system.segments[0].selector |= 3,
    |s| s.system.segments[6].base += 0x1000,
    |s| s.system.tables[1] = (0x5000, 0xfff),
    |s| s.system.control[1] = 0x1234,
    // FCW, FSW with a top of the stack, an x87 register, MXCSR, XMM0 and XMM15.
    |s| s.fpu.fxsave_mut()[0] = 0x3800_027f,
    |s| s.fpu.fxsave_mut()[8] = 0x1234_5678,
    |s| s.fpu.fxsave_mut()[6] = 0x1fa0,
    |s| s.fpu.fxsave_mut()[40] = 0xdead_beef,
    |s| s.fpu.fxsave_mut()[103] = 0xdead_beef,
    |s| set_msr(s, 0xc000_0082, 0x20_1000),
    |s| s.events.interrupt[..2].copy_from_slice(&[1, 0x30]),
    |s| s.events.interrupt[3] = 1,
    // A single-step trap that is due, and a page fault that is being delivered.
    |s| (s.events.exception, s.events.payload) = ([0, 1, 1, 0], Some(0x4000)),
    |s| (s.events.exception, s.events.error_code) = ([1, 0, 14, 1], 2),
    |s| s.debug.addresses[3] = 0x20_2000,
];

#[test]
fn every_part_is_restored_and_shows_in_the_digest() {
    assert_eq!(restored(&start()), start());
    for (number, change) in CHANGES.into_iter().enumerate() {
        let mut state = start();
        change(&mut state);
        assert_eq!(restored(&state), state, "change {number}");
        assert_ne!(state.digest(), start().digest(), "change {number}");
    }
}

/// Every byte of a state, set to others: not decoded, refused, or taken, and then run.
#[test]
fn a_damaged_state_is_no_panic() {
    let ram = Ram::new(MIN_MIB).unwrap();
    let mut bytes = Vec::new();
    encode_payload(&start(), &mut bytes);
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            let Ok(state) = decode_payload::<CpuState>(&damaged) else {
                continue;
            };
            let Ok(mut cpu) = SoftVcpu::new(ram.clone(), &state) else {
                continue;
            };
            let _ = cpu.run_steps(20);
            let _ = cpu.save().unwrap();
        }
    }
}

/// An instruction, or a few, with the number that RAX begins with.
const CHOICES: [(u64, u64, &[u8]); 26] = [
    // CPUID.
    (0, 1, &[0x0f, 0xa2]),
    (1, 1, &[0x0f, 0xa2]),
    (7, 1, &[0x0f, 0xa2]),
    (0x8000_0000, 1, &[0x0f, 0xa2]),
    (0x8000_0001, 1, &[0x0f, 0xa2]),
    (0x8000_0002, 1, &[0x0f, 0xa2]),
    (0x8000_0003, 1, &[0x0f, 0xa2]),
    (0x8000_0004, 1, &[0x0f, 0xa2]),
    (0x8000_0008, 1, &[0x0f, 0xa2]),
    // RDTSC after three steps.
    (5, 4, &[0x90, 0x90, 0x90, 0x0f, 0x31]),
    // IMUL, MUL, DIV, shifts and rotations by 5, BSF and BSR of 0, SHLD: flags that the manual leaves open.
    (0x8000_0000_0000_0021, 1, &[0x48, 0x0f, 0xaf, 0xc3]),
    (0x8000_0000_0000_0021, 1, &[0x48, 0xf7, 0xe3]),
    (0x8000_0000_0000_0021, 1, &[0x48, 0xf7, 0xf3]),
    (0x8000_0000_0000_0021, 1, &[0x48, 0xd3, 0xe0]),
    (0x8000_0000_0000_0021, 1, &[0x48, 0xd3, 0xf8]),
    (0x8000_0000_0000_0021, 1, &[0x48, 0xd3, 0xc0]),
    (0x21, 1, &[0x66, 0xd3, 0xd0]),
    (0x21, 1, &[0x48, 0x0f, 0xbc, 0xc2]),
    (0x21, 1, &[0x48, 0x0f, 0xbd, 0xc2]),
    (0x21, 1, &[0x66, 0x0f, 0xa4, 0xd8, 0x15]),
    (0x21, 1, &[0x48, 0x25, 0x20, 0, 0, 0]),
    // CVTSI2SD, SQRTSD, RCPPS, RSQRTPS; FLDPI, FSIN, FPTAN.
    (
        7,
        2,
        &[0xf2, 0x48, 0x0f, 0x2a, 0xc0, 0xf2, 0x0f, 0x51, 0xc8],
    ),
    (7, 2, &[0xf3, 0x48, 0x0f, 0x2a, 0xc0, 0x0f, 0x53, 0xc8]),
    (7, 2, &[0xf3, 0x48, 0x0f, 0x2a, 0xc0, 0x0f, 0x52, 0xc8]),
    (7, 2, &[0xd9, 0xeb, 0xd9, 0xfe]),
    (7, 2, &[0xd9, 0xeb, 0xd9, 0xf2]),
];

/// What the manual leaves to the processor is part of its model: a log that counts instructions holds on the
/// same one only.
#[test]
fn a_changed_processor_has_a_new_model() {
    let ram = Ram::new(MIN_MIB).unwrap();
    // Identity for the first 2 MiB.
    for (at, entry) in [(0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x87)] {
        ram.write_u64(at, entry).unwrap();
    }
    let digests = CHOICES.map(|(rax, steps, code)| {
        ram.write(0x8000, code).unwrap();
        let mut state = lockstep_loader::start_state(0x8000);
        state.system.control[2] = 0x1000;
        // RAX, RBX, RCX.
        state.registers.general[..3].copy_from_slice(&[rax, 0x1_0000_0003, 5]);
        let mut cpu = SoftVcpu::new(ram.clone(), &state).unwrap();
        cpu.run_steps(steps).unwrap();
        assert_eq!(cpu.steps(), steps, "{code:x?}");
        cpu.save().unwrap().digest()
    });
    let all = digests
        .iter()
        .fold(0u64, |sum, digest| sum.rotate_left(7) ^ digest);
    assert_eq!(
        all, GOLDEN,
        "raise ft_protocol::log::SOFT_CPU_MODEL, then write {all:#x} down"
    );
}

/// Of model 2.
const GOLDEN: u64 = 0x7e96_7f32_d6c5_0b74;
