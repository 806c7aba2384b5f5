//! Packed integers, and logic: in each part of a register alike.

use super::host;
use super::operand::{Bank, Mm, Source, Xmm, by_bank, by_source, on_mmx};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Imm, Mem, Shape, Src};
use crate::state::Cpu;

/// The destination becomes what `run` makes of it and of the source.
#[inline(always)]
pub fn operate<B: Bank, R: Source>(
    cpu: &mut Cpu,
    op: &Op,
    run: impl Fn(u128, u128) -> u128,
) -> Done<Flow> {
    B::enter(cpu)?;
    let b = R::wide::<B>(cpu, op, B::BYTES)?;
    let a = B::get(cpu, op.dst);
    B::set(cpu, op.dst, run(a, b));
    B::used(cpu);
    Ok(Flow::Next)
}

/// Instructions on XMM registers.
macro_rules! on_xmm {
    ($($name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<Xmm, R>(cpu, op, host::$name)
            }
            by_source!(form, R => run::<R>)
        }
    )*};
}
on_xmm! {
    punpcklbw punpcklwd punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq punpckhqdq packsswb
    packssdw packuswb
}

/// Instructions on both kinds of registers. `host` sees an MMX register as the lower half of one.
macro_rules! on_both {
    ($($name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<B: Bank, R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<B, R>(cpu, op, host::$name)
            }
            by_bank!(form, B, R => run::<B, R>)
        }
    )*};
}
on_both! {
    paddb paddw paddd paddq paddsb paddsw paddusb paddusw psubb psubw psubd psubq psubsb psubsw
    psubusb psubusw pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw pcmpgtd pminub pmaxub pminsw pmaxsw
    pavgb pavgw psadbw pmullw pmulhw pmulhuw pmuludq pmaddwd pand pandn por pxor
}

/// Shifts by a register, memory or an immediate.
macro_rules! shifts {
    ($($name:ident)*) => {$(
        /// The instruction of that name.
        pub fn $name(form: &Form) -> Handler {
            fn run<B: Bank, R: Source>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
                operate::<B, R>(cpu, op, host::$name)
            }
            match (on_mmx(form), form.shape()) {
                (false, Shape::RegReg) => run::<Xmm, Src>,
                (false, Shape::RegMem) => run::<Xmm, Mem>,
                (false, _) => run::<Xmm, Imm>,
                (true, Shape::RegReg) => run::<Mm, Src>,
                (true, Shape::RegMem) => run::<Mm, Mem>,
                (true, _) => run::<Mm, Imm>,
            }
        }
    )*};
}
shifts! {
    psllw pslld psllq psrlw psrld psrlq psraw psrad
}

/// PSLLDQ and PSRLDQ, by bytes.
fn shift_all<const LEFT: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    operate::<Xmm, Imm>(cpu, op, |a, bytes| {
        let bits = 8 * bytes.min(16) as u32;
        let shifted = match LEFT {
            true => a.checked_shl(bits),
            false => a.checked_shr(bits),
        };
        shifted.unwrap_or(0)
    })
}

/// PSLLDQ.
pub fn pslldq(_: &Form) -> Handler {
    shift_all::<true>
}

/// PSRLDQ.
pub fn psrldq(_: &Form) -> Handler {
    shift_all::<false>
}
