//! MMX instructions whose operands are not like those of the same instruction on XMM registers. All others
//! are in [`packed`](crate::sse::packed), for both kinds of registers.

use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Mem, Src, Target, Value, by_target};
use crate::sse::host;
use crate::sse::operand::{Bank, Mm, Source, by_source};
use crate::state::Cpu;

/// The destination becomes what `run` makes of it and of `BYTES` bytes of the source.
fn operate<R: Source, const BYTES: u8>(
    cpu: &mut Cpu,
    op: &Op,
    run: impl Fn(u128, u128) -> u128,
) -> Done<Flow> {
    Mm::enter(cpu)?;
    let b = R::wide::<Mm>(cpu, op, BYTES)?;
    let a = Mm::get(cpu, op.dst);
    Mm::set(cpu, op.dst, run(a, b));
    Mm::used(cpu);
    Ok(Flow::Next)
}

/// What the instruction on XMM registers makes of `a` and `b` is the result, or has it in its upper half, or
/// has it in its lower half if `b` is put above `a`.
macro_rules! by_halves {
    ($($name:ident $bytes:literal $a:ident $b:ident => $value:expr;)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<R, $bytes>(cpu, op, |$a, $b| $value)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
by_halves! {
    punpcklbw 4 a b => host::punpcklbw(a, b);
    punpcklwd 4 a b => host::punpcklwd(a, b);
    punpckldq 4 a b => host::punpckldq(a, b);
    punpckhbw 8 a b => host::punpcklbw(a, b) >> 64;
    punpckhwd 8 a b => host::punpcklwd(a, b) >> 64;
    punpckhdq 8 a b => host::punpckldq(a, b) >> 64;
    packsswb 8 a b => host::packsswb(a | b << 64, 0);
    packssdw 8 a b => host::packssdw(a | b << 64, 0);
    packuswb 8 a b => host::packuswb(a | b << 64, 0);
}

fn copy(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    Mm::enter(cpu)?;
    let value = Mm::get(cpu, op.src);
    Mm::set(cpu, op.dst, value);
    Mm::used(cpu);
    Ok(Flow::Next)
}

fn load<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    Mm::enter(cpu)?;
    let value = R::read::<S>(cpu, op)?;
    Mm::set(cpu, op.dst, u128::from(value));
    Mm::used(cpu);
    Ok(Flow::Next)
}

fn store<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    Mm::enter(cpu)?;
    let value = Mm::get(cpu, op.src) as u64;
    D::write::<S>(cpu, op, value)?;
    Mm::used(cpu);
    Ok(Flow::Next)
}

/// MOVD, and MOVQ between an MMX register and another operand.
pub fn movd_movq(form: &Form) -> Handler {
    let mm = |index| form.instruction.op_register(index).is_mm();
    match (mm(0), mm(1), form.memory()) {
        (true, true, _) => copy,
        (true, false, memory) => match (form.source_size(), memory) {
            (4, false) => load::<4, Src>,
            (4, true) => load::<4, Mem>,
            (_, false) => load::<8, Src>,
            (_, true) => load::<8, Mem>,
        },
        (false, _, memory) => match form.size() {
            4 => by_target!(memory, D => store::<4, D>),
            _ => by_target!(memory, D => store::<8, D>),
        },
    }
}

fn empty(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    Mm::enter(cpu)?;
    Mm::used(cpu);
    cpu.fpu.full = 0;
    Ok(Flow::Next)
}

/// EMMS.
pub fn emms(_: &Form) -> Handler {
    empty
}
