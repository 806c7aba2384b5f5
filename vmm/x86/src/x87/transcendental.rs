//! Functions that are computed in software, because processors differ in the last bits.
//!
//! The result is that of [`functions`](super::functions), which is within 2^-115 of the true one, rounded to
//! 64 bits in the guest's direction: so it is off by less than 0.51 units in the last place. Angles are
//! reduced by the π of 66 bits that the manual gives. F2XM1 leaves an operand beyond ±1 as it is, and
//! FYL2XP1 takes one of -1 or less for invalid; the manual leaves both undefined.

use super::functions;
use super::host::{Job, arithmetic};
use super::round::round;
use super::stack::{INDEFINITE, fsw};
use super::wide::Wide;
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::state::Cpu;

const ONE: u128 = 0x3fff_8000_0000_0000_0000;
const INFINITY: u128 = 0x7fff_8000_0000_0000_0000;
const SIGN: u128 = 1 << 79;
const DE: u16 = 2;
const ZE: u16 = 4;

/// A result, and what it raises, with condition codes.
pub type Outcome = (u128, u16);

/// What an operand is that is a number.
#[derive(Clone, Copy)]
enum Operand {
    Zero,
    Finite(Wide),
    Infinite,
}

/// None: it is no number, or no valid one.
fn operand(value: u128) -> Option<Operand> {
    let (exponent, significand) = (value >> 64 & 0x7fff, value as u64);
    match (exponent, significand >> 63) {
        (0, _) if significand == 0 => Some(Operand::Zero),
        (0, _) => Some(Operand::Finite(Wide::from_extended(value))),
        (0x7fff, 1) if significand << 1 == 0 => Some(Operand::Infinite),
        (0x7fff, _) | (_, 0) => None,
        _ => Some(Operand::Finite(Wide::from_extended(value))),
    }
}

fn is_denormal(value: u128) -> bool {
    value >> 64 & 0x7fff == 0 && value as u64 != 0
}

fn is_negative(value: u128) -> bool {
    value & SIGN != 0
}

fn with_sign(value: u128, negative: bool) -> u128 {
    if negative { value | SIGN } else { value }
}

const INVALID: Outcome = (INDEFINITE, fsw::IE);

/// What becomes of two operands of which one is no number: the same for all instructions.
fn no_number(a: u128, b: u128, fcw: u16) -> Outcome {
    let mut job = Job::new(fcw, a, b, 0);
    arithmetic::add(&mut job);
    (job.a, job.fsw & fsw::EXCEPTIONS)
}

/// Adds what denormal operands raise. If that is not masked, nothing else happens.
fn after_denormals(denormal: bool, fcw: u16, outcome: Outcome) -> Outcome {
    match denormal {
        true if fcw & DE == 0 => (outcome.0, DE),
        true => (outcome.0, outcome.1 | DE),
        false => outcome,
    }
}

fn approximated(value: Wide, fcw: u16) -> Outcome {
    round(value, false, fcw)
}

/// A function of ST(0).
pub trait Unary {
    /// Its value for `x`.
    fn finite(x: Wide, fcw: u16) -> Outcome;
    /// Its value for zeros and infinities.
    fn special(x: u128) -> Outcome;
    /// Is this one of the angles that are too large?
    fn is_too_large(_: Wide) -> bool {
        false
    }
}

/// F2XM1.
#[derive(Debug)]
pub struct Exp2;
/// FSIN.
#[derive(Debug)]
pub struct Sin;
/// FCOS.
#[derive(Debug)]
pub struct Cos;
/// FPTAN.
#[derive(Debug)]
pub struct Tan;

impl Unary for Exp2 {
    fn finite(x: Wide, fcw: u16) -> Outcome {
        match x.magnitude() {
            Wide::ONE if x.negative => (SIGN | (ONE - (1 << 64)), 0),
            Wide::ONE => (ONE, 0),
            magnitude if Wide::ONE.is_smaller(magnitude) => round(x, true, fcw),
            _ => approximated(functions::exp2_minus_1(x), fcw),
        }
    }

    fn special(x: u128) -> Outcome {
        match x == SIGN | INFINITY {
            true => (SIGN | ONE, 0),
            false => (x, 0),
        }
    }
}

