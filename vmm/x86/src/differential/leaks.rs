//! Nothing of the host gets into what this CPU computes: not its rounding modes, not the core that the
//! thread runs on, not what ran before.

use super::assemble::{Assembled, assemble};
use super::generate::{Case, Generator, Pool};
use super::native::{Registers, mxcsr, pin, under};
use super::planted::{Wrong, while_wrong};
use super::soft::Soft;
use super::{Set, computed, layout, seed};
use iced_x86::{Code, Mnemonic};
use std::cell::Cell;

/// Pieces of code of each set.
const PIECES: u64 = 1500;
/// The host's MXCSR with another rounding mode, FTZ, DAZ and all flags, and its control word with another
/// rounding mode and single precision. Exceptions are masked, as they are in any Rust program.
const MXCSR: u32 = 0xffff;
const CONTROL: u16 = 0x0c7f;

/// Registers and memory afterwards; None if the code does not end.
type Outcome = Option<(Vec<u64>, Vec<u8>, Vec<Vec<u8>>)>;

fn cases() -> Vec<(Case, Assembled)> {
    let pool = Pool::new();
    let mut all = Vec::new();
    for set in Set::ALL {
        let mut forms = set.forms();
        // What is computed in software may lean on the host's floating point all the more.
        forms.extend(Code::values().filter(|code| computed(*code)));
        for piece in 0..PIECES {
            let seed = seed().wrapping_add(piece);
            let mut generator = Generator::new(seed, set.mode(), false, &pool);
            let case = generator.case(&forms, 16);
            let code = assemble(&case.code, layout::CODE.at, set.mode());
            all.push((case, code));
        }
    }
    all
}

fn outcome(soft: &mut Soft, (case, code): &(Case, Assembled)) -> Outcome {
    let areas = layout::WRITTEN.map(|area| layout::AREAS[area]);
    for area in areas {
        let bytes: Vec<u8> = (0..area.len).map(|n| (n * 37) as u8).collect();
        soft.write(area.at, &bytes);
    }
    soft.load(&code.bytes, case.mode);
    let mut before = Registers::NEW;
    (before.r, before.rflags, before.rip) = (case.r, case.rflags, layout::CODE.at);
    before.fx = case.fx;
    let after = soft.run(&before, code.end(), case.mode)?;
    let mut words = after.r.to_vec();
    words.extend([after.rflags, after.rip, after.trap, after.code, after.cr2]);
    let memory = areas.map(|area| soft.read(area.at, area.len));
    Some((words, after.fx.0.to_vec(), memory.to_vec()))
}

fn expect_same(what: &str, cases: &[(Case, Assembled)], ours: &[Outcome], theirs: &[Outcome]) {
    assert_eq!(ours.len(), theirs.len());
    for (index, (case, _)) in cases.iter().enumerate() {
        if ours[index] == theirs[index] {
            continue;
        }
        let codes: Vec<Code> = case.code.iter().map(|i| i.code()).collect();
        let both = [&ours[index], &theirs[index]].map(|outcome| {
            let (words, fx, _) = outcome.as_ref().expect("it ends");
            format!("{words:x?} {fx:x?}")
        });
        panic!(
            "{what}: piece {index} from seed {:#x}, {codes:?}\n{both:#?}",
            seed()
        );
    }
}

#[test]
fn neither_the_hosts_modes_nor_its_core_nor_history_make_a_difference() {
    let cases = cases();
    let mut soft = Soft::new();
    let first: Vec<Outcome> = cases.iter().map(|case| outcome(&mut soft, case)).collect();

    // The same CPU, which has run all of it before, in other modes of the host's.
    let modes = |case| under(MXCSR, CONTROL, || outcome(&mut soft, case));
    let other_modes: Vec<Outcome> = cases.iter().map(modes).collect();
    expect_same("under other modes", &cases, &first, &other_modes);

    // A new one that runs all of it backwards, pinned to each core in turn.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for core in 0..cores {
        let pinned = std::thread::scope(|scope| {
            let run = || {
                let mut soft = Soft::new();
                let mut all = Vec::new();
                if pin(core) {
                    all.extend(cases.iter().rev().map(|case| outcome(&mut soft, case)));
                    all.reverse();
                }
                all
            };
            scope.spawn(run).join().expect("it ends")
        });
        if !pinned.is_empty() {
            expect_same("on another core, backwards", &cases, &first, &pinned);
        }
    }
    println!("{} pieces of code, {cores} cores", cases.len());
}

/// Results that lean on the host's rounding mode, or on what ran before, are found.
#[test]
fn a_planted_leak_is_found() {
    thread_local!(static RUNS: Cell<u32> = const { Cell::new(0) });
    let of_modes: Wrong = |cpu, op, right| {
        let flow = right(cpu, op)?;
        cpu.fpu.xmm[usize::from(op.dst & 15)] ^= u128::from(mxcsr() >> 13 & 1);
        Ok(flow)
    };
    let of_history: Wrong = |cpu, op, right| {
        let flow = right(cpu, op)?;
        RUNS.set(RUNS.get() + 1);
        cpu.fpu.xmm[usize::from(op.dst & 15)] ^= u128::from(RUNS.get() >> 5);
        Ok(flow)
    };
    let cases = cases();
    for wrong in [of_modes, of_history] {
        let differs = while_wrong(Mnemonic::Addps, wrong, || {
            let mut soft = Soft::new();
            let first: Vec<Outcome> = cases.iter().map(|case| outcome(&mut soft, case)).collect();
            let again = |case| under(MXCSR, CONTROL, || outcome(&mut soft, case));
            let again: Vec<Outcome> = cases.iter().map(again).collect();
            first != again
        });
        assert!(differs);
    }
}
