//! Floating point from XMM registers and memory to XMM registers and flags: arithmetic, comparisons,
//! conversions.

use super::host;
use super::operand::{Bank, Source, Xmm, by_source};
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
    run: impl Fn(u32, u128, u128) -> (u128, u32),
) -> Done<Flow> {
    cpu.may_use_sse()?;
    let b = R::wide::<Xmm>(cpu, op, bytes)?;
    let a = Xmm::get(cpu, op.dst);
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
    run: impl Fn(u32, u128, u128) -> (u128, u32),
) -> Done<Flow> {
    cpu.may_use_sse()?;
    let b = R::wide::<Xmm>(cpu, op, (lanes.count * lanes.bits / 8) as u8)?;
    let a = Xmm::get(cpu, op.dst);
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
    ($count:literal $bits:literal $scale:ident: $($name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                const LANES: Lanes = Lanes {
                    count: $count,
                    bits: $bits,
                    scale: Scale::$scale,
                };
                operate_beyond::<R>(cpu, op, LANES, host::$name)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
beyond! { 1 32 Alike: addss subss }
beyond! { 4 32 Alike: addps subps }
beyond! { 1 64 Alike: addsd subsd }
beyond! { 2 64 Alike: addpd subpd }
beyond! { 1 32 ToOne: mulss divss }
beyond! { 4 32 ToOne: mulps divps }
beyond! { 1 64 ToOne: mulsd divsd cvtsd2ss }
beyond! { 2 64 ToOne: mulpd divpd cvtpd2ps }

/// The others, for a source of so many bytes.
macro_rules! operations {
    ($bytes:literal: $($name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<R>(cpu, op, $bytes, host::$name)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
operations! { 4: minss maxss sqrtss cvtss2sd }
operations! { 8: minsd maxsd sqrtsd cvtps2pd cvtdq2pd }
operations! { 16: minps maxps sqrtps cvtdq2ps cvtps2dq cvttps2dq }
operations! { 16: minpd maxpd sqrtpd cvtpd2dq cvttpd2dq }

/// Only the lowest three bits of the predicate count.
macro_rules! comparisons {
    ($($bytes:literal $name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<const P: u8, R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<R>(cpu, op, $bytes, host::$name::<P>)
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
    run: impl Fn(u32, u128, u128) -> (u64, u32),
) -> Done<Flow> {
    cpu.may_use_sse()?;
    let b = R::wide::<Xmm>(cpu, op, bytes)?;
    let a = Xmm::get(cpu, op.dst);
    let status = cpu.floating_within(|mxcsr| run(mxcsr, a, b))?;
    cpu.flags = Flags::from_status(status);
    Ok(Flow::Next)
}

macro_rules! orders {
    ($($bytes:literal $name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                order::<R>(cpu, op, $bytes, host::$name)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
orders! { 4 comiss 4 ucomiss 8 comisd 8 ucomisd }
