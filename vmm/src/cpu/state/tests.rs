use super::*;
use crate::cpu::Vcpu;
use crate::machine::state::differing;
use crate::memory::Ram;
use crate::memory::ram::MIN_MIB;
use ft_protocol::log::codec::{decode_payload, encode_payload};

fn fresh() -> CpuState {
    let ram = Ram::new(MIN_MIB).unwrap();
    let vcpu = Vcpu::new(ram, 0x20_0000).unwrap_or_else(|e| panic!("{e}"));
    vcpu.save().unwrap()
}

fn restored(state: &CpuState) -> CpuState {
    let ram = Ram::new(MIN_MIB).unwrap();
    let vcpu = Vcpu::restore(ram, state).unwrap_or_else(|e| panic!("{e}"));
    vcpu.save().unwrap()
}

impl CpuState {
    fn msr(&mut self, index: u32, value: u64) {
        let mut msrs = self.msrs.iter_mut();
        let msr = msrs.find(|msr| msr.index == index);
        msr.expect("every KVM keeps it").value = Some(value);
    }
}

/// Something of the state, changed, and where that shows.
type Change = (fn(&mut CpuState), &'static [&'static str]);

const CHANGES: [Change; 19] = [
    (|s| s.registers[0] = 1, &["vCPU registers"]),
    (|s| s.registers[15] = 15, &["vCPU registers"]),
    (|s| s.registers[16] += 7, &["vCPU registers"]),
    (|s| s.registers[17] |= 0x41, &["vCPU registers"]),
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
    (|s| s.fpu.0[0] = 0x027f, &["FPU"]),
    (|s| s.fpu.0[8] = 0x1234_5678, &["FPU"]),
    (|s| s.fpu.0[6] = 0x1fa0, &["FPU"]),
    (|s| s.fpu.0[40] = 0xdead_beef, &["FPU"]),
    (|s| s.fpu.0[103] = 0xdead_beef, &["FPU"]),
    (|s| s.msr(0xc000_0082, 0x20_1000), &["MSRs"]),
    // KVM tells of a queued interrupt in both places.
    (
        |s| {
            s.events.interrupt[..2].copy_from_slice(&[1, 0x30]);
            s.system.interrupt_bitmap[0] = 1 << 0x30;
        },
        &["vCPU system registers", "events"],
    ),
    (|s| s.events.interrupt[3] = 1, &["events"]),
    // A single-step trap that is due: DR6.BS comes with it. And a page fault that is being delivered.
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
        assert_eq!(components, state.components(), "change {index}");
        assert_ne!(state.digest(), before.digest(), "change {index}");
        assert_eq!(
            differing(&before.components(), &components),
            names,
            "change {index}"
        );
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_msr_that_the_host_lacks_or_has_alone_is_named() {
    let ram = Ram::new(MIN_MIB).unwrap();
    let refused = |state: &CpuState| {
        let error = Vcpu::restore(ram.clone(), state).unwrap_err().to_string();
        assert!(error.contains("host of the same kind"), "{error}");
        error
    };
    let mut more = fresh();
    more.msrs.push(Msr {
        index: 0x10,
        value: Some(1),
    });
    assert!(refused(&more).contains("0x10 "));
    let mut fewer = fresh();
    let dropped = fewer.msrs.remove(0).index;
    assert!(refused(&fewer).contains(&format!("{dropped:#x}")));
    // A value that the CPU does not take: an address that is not canonical.
    let mut impossible = fresh();
    impossible.msr(0xc000_0082, 1 << 62);
    assert!(refused(&impossible).contains("0xc0000082"));
}

/// Every byte of a state, set to others: not decoded, refused by KVM, or taken; never a panic.
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
                Ok(state) => match Vcpu::restore(ram.clone(), &state) {
                    Ok(_) => taken += 1,
                    Err(_) => refused += 1,
                },
            }
        }
    }
    println!("{undecodable} undecodable, {refused} refused, {taken} taken");
    assert!(undecodable > 0 && refused > 0 && taken > 0);
}
