//! What a machine expects of any CPU behind the trait, of each that there is.

use lockstep_loader::{start_state, tables};
use lockstep_memory::Ram;
use lockstep_memory::ram::{MIN_MIB, PAGE};
use lockstep_vcpu::{CpuBackend, CpuState, Exit, Run, Until, Vcpu};

const CODE: u64 = 0x20_0000;
const HANDLER: u64 = CODE + 0x100;
const DATA: u64 = 0x30_0000;
const IDT: u64 = 0x30_1000;
const VECTOR: u8 = 0x20;

/// An exit of each kind, then two with interrupts on.
const GUEST: &[u8] = &[
    0xb8, 0x11, 0, 0, 0, // mov eax, 0x11
    0xe6, 0x80, // out 0x80, al
    0xe5, 0x40, // in eax, 0x40
    0x89, 0x04, 0x25, 0, 0, 0x30, 0, // mov [DATA], eax
    0xbb, 0, 0, 0, 0xd0, // mov ebx, 0xd0000000
    0x8b, 0x0b, // mov ecx, [rbx]
    0x89, 0x4b, 0x04, // mov [rbx + 4], ecx
    0xfb, // sti
    0x90, // nop
    0x39, 0xc0, // cmp eax, eax
    0xe6, 0x81, // out 0x81, al
    0x90, // nop
    0x39, 0xc0, // cmp eax, eax
    0xe6, 0x83, // out 0x83, al
    0xf4, // hlt
];
/// Instructions, the HLT included.
const STEPS: u64 = 15;
/// cmp eax, eax; out 0x82, al; iretq.
const ON_INTERRUPT: &[u8] = &[0x39, 0xc0, 0xe6, 0x82, 0x48, 0xcf];

/// A CPU before the first instruction of [`GUEST`], and its memory.
fn booted(backend: &dyn CpuBackend) -> (Box<dyn Vcpu>, Ram) {
    let ram = Ram::new(MIN_MIB).unwrap();
    tables::build(&ram, &[], CODE).unwrap();
    // The tables give no right to execute where no image is.
    let entry = entry_of(&ram, CODE);
    let mapped = ram.read_u64(entry).unwrap();
    ram.write_u64(entry, mapped & !(1 << 63)).unwrap();
    ram.write(CODE, GUEST).unwrap();
    ram.write(HANDLER, ON_INTERRUPT).unwrap();
    let gate = HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16 & 0xffff) << 48;
    ram.write_u64(IDT + 16 * u64::from(VECTOR), gate).unwrap();
    let mut state = start_state(CODE);
    state.system.tables[1] = (IDT, 0xfff);
    (backend.cpu(ram.clone(), &state).unwrap(), ram)
}

/// The address of the lowest page-table entry that maps `address`.
fn entry_of(ram: &Ram, address: u64) -> u64 {
    let mut table = tables::PML4;
    for shift in [39, 30, 21] {
        let entry = table + 8 * (address >> shift & 511);
        let value = ram.read_u64(entry).unwrap();
        if value & 1 << 7 != 0 {
            return entry;
        }
        table = value & 0x000f_ffff_ffff_f000;
    }
    table + 8 * (address >> 12 & 511)
}

/// Runs to the next exit, and answers a read.
fn step(cpu: &mut dyn Vcpu) -> Exit {
    loop {
        match cpu.run(Until::GUEST).unwrap() {
            Run::Kicked => {}
            Run::Exit(exit) => {
                if let Exit::PioIn { len, .. } | Exit::MmioRead { len, .. } = exit {
                    cpu.answer(&[0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0][..len]);
                }
                return exit;
            }
        }
    }
}

fn out(port: u16, value: u8) -> Exit {
    Exit::PioOut {
        port,
        data: [value, 0, 0, 0],
        len: 1,
    }
}

