use crate::Kvm;
use crate::vcpu::KvmVcpu;
use ft_protocol::log::codec::{decode_payload, encode_payload};
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::state::MSRS;
use lockstep_vcpu::{CpuBackend, CpuState, Vcpu};

/// A CPU in the state in which guests start, with memory of its own.
pub fn fresh_cpu() -> (Ram, Box<dyn Vcpu>) {
    let ram = Ram::new(MIN_MIB).unwrap();
    let start = lockstep_loader::start_state(0x20_0000);
    let cpu = Kvm.cpu(ram.clone(), &start);
    (ram, cpu.unwrap_or_else(|e| panic!("{e}")))
}

fn fresh() -> CpuState {
    fresh_cpu().1.save().unwrap()
}

fn restored(state: &CpuState) -> CpuState {
    let ram = Ram::new(MIN_MIB).unwrap();
    let vcpu = KvmVcpu::new(ram, state).unwrap_or_else(|e| panic!("{e}"));
    vcpu.save().unwrap()
}

fn set_msr(state: &mut CpuState, index: u32, value: u64) {
    let at = MSRS.iter().position(|(known, _)| *known == index);
    state.msrs[at.expect("it is part of the state")] = value;
}

/// KVM gives back exactly the state in which guests start.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_cpu_starts_in_the_state_it_was_given() {
    assert_eq!(fresh(), lockstep_loader::start_state(0x20_0000));
}

/// A change of the state, and the components whose digests show it.
type Change = (fn(&mut CpuState), &'static [&'static str]);

const CHANGES: [Change; 19] = [
    (|s| s.registers.general[0] = 1, &["vCPU registers"]),
    (|s| s.registers.general[15] = 15, &["vCPU registers"]),
    (|s| s.registers.rip += 7, &["vCPU registers"]),
    (|s| s.registers.rflags |= 0x41, &["vCPU registers"]),
    (
        |s| s.system.segments[0].selector |= 3,
        &["vCPU system registers"],
    ),
    (
        |s| s.system.segments[6].base += 0x1000,
        &["vCPU system registers"],
    ),
    (
        |s| s.system.tables[1] = (0x5000, 0xfff),
        &["vCPU system registers"],
    ),
    (|s| s.system.control[1] = 0x1234, &["vCPU system registers"]),
    // FCW, an x87 register, MXCSR, XMM0 and XMM15.
    (|s| s.fpu.fxsave_mut()[0] = 0x027f, &["FPU"]),
    (|s| s.fpu.fxsave_mut()[8] = 0x1234_5678, &["FPU"]),
    (|s| s.fpu.fxsave_mut()[6] = 0x1fa0, &["FPU"]),
    (|s| s.fpu.fxsave_mut()[40] = 0xdead_beef, &["FPU"]),
    (|s| s.fpu.fxsave_mut()[103] = 0xdead_beef, &["FPU"]),
    (|s| set_msr(s, 0xc000_0082, 0x20_1000), &["MSRs"]),
    (
        |s| s.events.interrupt[..2].copy_from_slice(&[1, 0x30]),
        &["events"],
    ),
    (|s| s.events.interrupt[3] = 1, &["events"]),
    // A single-step trap that is pending, whose payload sets DR6.BS; and a page fault that is being
    // delivered.
    (
        |s| (s.events.exception, s.events.payload) = ([0, 1, 1, 0], Some(0x4000)),
        &["events"],
    ),
    (
        |s| (s.events.exception, s.events.error_code) = ([1, 0, 14, 1], 2),
        &["events"],
    ),
    (|s| s.debug.addresses[3] = 0x20_2000, &["debug registers"]),
];

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn every_part_is_restored_and_shows_in_its_digest() {
    let before = fresh();
    assert_eq!(restored(&before), before);
    for (index, (change, names)) in CHANGES.into_iter().enumerate() {
        let mut state = before.clone();
        change(&mut state);
        let components = restored(&state).components();
        let differing: Vec<&str> = std::iter::zip(before.components(), &components)
            .filter(|(ours, theirs)| ours != *theirs)
            .map(|((name, _), _)| name)
            .collect();
        assert_eq!(components, state.components(), "change {index}");
        assert_ne!(state.digest(), before.digest(), "change {index}");
        assert_eq!(differing, names, "change {index}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_msr_value_that_the_cpu_does_not_take_is_named() {
    // An address that is not canonical.
    let mut impossible = fresh();
    set_msr(&mut impossible, 0xc000_0082, 1 << 62);
    let ram = Ram::new(MIN_MIB).unwrap();
    let error = KvmVcpu::new(ram, &impossible).unwrap_err().to_string();
    assert!(error.contains("host of the same kind"), "{error}");
    assert!(error.contains("0xc0000082"), "{error}");
}

/// Sets every byte of a state to other values: the state does not decode, is refused by KVM, or is
/// taken. It never panics.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_damaged_state_is_no_panic() {
    let ram = Ram::new(MIN_MIB).unwrap();
    let mut bytes = Vec::new();
    encode_payload(&fresh(), &mut bytes);
    let (mut undecodable, mut refused, mut taken) = (0, 0, 0);
    for index in 0..bytes.len() {
        for value in [0xff, bytes[index] ^ 1] {
            let mut damaged = bytes.clone();
            damaged[index] = value;
            match decode_payload::<CpuState>(&damaged) {
                Err(_) => undecodable += 1,
                Ok(state) => match KvmVcpu::new(ram.clone(), &state) {
                    Ok(_) => taken += 1,
                    Err(_) => refused += 1,
                },
            }
        }
    }
    println!("{undecodable} undecodable, {refused} refused, {taken} taken");
    assert!(undecodable > 0 && refused > 0 && taken > 0);
}
