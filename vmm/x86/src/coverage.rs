//! That all of the baseline is done, in numbers that a change must change here as well.

use crate::block::OPTIONS;
use crate::decode::decode;
use crate::differential::{Set, computed};
use crate::forms::{Meaning, baseline, meaning};
use crate::state::Mode;
use iced_x86::{Code, CpuidFeature, Decoder, Instruction, Mnemonic};
use std::collections::{BTreeMap, HashSet};

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

/// The forms of the baseline that a mode has.
fn forms(mode: Mode) -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            let there = match mode {
                Mode::Long => info.mode64(),
                Mode::Compat32 => info.mode32(),
            };
            let known = code.cpuid_features().iter().all(|f| baseline(*f));
            info.is_instruction() && there && known
        })
        .collect()
}

fn meaning_of(code: Code) -> Meaning {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    meaning(&instruction)
}

/// How many forms are done, and how many raise #UD on purpose. None is missing.
fn counts(mode: Mode) -> Vec<(Group, [usize; 2])> {
    let mut counts: BTreeMap<Group, [usize; 2]> = BTreeMap::new();
    for code in forms(mode) {
        let count = counts.entry(group(code)).or_default();
        match meaning_of(code) {
            Meaning::Does(_) => count[0] += 1,
            Meaning::Undefined(why) => {
                println!("{code:?}: #UD, {why}");
                count[1] += 1;
            }
            Meaning::Absent => panic!("{code:?} is of the baseline, and not in the table"),
        }
    }
    println!("{mode:?}: {counts:?}");
    counts.into_iter().collect()
}

#[test]
fn the_baseline_is_done() {
    let expected = [
        (Group::Integer, [740, 1]),
        (Group::Privileged, [45, 3]),
        (Group::Sse, [255, 0]),
        (Group::Mmx, [60, 0]),
        (Group::X87, [158, 0]),
    ];
    assert_eq!(forms(Mode::Long).len(), 1262);
    assert_eq!(counts(Mode::Long), expected);
    let expected = [
        (Group::Integer, [627, 1]),
        (Group::Privileged, [42, 2]),
        (Group::Sse, [236, 0]),
        (Group::Mmx, [58, 0]),
        (Group::X87, [158, 0]),
    ];
    assert_eq!(counts(Mode::Compat32), expected);
}

/// Each form is tried somewhere: beside the host in random code, in a kernel of `tests/system`, or, as its
/// results are not the host's, in tests of its own.
#[test]
fn every_form_is_tried_somewhere() {
    let kernels = include_str!("../tests/system/kernels.s").to_lowercase();
    // Written there as bytes.
    let kernels = kernels + " retf iret int1 ud0 ud1 les lds";
    let words: HashSet<&str> = kernels.split(|c: char| !c.is_alphanumeric()).collect();
    for (mode, set) in [(Mode::Long, Set::All), (Mode::Compat32, Set::Compatible)] {
        let beside: HashSet<Code> = set.forms().into_iter().collect();
        let mut tried = [0; 5];
        let mut never = Vec::new();
        for code in forms(mode) {
            let name = format!("{:?}", code.mnemonic()).to_lowercase();
            let how = match () {
                () if beside.contains(&code) => 0,
                () if computed(code) => 1,
                () if matches!(meaning_of(code), Meaning::Undefined(_)) => 2,
                () if never_decoded(code) || narrow(code, mode) => 3,
                () if words.contains(name.as_str()) => 4,
                () => {
                    never.push(code);
                    continue;
                }
            };
            tried[how] += 1;
        }
        println!("{mode:?}: beside the host, computed, #UD, never decoded, in a kernel: {tried:?}");
        assert!(never.is_empty(), "{mode:?}: tried nowhere: {never:?}");
    }
}

/// Near branches with an operand size of 16 bits, which this CPU does not have in compatibility mode.
fn narrow(code: Code, mode: Mode) -> bool {
    let short = ["rel16", "rel8_16", "Retnw", "Jmp_rm16", "Call_rm16"];
    mode == Mode::Compat32 && short.iter().any(|part| format!("{code:?}").contains(part))
}

/// Forms that no bytes decode to: hints and markers, which all are one instruction that does nothing; what
/// is two instructions; AMD's near branches of 16 bits; and UD0 without operands.
pub fn never_decoded(code: Code) -> bool {
    use Mnemonic as M;
    use iced_x86::OpCodeOperandKind as Kind;
    let info = code.op_code();
    let short = [Kind::br16_1, Kind::br16_2];
    let near_16 = [
        Code::Retnw,
        Code::Retnw_imm16,
        Code::Call_rm16,
        Code::Jmp_rm16,
        Code::Ud0,
    ];
    info.fwait()
        || near_16.contains(&code)
        || info.op_kinds().iter().any(|kind| short.contains(kind))
        || matches!(
            code.mnemonic(),
            M::Nop
                | M::Endbr32
                | M::Endbr64
                | M::Prefetch
                | M::Prefetchw
                | M::Prefetchnta
                | M::Prefetcht0
                | M::Prefetcht1
                | M::Prefetcht2
        )
}

/// All opcodes with all ModRM bytes: each finds a handler, and each form of the baseline is found.
#[test]
fn every_encoding_finds_its_handler() {
    let prefixes: [&[u8]; 9] = [
        &[],
        &[0x66],
        &[0xf2],
        &[0xf3],
        &[0x67],
        &[0x48],
        &[0xf2, 0x48],
        &[0xf3, 0x48],
        &[0x66, 0x48],
    ];
    let mut seen = HashSet::new();
    for (mode, bits) in [(Mode::Long, 64), (Mode::Compat32, 32)] {
        for (prefix, second, opcode, modrm) in encodings(&prefixes) {
            let bytes = [prefix, second, &[opcode, modrm], &[0x25; 10]].concat();
            let instruction = Decoder::with_ip(bits, &bytes, 0x1000, OPTIONS).decode();
            decode(&instruction, mode);
            if mode == Mode::Long {
                seen.insert(instruction.code());
            }
        }
    }
    let forms = forms(Mode::Long).into_iter();
    let missing: Vec<Code> = forms
        .filter(|f| !seen.contains(f) && !never_decoded(*f))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Prefix, escape, opcode and ModRM.
fn encodings<'a>(prefixes: &'a [&'a [u8]]) -> impl Iterator<Item = (&'a [u8], &'a [u8], u8, u8)> {
    const ESCAPES: [&[u8]; 2] = [&[], &[0x0f]];
    let all = || 0..=u8::MAX;
    let prefixes = prefixes.iter();
    let escaped = prefixes.flat_map(|prefix| ESCAPES.iter().map(move |escape| (*prefix, *escape)));
    let coded = escaped.flat_map(move |(p, e)| all().map(move |opcode| (p, e, opcode)));
    coded.flat_map(move |(p, e, opcode)| all().map(move |modrm| (p, e, opcode, modrm)))
}