/// Angles from 2^63 on are left as they are.
const TOO_LARGE: i32 = 63;

macro_rules! of_angle {
    ($name:ident, $of_zero:expr, $x:ident => $value:expr) => {
        impl Unary for $name {
            fn finite($x: Wide, fcw: u16) -> Outcome {
                approximated($value, fcw)
            }

            fn special(x: u128) -> Outcome {
                let of_zero: fn(u128) -> u128 = $of_zero;
                match x as u64 {
                    0 => (of_zero(x), 0),
                    _ => INVALID,
                }
            }

            fn is_too_large(x: Wide) -> bool {
                x.exponent >= TOO_LARGE
            }
        }
    };
}
of_angle!(Sin, |x| x, x => functions::sin_cos(x).0);
of_angle!(Cos, |_| ONE, x => functions::sin_cos(x).1);
of_angle!(Tan, |x| x, x => functions::tan(x));

/// A function's value.
pub fn value<U: Unary>(x: u128, fcw: u16) -> Outcome {
    match operand(x) {
        None => no_number(x, x, fcw),
        Some(Operand::Zero | Operand::Infinite) => U::special(x),
        Some(Operand::Finite(wide)) if U::is_too_large(wide) => (x, fsw::C2),
        Some(Operand::Finite(wide)) => after_denormals(is_denormal(x), fcw, U::finite(wide, fcw)),
    }
}

fn unary<U: Unary>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let (value, raised) = match cpu.fpu.is_empty(0) {
        true => (INDEFINITE, fsw::UNDERFLOW),
        false => value::<U>(cpu.fpu.value(0), cpu.fpu.fcw),
    };
    if cpu.end_x87(op, raised, fsw::C1 | fsw::C2, fsw::BEFORE) {
        cpu.fpu.set(0, value);
    }
    Ok(Flow::Next)
}

/// F2XM1, FSIN and FCOS.
pub fn pick_unary<U: Unary>(_: &Form) -> Handler {
    unary::<U>
}

/// ST(0) becomes the first result, and the second is pushed.
fn two_results<U: Unary, const WITH_COSINE: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let (x, fcw) = (cpu.fpu.value(0), cpu.fpu.fcw);
    let fault = match (cpu.fpu.is_empty(0), cpu.fpu.is_empty(7)) {
        (true, _) => fsw::UNDERFLOW,
        (false, false) => fsw::OVERFLOW,
        (false, true) => 0,
    };
    let (mut first, mut raised) = match fault {
        0 => value::<U>(x, fcw),
        _ => (INDEFINITE, fault),
    };
    let mut second = if raised & fsw::IE != 0 || operand(x).is_none() {
        first
    } else {
        ONE
    };
    if WITH_COSINE && fault == 0 && raised & fsw::C2 == 0 {
        let (cosine, also) = value::<Cos>(x, fcw);
        second = cosine;
        raised = raised & !fsw::C1 | also;
    }
    if cpu.end_x87(op, raised, fsw::C1 | fsw::C2, fsw::BEFORE) && raised & fsw::C2 == 0 {
        std::mem::swap(&mut first, &mut second);
        cpu.fpu.set(0, second);
        cpu.fpu.push(first);
    }
    Ok(Flow::Next)
}

/// FPTAN.
pub fn pick_tan(_: &Form) -> Handler {
    two_results::<Tan, false>
}

/// FSINCOS.
pub fn pick_sin_cos(_: &Form) -> Handler {
    two_results::<Sin, true>
}

/// A function of ST(1) and ST(0).
pub trait Binary {
    /// Its value for `y` and `x`, which both are numbers.
    fn value(y: u128, x: u128, fcw: u16) -> Outcome;
}

/// FYL2X.
#[derive(Debug)]
pub struct Log2;
/// FYL2XP1.
#[derive(Debug)]
pub struct Log2Of1Plus;
/// FPATAN.
#[derive(Debug)]
pub struct Atan;

fn wide(value: u128) -> Wide {
    Wide::from_extended(value)
}

