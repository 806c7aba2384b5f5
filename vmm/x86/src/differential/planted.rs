//! Errors put into handlers, each of which the comparison has to find.

use super::campaign::{Bounds, run};
use super::pair::Pair;
use super::{Set, masked};
use crate::coverage::never_decoded;
use crate::exception::Exception;
use crate::flags::{AF, CF, Flags, OF, PF, ZF};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::state::{Cpu, Stop, gpr};
use iced_x86::{Code, Mnemonic as M};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Runs an instruction wrongly, with the right handler at hand.
pub type Wrong = fn(&mut Cpu, &Op, Handler) -> Done<Flow>;

/// Which instructions are wrong.
#[derive(Clone, Copy)]
enum Which {
    Mnemonic(M),
    Form(Code),
}

thread_local! {
    static PLANT: Cell<Option<(Which, Wrong)>> = const { Cell::new(None) };
    /// The right handlers, by where the instruction ends.
    static RIGHT: RefCell<HashMap<u64, Handler>> = RefCell::default();
}

/// The handler for an instruction, or what this thread has put in its place.
pub fn planted(form: &Form, right: Handler) -> Handler {
    let code = form.instruction.code();
    match PLANT.get() {
        Some((Which::Mnemonic(name), _)) if code.mnemonic() == name => {}
        Some((Which::Form(form), _)) if code == form => {}
        _ => return right,
    }
    RIGHT.with_borrow_mut(|all| all.insert(form.instruction.next_ip(), right));
    wrong
}

fn wrong(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let right = RIGHT.with_borrow(|all| all[&op.next]);
    let (_, wrong) = PLANT.get().expect("it is planted while it runs");
    wrong(cpu, op, right)
}

/// Flips status flags after the instruction.
fn flip(cpu: &mut Cpu, op: &Op, right: Handler, flags: u64) -> Done<Flow> {
    let flow = right(cpu, op)?;
    cpu.flags = Flags::from_status(cpu.flags.status() ^ flags);
    Ok(flow)
}

/// Runs the instruction with another count in CL.
fn with_count(cpu: &mut Cpu, op: &Op, right: Handler, count: u64) -> Done<Flow> {
    let old = std::mem::replace(&mut cpu.r[gpr::CX], count);
    let flow = right(cpu, op);
    if cpu.r[gpr::CX] == count {
        cpu.r[gpr::CX] = old;
    }
    flow
}

/// Runs the instruction with these bits of MXCSR clear.
fn without_mxcsr(cpu: &mut Cpu, op: &Op, right: Handler, bits: u32) -> Done<Flow> {
    let kept = cpu.fpu.mxcsr & bits;
    cpu.fpu.mxcsr &= !bits;
    let flow = right(cpu, op);
    cpu.fpu.mxcsr |= kept;
    flow
}

/// Changes the page fault that the instruction raised.
fn other_fault(cpu: &mut Cpu, op: &Op, right: Handler, change: fn(&mut Exception)) -> Done<Flow> {
    let flow = right(cpu, op);
    if let (Err(_), Stop::Exception(exception)) = (&flow, &mut cpu.stop) {
        change(exception);
    }
    flow
}

