//! Floating point from XMM registers and memory to XMM registers and flags: arithmetic, comparisons,
//! conversions.

use super::host;
use super::operand::{Bank, Source, Xmm, by_source};
use super::quick::{self, Add, Div, Float, Mul, Sqrt, Sub, extreme, lanes};
use super::unbounded::{Lanes, Scale};
use crate::flags::Flags;
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::state::Cpu;

/// The destination becomes what `run` makes of it and of the source, of which `bytes` are read.
#[inline(always)]
fn operate<R: Source>(
    cpu: &mut Cpu,
    op: &Op,
    bytes: u8,
    (exact, quick): (bool, impl Fn(u128, u128) -> Option<u128>),
    run: impl Fn(u32, u128, u128) -> (u128, u32),
) -> Done<Flow> {
    cpu.may_use_sse()?;
    let b = R::wide::<Xmm>(cpu, op, bytes)?;
    let a = Xmm::get(cpu, op.dst);
    let may = if exact {
        cpu.fpu.is_host_plain()
    } else {
        cpu.fpu.is_quick()
    };
    if may && let Some(value) = quick(a, b) {
        Xmm::set(cpu, op.dst, value);
        return Ok(Flow::Next);
    }
    let value = cpu.floating_within(|mxcsr| run(mxcsr, a, b))?;
    Xmm::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// The same where the result can be too large or too small.
#[inline(always)]
fn operate_beyond<R: Source>(
    cpu: &mut Cpu,
    op: &Op,
    lanes: Lanes,
    quick: impl Fn(u128, u128) -> Option<u128>,
    run: impl Fn(u32, u128, u128) -> (u128, u32),
) -> Done<Flow> {
    cpu.may_use_sse()?;
    let b = R::wide::<Xmm>(cpu, op, (lanes.count * lanes.bits / 8) as u8)?;
    let a = Xmm::get(cpu, op.dst);
    if cpu.fpu.is_quick()
        && let Some(value) = quick(a, b)
    {
        Xmm::set(cpu, op.dst, value);
        return Ok(Flow::Next);
    }
    let value = cpu.floating(
        |mxcsr| run(mxcsr, a, b),
        #[cold]
        |modes| lanes.inexact((a, b), modes, &run),
    )?;
    Xmm::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// Choosers by the names of `host`, for so many numbers of so many bits.
macro_rules! beyond {
    ($count:literal $bits:literal $scale:ident: $($name:ident $quick:expr;)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                const LANES: Lanes = Lanes {
                    count: $count,
                    bits: $bits,
                    scale: Scale::$scale,
                };
                operate_beyond::<R>(cpu, op, LANES, $quick, host::$name)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
beyond! { 1 32 Alike: addss lanes::<Add, f32, 1>; subss lanes::<Sub, f32, 1>; }
beyond! { 4 32 Alike: addps lanes::<Add, f32, 4>; subps lanes::<Sub, f32, 4>; }
beyond! { 1 64 Alike: addsd lanes::<Add, f64, 1>; subsd lanes::<Sub, f64, 1>; }
beyond! { 2 64 Alike: addpd lanes::<Add, f64, 2>; subpd lanes::<Sub, f64, 2>; }
beyond! { 1 32 ToOne: mulss lanes::<Mul, f32, 1>; divss lanes::<Div, f32, 1>; }
beyond! { 4 32 ToOne: mulps lanes::<Mul, f32, 4>; divps lanes::<Div, f32, 4>; }
beyond! { 1 64 ToOne: mulsd lanes::<Mul, f64, 1>; divsd lanes::<Div, f64, 1>; cvtsd2ss narrow; }
beyond! { 2 64 ToOne: mulpd lanes::<Mul, f64, 2>; divpd lanes::<Div, f64, 2>; cvtpd2ps |_, _| None; }

/// CVTSD2SS, the quick way.
#[inline(always)]
fn narrow(a: u128, b: u128) -> Option<u128> {
    quick::narrowed(b).map(|single| a & !u128::from(u32::MAX) | single.low())
}

/// The others, for a source of so many bytes. The quick way may need that PE is set already.
macro_rules! operations {
    ($bytes:literal $exact:literal: $($name:ident $quick:expr;)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<R>(cpu, op, $bytes, ($exact, $quick), host::$name)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
operations! { 4 true: minss extreme::<f32, false>; maxss extreme::<f32, true>; cvtss2sd widen; }
operations! { 8 true: minsd extreme::<f64, false>; maxsd extreme::<f64, true>; cvtps2pd none; cvtdq2pd none; }
operations! { 4 false: sqrtss lanes::<Sqrt, f32, 1>; }
operations! { 8 false: sqrtsd lanes::<Sqrt, f64, 1>; }
operations! { 16 false: sqrtps lanes::<Sqrt, f32, 4>; sqrtpd lanes::<Sqrt, f64, 2>; }
operations! { 16 true: minps none; maxps none; minpd none; maxpd none; }
operations! { 16 true: cvtdq2ps none; cvtps2dq none; cvttps2dq none; cvtpd2dq none; cvttpd2dq none; }

/// No quick way.
#[inline(always)]
fn none(_: u128, _: u128) -> Option<u128> {
    None
}

/// CVTSS2SD, the quick way.
#[inline(always)]
fn widen(a: u128, b: u128) -> Option<u128> {
    quick::widened(b).map(|double| a & !u128::from(u64::MAX) | double.low())
}

/// Only the lowest three bits of the predicate count.
macro_rules! comparisons {
    ($($bytes:literal $name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<const P: u8, R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<R>(cpu, op, $bytes, (true, none), host::$name::<P>)
            }
            by_source!(form, R => match form.instruction.immediate8() & 7 {
                0 => run::<0, R>,
                1 => run::<1, R>,
                2 => run::<2, R>,
                3 => run::<3, R>,
                4 => run::<4, R>,
                5 => run::<5, R>,
                6 => run::<6, R>,
                _ => run::<7, R>,
            })
        }
    )*};
}
comparisons! { 4 cmpss 8 cmpsd 16 cmpps 16 cmppd }

/// The status flags become what `run` makes of both operands; OF, SF and AF are clear.
#[inline(always)]
fn order<R: Source>(
    cpu: &mut Cpu,
    op: &Op,
    bytes: u8,
    quick: impl Fn(u128, u128) -> Option<u64>,
    run: impl Fn(u32, u128, u128) -> (u64, u32),
) -> Done<Flow> {
    cpu.may_use_sse()?;
    let b = R::wide::<Xmm>(cpu, op, bytes)?;
    let a = Xmm::get(cpu, op.dst);
    let status = cpu.fpu.is_host_plain().then(|| quick(a, b)).flatten();
    let status = match status {
        Some(status) => status,
        None => cpu.floating_within(|mxcsr| run(mxcsr, a, b))?,
    };
    cpu.flags = Flags::from_status(status);
    Ok(Flow::Next)
}

macro_rules! orders {
    ($($bytes:literal $float:ident $name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                order::<R>(cpu, op, $bytes, quick::order::<$float>, host::$name)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
orders! { 4 f32 comiss 4 f32 ucomiss 8 f64 comisd 8 f64 ucomisd }
