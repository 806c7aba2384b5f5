//! What a debugger asks of the CPU: it stops where it is told to, exactly, and the guest computes the same.

use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::debug::{DebugStop, Watched, Watchpoint, When};
use lockstep_vcpu::{CpuBackend, CpuState, Exit, Run, Until, Vcpu};
use lockstep_x86::Soft;

const CODE: u64 = 0x20_0000;
const LOOP: u64 = CODE + 0xc;
const STOS: u64 = CODE + 0x24;
const WORDS: u64 = 0x30_0000;
const BYTES: u64 = 0x30_1000;
/// Where #PF goes, and the page that is not there.
const HANDLER: u64 = 0x20_1000;
const MISSING: u64 = CODE + 0x28;
/// Steps until HLT has completed, those of the handler among them.
const STEPS: u64 = 2 + 5 * 5 + 2 + 10 + 1 + 3 + 1 + 1;

/// Five rounds of a loop with a load and two instructions that load and store, a REP of ten bytes, a load that
/// faults once, HLT.
const PROGRAM: [&[u8]; 13] = [
    &[0xb9, 5, 0, 0, 0],                // mov ecx, 5
    &[0x48, 0xc7, 0xc3, 0, 0, 0x30, 0], // mov rbx, WORDS
    &[0x48, 0x8b, 0x03],                // mov rax, [rbx]
    &[0x48, 0x01, 0x43, 0x08],          // add [rbx + 8], rax
    &[0x48, 0xff, 0x03],                // inc qword [rbx]
    &[0xff, 0xc9],                      // dec ecx
    &[0x75, 0xf2],                      // jnz LOOP
    &[0xbf, 0, 0x10, 0x30, 0],          // mov edi, BYTES
    &[0xb9, 10, 0, 0, 0],               // mov ecx, 10
    &[0xf3, 0xaa],                      // STOS: rep stosb
    &[0x31, 0xd2],                      // xor edx, edx
    &[0x4c, 0x8b, 0x02],                // mov r8, [rdx], which is mapped by the handler
    &[0xf4],                            // hlt
];
/// Maps page 0 and returns.
const MAPS: [&[u8]; 2] = [
    // add qword [0x13000], 7; the error code goes, and back.
    &[0x48, 0x83, 0x04, 0x25, 0, 0x30, 1, 0, 7],
    &[0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf],
];

fn put(ram: &Ram, at: u64, words: &[u64]) {
    for (index, word) in words.iter().enumerate() {
        ram.write_u64(at + 8 * index as u64, *word).unwrap();
    }
}

/// A CPU at the program's beginning. All but page 0 is mapped one to one.
fn cpu() -> (Ram, Box<dyn Vcpu>) {
    let ram = Ram::new(MIN_MIB).unwrap();
    ram.write(CODE, &PROGRAM.concat()).unwrap();
    ram.write(HANDLER, &MAPS.concat()).unwrap();
    put(&ram, 0x1_0000, &[0x1_1007]);
    put(&ram, 0x1_1000, &[0x1_2007]);
    put(&ram, 0x1_2000, &[0x1_3007, 0x20_0087]);
    for page in 1..512 {
        put(&ram, 0x1_3000 + 8 * page, &[page << 12 | 7]);
    }
    put(
        &ram,
        0x1000,
        &[0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff],
    );
    put(
        &ram,
        0x3000 + 16 * 14,
        &[HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16) << 48],
    );
    let mut state = lockstep_loader::start_state(CODE);
    state.system.tables[1] = (0x3000, 0xfff);
    let cpu = Soft
        .cpu(ram.clone(), &state)
        .unwrap_or_else(|e| panic!("{e}"));
    (ram, cpu)
}

/// The state at HLT, and all of memory.
fn end(ram: &Ram, cpu: &dyn Vcpu) -> (CpuState, Vec<u8>) {
    let mut memory = vec![0; ram.len()];
    ram.read(0, &mut memory).unwrap();
    (cpu.save().unwrap(), memory)
}

/// Runs with what `ask` asks for, and tells all stops: why, when, at which RIP. The end must be that of a run
/// without a debugger.
fn stops(ask: fn(&mut dyn Vcpu)) -> Vec<(DebugStop, When, u64)> {
    let (ram, mut alone) = cpu();
    let run = alone.run(Until::GUEST).unwrap();
    assert_eq!(run, Run::Exit(Exit::Hlt));
    let expected = end(&ram, &*alone);
    assert_eq!(expected.0.counters.steps, STEPS);
    let (ram, mut cpu) = cpu();
    ask(&mut *cpu);
    let mut stops = Vec::new();
    while cpu.run(Until::GUEST).unwrap() == Run::Kicked {
        let debugged = cpu.debugged().expect("this CPU has a way in");
        let why = debugged.take_stop().expect("nothing else kicks it");
        let now = debugged.when();
        stops.push((why, now, debugged.state().registers.rip));
        debugged.pass();
        if why == DebugStop::Moment {
            debugged.stop_at(Some(now.next()));
        }
    }
    assert!(expected == end(&ram, &*cpu), "the guest noticed");
    stops
}

