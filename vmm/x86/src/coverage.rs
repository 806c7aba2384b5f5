//! How much of the baseline is done, in numbers that a change must change here as well.

use crate::forms::{Meaning, baseline, meaning};
use iced_x86::{Code, CpuidFeature, Instruction};
use std::collections::BTreeMap;

/// What a form belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Integer,
    Privileged,
    Sse,
    Mmx,
    X87,
}

fn group(code: Code) -> Group {
    let features = code.cpuid_features();
    let has = |wanted: &[CpuidFeature]| features.iter().any(|f| wanted.contains(f));
    use CpuidFeature as F;
    if has(&[F::FPU, F::FPU287, F::FPU387]) || code == Code::Wait {
        Group::X87
    } else if has(&[F::SSE, F::SSE2, F::FXSR]) {
        Group::Sse
    } else if has(&[F::MMX]) {
        Group::Mmx
    } else if code.is_privileged() {
        Group::Privileged
    } else {
        Group::Integer
    }
}

/// The forms of the baseline in 64-bit mode.
pub fn forms() -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            info.is_instruction()
                && info.mode64()
                && code.cpuid_features().iter().all(|f| baseline(*f))
        })
        .collect()
}

fn meaning_of(code: Code) -> Meaning {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    meaning(&instruction)
}

#[test]
fn the_baseline_is_done_as_far_as_these_numbers_say() {
    // Done, #UD on purpose, not done yet.
    let mut counts: BTreeMap<Group, [usize; 3]> = BTreeMap::new();
    for code in forms() {
        let count = counts.entry(group(code)).or_default();
        match meaning_of(code) {
            Meaning::Does(_) => count[0] += 1,
            Meaning::Undefined(_) => count[1] += 1,
            Meaning::NotYet(_) => count[2] += 1,
            Meaning::Absent => panic!("{code:?} is of the baseline"),
        }
    }
    println!("{counts:#?}");
    let expected = [
        (Group::Integer, [733, 1, 0]),
        (Group::Privileged, [45, 3, 0]),
        (Group::Sse, [30, 0, 225]),
        (Group::Mmx, [0, 0, 60]),
        (Group::X87, [0, 0, 158]),
    ];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
}