/// Errors by what is wrong.
#[rustfmt::skip]
const ERRORS: [(&str, M, Wrong); 34] = [
    ("ADC's AF", M::Adc, |cpu, op, right| flip(cpu, op, right, AF)),
    ("ADC without the carry's effect on OF", M::Adc, |cpu, op, right| {
        let carry = cpu.flags.carry();
        flip(cpu, op, right, if carry { OF } else { 0 })
    }),
    ("INC changes CF", M::Inc, |cpu, op, right| flip(cpu, op, right, CF)),
    ("PF of a result", M::Xor, |cpu, op, right| flip(cpu, op, right, PF)),
    ("undefined AF after AND", M::And, |cpu, op, right| flip(cpu, op, right, AF)),
    ("RCL's count has 5 bits, with 64-bit operands too", M::Rcl, |cpu, op, right| {
        let count = cpu.r[gpr::CX];
        with_count(cpu, op, right, count & !0xe0)
    }),
    ("SHLD's count is not masked", M::Shld, |cpu, op, right| {
        let count = cpu.r[gpr::CX];
        with_count(cpu, op, right, if count & 0xff > 63 { 63 } else { count })
    }),
    ("SAR's OF", M::Sar, |cpu, op, right| flip(cpu, op, right, OF)),
    ("ZF after IMUL", M::Imul, |cpu, op, right| flip(cpu, op, right, ZF)),
    ("BSF of 0 writes its destination", M::Bsf, |cpu, op, right| {
        let flow = right(cpu, op)?;
        if cpu.flags.status() & ZF != 0 {
            cpu.r[usize::from(op.dst)] = 0;
        }
        Ok(flow)
    }),
    ("DIV whose quotient is too large goes on", M::Div, |cpu, op, right| {
        Ok(right(cpu, op).unwrap_or(Flow::Next))
    }),
    ("MOVSX extends with zeros", M::Movsx, |cpu, op, right| {
        let flow = right(cpu, op)?;
        cpu.r[usize::from(op.dst)] &= 0x7fff;
        Ok(flow)
    }),
    ("CMOV of 32 bits that does not move leaves the upper half", M::Cmovb, |cpu, op, right| {
        let old = cpu.r[usize::from(op.dst)];
        let (moves, flow) = (cpu.flags.carry(), right(cpu, op)?);
        if !moves {
            cpu.r[usize::from(op.dst)] = old;
        }
        Ok(flow)
    }),
    ("PUSH that faults moves RSP", M::Push, |cpu, op, right| {
        let flow = right(cpu, op);
        if flow.is_err() {
            cpu.r[gpr::SP] = cpu.r[gpr::SP].wrapping_sub(8);
        }
        flow
    }),
    ("MOVS that faults counts the iteration", M::Movsb, |cpu, op, right| {
        let flow = right(cpu, op);
        if flow.is_err() {
            cpu.r[gpr::CX] = cpu.r[gpr::CX].wrapping_sub(1);
        }
        flow
    }),
    ("REPE CMPS goes on at a difference", M::Cmpsb, |cpu, op, right| {
        match right(cpu, op)? {
            Flow::Next => {
                cpu.r[gpr::CX] = cpu.r[gpr::CX].wrapping_sub(1);
                Ok(Flow::Next)
            }
            flow => Ok(flow),
        }
    }),
    ("a store's error code is a load's", M::Mov, |cpu, op, right| {
        other_fault(cpu, op, right, |fault| fault.code = fault.code.map(|code| code & !2))
    }),
    ("CR2 is that of the other page", M::Add, |cpu, op, right| {
        other_fault(cpu, op, right, |fault| fault.detail = fault.detail.map(|at| at & !0xfff))
    }),
    ("CMPXCHG that fails leaves RAX", M::Cmpxchg, |cpu, op, right| {
        let old = cpu.r[gpr::AX];
        let flow = right(cpu, op)?;
        cpu.r[gpr::AX] = old;
        Ok(flow)
    }),
    ("LOOP counts down RCX with a 32-bit address size", M::Loop, |cpu, op, right| {
        let old = cpu.r[gpr::CX];
        let flow = right(cpu, op)?;
        cpu.r[gpr::CX] = old.wrapping_sub(1);
        Ok(flow)
    }),
    ("XLAT with AL's sign", M::Xlatb, |cpu, op, right| {
        let old = cpu.r[gpr::AX];
        if old & 0x80 != 0 {
            cpu.r[gpr::AX] = old & !0x80;
        }
        let flow = right(cpu, op);
        if flow.is_err() {
            cpu.r[gpr::AX] = old;
        }
        flow
    }),
    ("CVTSD2SI rounds to nearest in each mode", M::Cvtsd2si, |cpu, op, right| without_mxcsr(cpu, op, right, 0x6000)),
    ("MULPS without DAZ", M::Mulps, |cpu, op, right| without_mxcsr(cpu, op, right, 0x40)),
    ("MULSD without FTZ", M::Mulsd, |cpu, op, right| without_mxcsr(cpu, op, right, 0x8000)),
    ("SQRTPS sets no flags", M::Sqrtps, |cpu, op, right| {
        let old = cpu.fpu.mxcsr;
        let flow = right(cpu, op);
        cpu.fpu.mxcsr = old;
        flow
    }),
    ("MAXSD of a NaN gives the first operand", M::Maxsd, |cpu, op, right| {
        let old = cpu.fpu.xmm[usize::from(op.dst & 15)];
        let invalid = cpu.fpu.mxcsr & 1;
        let flow = right(cpu, op)?;
        if cpu.fpu.mxcsr & 1 > invalid {
            cpu.fpu.xmm[usize::from(op.dst & 15)] = old;
        }
        Ok(flow)
    }),
    ("UCOMISS leaves OF", M::Ucomiss, |cpu, op, right| {
        let old = cpu.flags.status() & OF;
        flip(cpu, op, right, old)
    }),
    ("PMADDWD of the least words", M::Pmaddwd, |cpu, op, right| {
        let flow = right(cpu, op)?;
        let value = &mut cpu.fpu.xmm[usize::from(op.dst & 15)];
        if *value & 0xffff_ffff == 0x8000_0000 {
            *value ^= 0xffff_ffff;
        }
        Ok(flow)
    }),
    ("PADDUSB does not saturate", M::Paddusb, |cpu, op, right| {
        let flow = right(cpu, op)?;
        let value = &mut cpu.fpu.xmm[usize::from(op.dst & 15)];
        if *value & 0xff == 0xff {
            *value ^= 0x80;
        }
        Ok(flow)
    }),
    ("MOVAPS needs no alignment", M::Movaps, |cpu, op, right| Ok(right(cpu, op).unwrap_or(Flow::Next))),
    ("FADD's precision is 64 bits", M::Fadd, |cpu, op, right| {
        let old = cpu.fpu.fcw;
        cpu.fpu.fcw |= 0x300;
        let flow = right(cpu, op);
        cpu.fpu.fcw = old;
        flow
    }),
    ("FIST leaves C1", M::Fistp, |cpu, op, right| {
        let old = cpu.fpu.fsw & 0x200;
        let flow = right(cpu, op)?;
        cpu.fpu.fsw = cpu.fpu.fsw & !0x200 | old;
        Ok(flow)
    }),
    ("FXAM of an empty register", M::Fxam, |cpu, op, right| {
        let flow = right(cpu, op)?;
        if cpu.fpu.fsw & 0x4100 == 0x4100 {
            cpu.fpu.fsw &= !0x100;
        }
        Ok(flow)
    }),
    ("EMMS empties no register", M::Emms, |cpu, op, right| {
        let flow = right(cpu, op)?;
        cpu.fpu.full = 0xff;
        Ok(flow)
    }),
];

