//! Conversions between floating point in XMM registers and integers in general and MMX registers.

use super::host;
use super::operand::{Bank, Mm, Source, Xmm, by_source};
use super::quick::{self, Float};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Mem, Src, Value};
use crate::state::Cpu;

/// From an XMM register or memory to a general register.
macro_rules! to_general {
    ($($bytes:literal $name:ident $quick:expr;)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<const S: u8, R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                cpu.may_use_sse()?;
                let b = R::wide::<Xmm>(cpu, op, $bytes)?;
                let quick: fn(u128) -> Option<u64> = $quick;
                if cpu.fpu.is_quick()
                    && let Some(value) = quick(b)
                {
                    cpu.set::<S>(op.dst, value);
                    return Ok(Flow::Next);
                }
                let value = cpu.floating_within(|mxcsr| host::$name::<S>(mxcsr, b))?;
                cpu.set::<S>(op.dst, value);
                Ok(Flow::Next)
            }
            match form.size() {
                4 => by_source!(form, R => run::<4, R>),
                _ => by_source!(form, R => run::<8, R>),
            }
        }
    )*};
}
to_general! {
    4 cvtss2si |_| None;
    4 cvttss2si quick::truncate::<f32, S>;
    8 cvtsd2si |_| None;
    8 cvttsd2si quick::truncate::<f64, S>;
}

/// From a general register or memory to an XMM register.
macro_rules! from_general {
    ($($name:ident |$fpu:ident, $value:ident| $quick:expr;)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                cpu.may_use_sse()?;
                let b = R::read::<S>(cpu, op)?;
                let a = Xmm::get(cpu, op.dst);
                let ($fpu, $value) = (&cpu.fpu, b);
                if let Some(number) = $quick {
                    let mask = if size_of_val(&number) == 4 { u128::from(u32::MAX) } else { LOW };
                    Xmm::set(cpu, op.dst, a & !mask | number.low());
                    return Ok(Flow::Next);
                }
                let value = cpu.floating_within(|mxcsr| host::$name::<S>(mxcsr, a, b))?;
                Xmm::set(cpu, op.dst, value);
                Ok(Flow::Next)
            }
            match form.source_size() {
                4 => by_source!(form, R => run::<4, R>),
                _ => by_source!(form, R => run::<8, R>),
            }
        }
    )*};
}
from_general! {
    cvtsi2ss |fpu, value| fpu.is_quick().then(|| quick::single_of::<S>(value));
    cvtsi2sd |fpu, value| quick::double_of::<S>(value).filter(|_| fpu.is_host_plain());
}

const LOW: u128 = u64::MAX as u128;

/// The destination becomes what `run` makes of it and of two integers in an MMX register. Where they come
/// from memory, these instructions have nothing to do with MMX.
#[inline(always)]
fn from_mmx<R: Source, const MMX: bool>(
    cpu: &mut Cpu,
    op: &Op,
    run: impl Fn(u32, u128) -> (u128, u32),
    merge: impl Fn(u128, u128) -> u128,
) -> Done<Flow> {
    cpu.may_use_sse()?;
    if MMX {
        Mm::enter(cpu)?;
    }
    let b = R::wide::<Mm>(cpu, op, 8)?;
    if MMX {
        // Also if the conversion faults.
        Mm::used(cpu);
    }
    let value = cpu.floating_within(|mxcsr| run(mxcsr, b))?;
    let old = Xmm::get(cpu, op.dst);
    Xmm::set(cpu, op.dst, merge(old, value));
    Ok(Flow::Next)
}

macro_rules! from_mmx {
    ($($name:ident $run:ident $merge:expr;)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source, const MMX: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                from_mmx::<R, MMX>(cpu, op, |mxcsr, b| host::$run(mxcsr, 0, b), $merge)
            }
            match form.memory() {
                false => run::<Src, true>,
                true => run::<Mem, false>,
            }
        }
    )*};
}
from_mmx! {
    cvtpi2ps cvtdq2ps |old, value| old & !LOW | value & LOW;
    cvtpi2pd cvtdq2pd |_, value| value;
}

/// To two integers in an MMX register, from `bytes` in an XMM register or memory.
#[inline(always)]
fn to_mmx<R: Source>(
    cpu: &mut Cpu,
    op: &Op,
    bytes: u8,
    run: impl Fn(u32, u128, u128) -> (u128, u32),
) -> Done<Flow> {
    cpu.may_use_sse()?;
    Mm::enter(cpu)?;
    let mut b = R::wide::<Xmm>(cpu, op, bytes)?;
    if bytes == 8 {
        b &= LOW;
    }
    // Also if the conversion faults.
    Mm::used(cpu);
    let value = cpu.floating_within(|mxcsr| run(mxcsr, 0, b))?;
    Mm::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

macro_rules! to_mmx {
    ($($bytes:literal $name:ident $run:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                to_mmx::<R>(cpu, op, $bytes, host::$run)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
to_mmx! { 8 cvtps2pi cvtps2dq 8 cvttps2pi cvttps2dq 16 cvtpd2pi cvtpd2dq 16 cvttpd2pi cvttpd2dq }