/// The exits of [`GUEST`] up to its HLT, an interrupt at the first OUT that takes it.
fn exits() -> Vec<Exit> {
    let (addr, len) = (0xd000_0000, 4);
    let data = [0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0];
    vec![
        out(0x80, 0x11),
        Exit::PioIn { port: 0x40, len },
        Exit::MmioRead { addr, len },
        Exit::MmioWrite {
            addr: addr + 4,
            data,
            len,
        },
        out(0x81, 0x78),
        out(0x82, 0x78),
        out(0x83, 0x78),
        Exit::Hlt,
    ]
}

/// Takes the guest to its HLT by way of `moved`, which may change the CPU at each exit: what the CPU was at each.
fn run(
    backend: &dyn CpuBackend,
    mut moved: impl FnMut(Box<dyn Vcpu>, &Ram) -> Box<dyn Vcpu>,
) -> Vec<(Exit, CpuState)> {
    let (mut cpu, ram) = booted(backend);
    let mut seen = Vec::new();
    loop {
        let exit = step(&mut *cpu);
        assert_eq!(cpu.check(), cpu.save().unwrap().registers.check());
        if exit == out(0x81, 0x78) {
            assert!(cpu.interrupts_enabled() && cpu.ready());
            cpu.deliver(VECTOR).unwrap();
        }
        assert!(!cpu.exception_due());
        let state = cpu.save().unwrap();
        seen.push((exit, state));
        if exit == Exit::Hlt {
            return seen;
        }
        cpu = moved(cpu, &ram);
    }
}

/// The guest exits as it is written, is interrupted where it takes it, and its answers arrive.
fn exits_come_in_order(backend: &dyn CpuBackend) {
    let seen = run(backend, |cpu, _| cpu);
    let order: Vec<Exit> = seen.iter().map(|(exit, _)| *exit).collect();
    assert_eq!(order, exits());
}

/// A CPU that is saved when it is settled goes on as the one did that was not.
fn a_saved_cpu_goes_on_elsewhere(backend: &dyn CpuBackend) {
    let undisturbed = run(backend, |cpu, _| cpu);
    let moved = run(backend, |mut cpu, ram| {
        assert_eq!(cpu.settle().unwrap(), Run::Kicked);
        let state = cpu.save().unwrap();
        drop(cpu);
        let next = backend.cpu(ram.clone(), &state).unwrap();
        assert_eq!(next.save().unwrap(), state);
        next
    });
    for (ours, theirs) in undisturbed.iter().zip(&moved) {
        assert_eq!(ours, theirs);
    }
}

/// Pages that the guest or the VMM writes are told once, to each that asks.
fn written_pages_are_told(backend: &dyn CpuBackend) {
    let (mut cpu, ram) = booted(backend);
    let reader = cpu.dirty_pages().reader_from_now().unwrap();
    let other = cpu.dirty_pages().reader_from_now().unwrap();
    while step(&mut *cpu) != Exit::Hlt {}
    ram.write(0x50_0000, &[1]).unwrap();
    for reader in [&reader, &other] {
        let told = reader.take().unwrap();
        assert!(told.contains(DATA as usize / PAGE), "by the guest");
        assert!(told.contains(0x50_0000 / PAGE), "by the VMM");
        assert!(!told.contains(0x60_0000 / PAGE), "by nobody");
        assert!(!reader.take().unwrap().contains(DATA as usize / PAGE));
    }
}