fn watch(cpu: &mut dyn Vcpu, address: u64, len: u64, kind: Watched) {
    let watched = Watchpoint { address, len, kind };
    cpu.debugged()
        .expect("a way in")
        .set_watchpoints(&[watched]);
}

/// The steps at which it stopped.
fn steps(stops: &[(DebugStop, When, u64)]) -> Vec<u64> {
    stops.iter().map(|(_, when, _)| when.steps).collect()
}

#[test]
fn a_breakpoint_stops_before_its_instruction_each_time() {
    let stops = stops(|cpu| {
        cpu.debugged()
            .unwrap()
            .set_breakpoints(&[LOOP, LOOP + 7, LOOP + 7])
    });
    let expected: Vec<u64> = (0..5)
        .flat_map(|round| [2 + 5 * round, 4 + 5 * round])
        .collect();
    assert_eq!(steps(&stops), expected);
    for (index, (why, _, rip)) in stops.into_iter().enumerate() {
        assert_eq!(
            (why, rip),
            (DebugStop::Breakpoint, LOOP + 7 * (index as u64 % 2))
        );
    }
}

#[test]
fn a_watchpoint_stops_behind_each_access_of_its_kind() {
    let writes = stops(|cpu| watch(cpu, WORDS, 8, Watched::Write));
    // The last instruction before was INC.
    assert_eq!(steps(&writes), [5, 10, 15, 20, 25]);
    assert!(writes.iter().all(|stop| stop.2 == LOOP + 10), "{writes:x?}");
    let reads = stops(|cpu| watch(cpu, WORDS + 7, 1, Watched::Read));
    assert_eq!(steps(&reads), [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]);
    let both = stops(|cpu| watch(cpu, WORDS + 8, 2, Watched::Access));
    assert_eq!(steps(&both), [4, 9, 14, 19, 24]);
    assert_eq!(stops(|cpu| watch(cpu, WORDS + 16, 8, Watched::Access)), []);
    assert_eq!(stops(|cpu| watch(cpu, WORDS - 8, 8, Watched::Access)), []);
}

#[test]
fn one_iteration_of_many_is_found() {
    let stops = stops(|cpu| watch(cpu, BYTES + 5, 1, Watched::Write));
    assert_eq!(steps(&stops), [29 + 6]);
    assert_eq!(stops[0].2, STOS);
}

#[test]
fn a_delivery_is_a_moment_of_its_own() {
    let fault = stops(|cpu| {
        cpu.debugged()
            .unwrap()
            .set_breakpoints(&[MISSING - 2, HANDLER])
    });
    let before = 2 + 25 + 2 + 10;
    let [(_, first, _), (_, handler, rip)] = fault[..] else {
        panic!("{fault:x?}");
    };
    assert_eq!((first, rip), (When::step(before), HANDLER));
    assert_eq!(handler, When::step(before + 1).next());
    // The frame is written while the exception is delivered.
    let frame = stops(|cpu| watch(cpu, 0x7fd8, 8, Watched::Write));
    assert_eq!(frame.len(), 1);
    assert_eq!((frame[0].1, frame[0].2), (handler, HANDLER));
}

#[test]
fn every_moment_can_be_stopped_at() {
    let stops = stops(|cpu| cpu.debugged().unwrap().stop_at(Some(When::step(0))));
    // HLT completes with its exit.
    assert_eq!(stops.len() as u64, STEPS + 1);
    assert!(stops.is_sorted_by(|a, b| a.1 < b.1));
    let deliveries = stops.iter().filter(|stop| stop.1.deliveries > 0);
    assert_eq!(deliveries.count(), 1);
}

#[test]
fn an_exit_that_is_due_comes_before_a_stop() {
    let (_, mut cpu) = cpu();
    cpu.debugged().unwrap().stop_at(Some(When::step(7)));
    let until = Until {
        steps: 7,
        interruptible: false,
    };
    assert_eq!(cpu.run(until).unwrap(), Run::Exit(Exit::Steps));
    let later = Until { steps: 9, ..until };
    assert_eq!(cpu.run(later).unwrap(), Run::Kicked);
    let debugged = cpu.debugged().unwrap();
    assert_eq!(debugged.take_stop(), Some(DebugStop::Moment));
    assert_eq!(debugged.when(), When::step(7));
}

#[test]
fn addresses_are_translated_by_the_guests_tables_without_a_trace() {
    let (ram, mut cpu) = cpu();
    let table = ram.read_u64(0x1_3000 + 8 * 5).unwrap();
    let debugged = cpu.debugged().unwrap();
    assert_eq!(debugged.translate(0x5123), Some(0x5123));
    assert_eq!(debugged.translate(WORDS + 9), Some(WORDS + 9));
    for missing in [0, 0x40_0000, 1 << 39, 1 << 47, u64::MAX] {
        assert_eq!(debugged.translate(missing), None, "{missing:#x}");
    }
    assert_eq!(ram.read_u64(0x1_3000 + 8 * 5).unwrap(), table);
}