/// Does something while all instructions of this name are wrong, in this thread.
pub fn while_wrong<T>(mnemonic: M, wrong: Wrong, run: impl FnOnce() -> T) -> T {
    PLANT.set(Some((Which::Mnemonic(mnemonic), wrong)));
    let value = run();
    PLANT.set(None);
    RIGHT.with_borrow_mut(HashMap::clear);
    value
}

/// Those of them that concern flags which the manual leaves undefined.
const UNDEFINED: [&str; 2] = ["undefined AF after AND", "ZF after IMUL"];

/// Plants an error and looks for it: after how many cases was it found?
fn look(
    pair: &mut Pair,
    which: Which,
    wrong: Wrong,
    set: Set,
    forms: &[Code],
    most: u64,
) -> Option<u64> {
    PLANT.set(Some((which, wrong)));
    let bounds = Bounds {
        cases: most,
        enough: 1,
        pieces: (0, 1),
    };
    let outcome = run(pair, (set.mode(), forms), bounds);
    PLANT.set(None);
    RIGHT.with_borrow_mut(HashMap::clear);
    (!outcome.found.is_empty()).then_some(outcome.cases)
}

/// Cases in which each of them is to be found, among all forms.
const MOST: u64 = 400_000;

#[test]
fn each_planted_error_is_found() {
    let forms = Set::All.forms();
    let mut pair = Pair::new(masked());
    let mut missed = Vec::new();
    for (name, mnemonic, wrong) in ERRORS {
        if masked() && UNDEFINED.contains(&name) {
            continue;
        }
        let found = look(
            &mut pair,
            Which::Mnemonic(mnemonic),
            wrong,
            Set::All,
            &forms,
            MOST,
        );
        match found {
            Some(cases) => println!("{name}: found in {cases} cases"),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    // And without one nothing is found in as many.
    let bounds = Bounds {
        cases: MOST / 10,
        enough: 1,
        pieces: (0, 1),
    };
    let outcome = run(&mut pair, (Set::All.mode(), &forms), bounds);
    assert!(outcome.found.is_empty(), "{:?}", outcome.found);
}

/// What a form does is compared, for each form: CF and RBP are wrong after it, or RBP where it faults.
#[test]
fn an_error_in_any_form_is_found() {
    let wrong: Wrong = |cpu, op, right| {
        let flow = flip(cpu, op, right, CF);
        cpu.r[gpr::BP] ^= 1;
        flow
    };
    let mut pair = Pair::new(masked());
    let mut missed = Vec::new();
    for set in [Set::All, Set::Compatible] {
        let mut forms = set.forms();
        // Of what decodes to another form, that one counts.
        forms.retain(|form| !never_decoded(*form));
        let alone = |form: &Code| {
            let which = Which::Form(*form);
            look(&mut pair, which, wrong, set, &[*form], 2000).is_none()
        };
        let these: Vec<Code> = forms.iter().copied().filter(alone).collect();
        println!("{set:?}: {} forms", forms.len());
        missed.extend(these);
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
