//! The table from x87 mnemonics to handlers.

use super::{arithmetic, compare, control, load, store, transcendental};
use crate::forms::Meaning;
use iced_x86::Mnemonic;

/// What a mnemonic of x87 means.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn of_mnemonic(mnemonic: Mnemonic) -> Option<Meaning> {
    use Meaning::Does;
    use Mnemonic as M;
    let meaning = match mnemonic {
        M::Fadd | M::Fiadd => Does(arithmetic::pick::<arithmetic::Add>),
        M::Fsub | M::Fisub => Does(arithmetic::pick::<arithmetic::Sub>),
        M::Fsubr | M::Fisubr => Does(arithmetic::pick::<arithmetic::Subr>),
        M::Fmul | M::Fimul => Does(arithmetic::pick::<arithmetic::Mul>),
        M::Fdiv | M::Fidiv => Does(arithmetic::pick::<arithmetic::Div>),
        M::Fdivr | M::Fidivr => Does(arithmetic::pick::<arithmetic::Divr>),
        M::Faddp => Does(arithmetic::pick_pop::<arithmetic::Add>),
        M::Fsubp => Does(arithmetic::pick_pop::<arithmetic::Sub>),
        M::Fsubrp => Does(arithmetic::pick_pop::<arithmetic::Subr>),
        M::Fmulp => Does(arithmetic::pick_pop::<arithmetic::Mul>),
        M::Fdivp => Does(arithmetic::pick_pop::<arithmetic::Div>),
        M::Fdivrp => Does(arithmetic::pick_pop::<arithmetic::Divr>),
        M::Fsqrt => Does(arithmetic::pick_in_place::<arithmetic::Sqrt>),
        M::Frndint => Does(arithmetic::pick_in_place::<arithmetic::Round>),
        M::Fscale => Does(arithmetic::pick_in_place::<arithmetic::Scale>),
        M::Fprem => Does(arithmetic::pick_in_place::<arithmetic::Rem>),
        M::Fprem1 => Does(arithmetic::pick_in_place::<arithmetic::Rem1>),
        M::Fxtract => Does(arithmetic::pick_extract),
        M::Fchs => Does(arithmetic::pick_chs),
        M::Fabs => Does(arithmetic::pick_abs),
        M::Fcom | M::Ficom => Does(compare::pick_com),
        M::Fcomp | M::Ficomp => Does(compare::pick_comp),
        M::Fcompp | M::Fucom | M::Fucomp | M::Fucompp => Does(compare::pick_others),
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => Does(compare::pick_to_flags),
        M::Ftst => Does(compare::pick_test),
        M::Fxam => Does(compare::pick_examine),
        M::Fcmovb | M::Fcmovnb | M::Fcmove | M::Fcmovne | M::Fcmovbe | M::Fcmovnbe | M::Fcmovu
        | M::Fcmovnu => Does(compare::pick_move_if),
        M::Fld => Does(load::pick_fld),
        M::Fild => Does(load::pick_fild),
        M::Fbld => Does(load::pick_fbld),
        M::Fld1 | M::Fldl2t | M::Fldl2e | M::Fldpi | M::Fldlg2 | M::Fldln2
        | M::Fldz => Does(load::pick_constant),
        M::Fst => Does(store::pick_fst),
        M::Fstp => Does(store::pick_fstp),
        M::Fstpnce => Does(store::pick_fstpnce),
        M::Fist => Does(store::pick_fist),
        M::Fistp => Does(store::pick_fistp),
        M::Fbstp => Does(store::pick_fbstp),
        M::Fxch => Does(store::pick_exchange),
        M::Ffree | M::Ffreep => Does(store::pick_free),
        M::Fincstp | M::Fdecstp => Does(store::pick_turn),
        M::Fnstenv | M::Fstenv => Does(control::pick_store_environment),
        M::Fldenv => Does(control::pick_load_environment),
        M::Fnsave | M::Fsave => Does(control::pick_save),
        M::Frstor => Does(control::pick_restore),
        M::Fldcw => Does(control::pick_load_control),
        M::Fnstcw | M::Fstcw => Does(control::pick_store_control),
        M::Fnstsw | M::Fstsw => Does(control::pick_store_status),
        M::Fnclex | M::Fclex => Does(control::pick_clear),
        M::Fninit | M::Finit => Does(control::pick_init),
        M::Fnop => Does(control::pick_nop),
        M::Fneni | M::Feni | M::Fndisi | M::Fdisi | M::Fnsetpm | M::Fsetpm => Does(control::pick_nothing),
        M::Frstpm => Does(crate::branch::ud),
        M::F2xm1 => Does(transcendental::pick_unary::<transcendental::Exp2>),
        M::Fsin => Does(transcendental::pick_unary::<transcendental::Sin>),
        M::Fcos => Does(transcendental::pick_unary::<transcendental::Cos>),
        M::Fsincos => Does(transcendental::pick_sin_cos),
        M::Fptan => Does(transcendental::pick_tan),
        M::Fpatan => Does(transcendental::pick_binary::<transcendental::Atan>),
        M::Fyl2x => Does(transcendental::pick_binary::<transcendental::Log2>),
        M::Fyl2xp1 => Does(transcendental::pick_binary::<transcendental::Log2Of1Plus>),
        M::Wait => Does(control::pick_wait),
        _ => return None,
    };
    Some(meaning)
}