impl Binary for Log2 {
    fn value(y: u128, x: u128, fcw: u16) -> Outcome {
        let (number_y, number_x) = (operand(y), operand(x));
        let zero_x = matches!(number_x, Some(Operand::Zero));
        if is_negative(x) && !zero_x {
            return INVALID;
        }
        let log = functions::log2;
        let below_one = wide(x).is_smaller(Wide::ONE);
        let negative = is_negative(y) != below_one;
        let is_one = x == ONE;
        match (number_y, number_x) {
            (Some(Operand::Zero), Some(Operand::Zero | Operand::Infinite)) => INVALID,
            (Some(Operand::Infinite), _) if is_one => INVALID,
            (Some(Operand::Infinite), _) | (_, Some(Operand::Infinite)) => {
                (with_sign(INFINITY, negative), 0)
            }
            (_, Some(Operand::Zero)) => (with_sign(INFINITY, negative), ZE),
            (Some(Operand::Zero), _) => (with_sign(0, negative), 0),
            _ if is_one => (with_sign(0, is_negative(y)), 0),
            _ => {
                let power_of_two = wide(x).significand << 1 == 0;
                round(wide(y).times(log(wide(x))), power_of_two, fcw)
            }
        }
    }
}

impl Binary for Log2Of1Plus {
    fn value(y: u128, x: u128, fcw: u16) -> Outcome {
        let (number_y, number_x) = (operand(y), operand(x));
        let negative = is_negative(y) != is_negative(x);
        let finite = !matches!(number_x, Some(Operand::Infinite));
        if is_negative(x) && !(finite && wide(x).magnitude().is_smaller(Wide::ONE)) {
            return INVALID;
        }
        match (number_y, number_x) {
            (Some(Operand::Zero), Some(Operand::Infinite))
            | (Some(Operand::Infinite), Some(Operand::Zero)) => INVALID,
            (Some(Operand::Infinite), _) | (_, Some(Operand::Infinite)) => {
                (with_sign(INFINITY, negative), 0)
            }
            (Some(Operand::Zero), _) | (_, Some(Operand::Zero)) => (with_sign(0, negative), 0),
            _ => approximated(wide(y).times(functions::log2_of_1_plus(wide(x))), fcw),
        }
    }
}

impl Binary for Atan {
    fn value(y: u128, x: u128, fcw: u16) -> Outcome {
        let quarters = match (operand(y), operand(x), is_negative(x)) {
            (Some(Operand::Infinite), Some(Operand::Infinite), false) => 1,
            (Some(Operand::Infinite), Some(Operand::Infinite), true) => 3,
            (Some(Operand::Infinite), _, _) => 2,
            (Some(Operand::Zero), _, false) | (_, Some(Operand::Infinite), false) => 0,
            (Some(Operand::Zero), _, true) | (_, Some(Operand::Infinite), true) => 4,
            (_, Some(Operand::Zero), _) => 2,
            _ => return approximated(functions::atan2(wide(y), wide(x)), fcw),
        };
        let angle = functions::quarters_of_pi(quarters);
        match (quarters, is_negative(y)) {
            (0, negative) => (with_sign(0, negative), 0),
            (_, true) => approximated(angle.negated(), fcw),
            (_, false) => approximated(angle, fcw),
        }
    }
}

/// A function's value.
pub fn value_of_two<B: Binary>(y: u128, x: u128, fcw: u16) -> Outcome {
    if operand(x).is_none() || operand(y).is_none() {
        return no_number(x, y, fcw);
    }
    let outcome = B::value(y, x, fcw);
    let denormal = (is_denormal(x) || is_denormal(y)) && outcome.1 & (fsw::IE | ZE) == 0;
    after_denormals(denormal, fcw, outcome)
}

/// ST(1) becomes the result, and ST(0) is popped.
fn binary<B: Binary>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    cpu.begin_x87()?;
    let (y, x, fcw) = (cpu.fpu.value(1), cpu.fpu.value(0), cpu.fpu.fcw);
    let (value, raised) = match cpu.fpu.is_empty(0) || cpu.fpu.is_empty(1) {
        true => (INDEFINITE, fsw::UNDERFLOW),
        false => value_of_two::<B>(y, x, fcw),
    };
    if cpu.end_arithmetic(op, raised) {
        cpu.fpu.set(1, value);
        cpu.fpu.pop();
    }
    Ok(Flow::Next)
}

/// FYL2X, FYL2XP1 and FPATAN.
pub fn pick_binary<B: Binary>(_: &Form) -> Handler {
    binary::<B>
}