fn conforms(backend: &dyn CpuBackend) {
    backend.available().unwrap();
    exits_come_in_order(backend);
    a_saved_cpu_goes_on_elsewhere(backend);
    written_pages_are_told(backend);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn kvm_conforms() {
    conforms(&lockstep_kvm::Kvm);
}

#[test]
fn the_software_cpu_conforms() {
    conforms(&lockstep_x86::Soft);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn both_have_the_same_state_at_each_exit_and_either_goes_on_as_the_other() {
    let soft: &dyn CpuBackend = &lockstep_x86::Soft;
    let kvm: &dyn CpuBackend = &lockstep_kvm::Kvm;
    let digests = |seen: Vec<(Exit, CpuState)>| -> Vec<(Exit, u64)> {
        let digest = |(exit, state): (Exit, CpuState)| (exit, state.digest());
        seen.into_iter().map(digest).collect()
    };
    let on_kvm = digests(run(kvm, |cpu, _| cpu));
    assert_eq!(digests(run(soft, |cpu, _| cpu)), on_kvm);
    // From one to the other at each exit.
    let mut next = [soft, kvm].into_iter().cycle();
    let both = run(kvm, |mut cpu, ram| {
        assert_eq!(cpu.settle().unwrap(), Run::Kicked);
        let state = cpu.save().unwrap();
        drop(cpu);
        let backend = next.next().expect("it has no end");
        backend.cpu(ram.clone(), &state).unwrap()
    });
    assert_eq!(digests(both), on_kvm);
}

/// A CPU that counts makes an exit after so many steps, however they are cut, and where interrupts are taken.
#[test]
fn the_software_cpu_counts_exactly() {
    let whole = run(&lockstep_x86::Soft, |cpu, _| cpu);
    let end = whole.last().expect("it ends").1.counters.steps;
    // The interrupt's handler has three, and IRETQ.
    assert_eq!(end, STEPS + 3);
    for each in [1, 2, 3, 5] {
        let (mut cpu, _ram) = booted(&lockstep_x86::Soft);
        let (mut at, mut order) = (0, Vec::new());
        loop {
            let until = Until {
                steps: at + each,
                interruptible: false,
            };
            match cpu.run(until).unwrap() {
                Run::Exit(Exit::Steps) => {
                    at += each;
                    assert_eq!(cpu.steps(), at);
                    continue;
                }
                Run::Exit(exit) => order.push(exit),
                Run::Kicked => panic!("nobody kicks"),
            }
            at = cpu.steps();
            match order.last() {
                Some(Exit::PioIn { len, .. } | Exit::MmioRead { len, .. }) => {
                    cpu.answer(&[0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0][..*len]);
                }
                Some(Exit::Hlt) => break,
                _ => {}
            }
        }
        let without: Vec<Exit> = exits()
            .into_iter()
            .filter(|e| *e != out(0x82, 0x78))
            .collect();
        assert_eq!(order, without, "{each} at a time");
    }
}

#[test]
fn the_software_cpu_stops_where_interrupts_are_taken() {
    let (mut cpu, _ram) = booted(&lockstep_x86::Soft);
    let until = Until {
        interruptible: true,
        ..Until::GUEST
    };
    for _ in 0..4 {
        match cpu.run(until).unwrap() {
            Run::Exit(Exit::PioIn { len, .. } | Exit::MmioRead { len, .. }) => {
                assert!(!cpu.ready());
                cpu.answer(&[0; 8][..len]);
            }
            Run::Exit(_) => assert!(!cpu.ready()),
            Run::Kicked => panic!("nobody kicks"),
        }
    }
    // Not after STI, but one instruction later.
    assert_eq!(cpu.run(until).unwrap(), Run::Exit(Exit::Interruptible));
    assert!(cpu.ready());
    let nop_passed = CODE + GUEST.iter().position(|byte| *byte == 0xfb).unwrap() as u64 + 2;
    assert_eq!(cpu.check().rip, nop_passed);
    cpu.deliver(VECTOR).unwrap();
    assert_eq!(cpu.run(Until::GUEST).unwrap(), Run::Exit(out(0x82, 0)));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
#[should_panic(expected = "KVM does not count instructions")]
fn kvm_is_not_asked_to_count() {
    let (mut cpu, _ram) = booted(&lockstep_kvm::Kvm);
    let steps = Until {
        steps: 10,
        ..Until::GUEST
    };
    let _ = cpu.run(steps);
}

/// A kick gets a guest out that computes for ever.
#[test]
fn a_kick_ends_a_run_of_the_software_cpu_once() {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    let (mut cpu, ram) = booted(&lockstep_x86::Soft);
    ram.write(CODE, &[0xeb, 0xfe]).unwrap();
    let kick = Arc::new(AtomicBool::new(true));
    cpu.heed(kick.clone());
    assert_eq!(cpu.run(Until::GUEST).unwrap(), Run::Kicked);
    assert!(!kick.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(cpu.check().rip, CODE);
}
