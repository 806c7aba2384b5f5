//! The table from instructions to handlers: what each mnemonic means here, and why those that mean nothing
//! do not.

use crate::form::Form;
use crate::integer::{alu, bits, decimal, moves, muldiv, shift};
use crate::op::Handler;
use crate::sse::{approximate, convert, float, packed, shuffle};
use crate::x87::{arithmetic, compare, control, load, store, transcendental};
use crate::{branch, descriptors, far, io_ports, segments, sse, stack, string, system};
use iced_x86::{CpuidFeature, Instruction, Mnemonic};

/// What a mnemonic means on this processor.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// It is done by what this chooses.
    Does(fn(&Form) -> Handler),
    /// It raises #UD, as on the real thing.
    Undefined(&'static str),
    /// It raises #UD, until it is done.
    NotYet(&'static str),
    /// It is no instruction of the baseline: #UD.
    Absent,
}

/// Which handler runs this instruction.
pub fn handler(form: &Form) -> Handler {
    match meaning(form.instruction) {
        Meaning::Does(choose) => choose(form),
        Meaning::Undefined(_) | Meaning::NotYet(_) | Meaning::Absent => branch::ud(form),
    }
}

/// What an instruction means on this processor.
pub fn meaning(instruction: &Instruction) -> Meaning {
    let features = instruction.cpuid_features();
    match features.iter().all(|f| baseline(*f)) {
        true if features.contains(&CpuidFeature::MMX) => Meaning::NotYet(MMX),
        true => of_mnemonic(instruction.mnemonic(), instruction.is_string_instruction()),
        false => Meaning::Absent,
    }
}

/// The sets of instructions that every x86-64 processor has.
pub fn baseline(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL8086_ONLY
            | F::INTEL186
            | F::INTEL286
            | F::INTEL286_ONLY
            | F::INTEL386
            | F::INTEL386_ONLY
            | F::INTEL386_A0_ONLY
            | F::INTEL486
            | F::INTEL486_A_ONLY
            | F::X64
            | F::CMOV
            | F::CPUID
            | F::CX8
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::FXSR
            | F::MMX
            | F::MSR
            | F::SEP
            | F::SMM
            | F::SSE
            | F::SSE2
            | F::SYSCALL
            | F::TSC
            | F::RDPMC
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::CLFSH
            | F::CET_IBT
    )
}

const MMX: &str = "MMX";

/// What a mnemonic means. Those of the baseline all stand here; a test sees to it.
#[rustfmt::skip]
fn of_mnemonic(mnemonic: Mnemonic, on_strings: bool) -> Meaning {
    use Meaning::{Does, NotYet, Undefined};
    use Mnemonic as M;
    match mnemonic {
        M::Add => Does(alu::pick::<alu::Add>),
        M::Adc => Does(alu::pick::<alu::Adc>),
        M::Sub => Does(alu::pick::<alu::Sub>),
        M::Sbb => Does(alu::pick::<alu::Sbb>),
        M::Cmp => Does(alu::pick::<alu::Cmp>),
        M::And => Does(alu::pick::<alu::And>),
        M::Or => Does(alu::pick::<alu::Or>),
        M::Xor => Does(alu::pick::<alu::Xor>),
        M::Test => Does(alu::pick::<alu::Test>),
        M::Inc => Does(alu::pick_unary::<alu::Inc>),
        M::Dec => Does(alu::pick_unary::<alu::Dec>),
        M::Neg => Does(alu::pick_unary::<alu::Neg>),
        M::Not => Does(alu::pick_unary::<alu::Not>),
        M::Xchg => Does(alu::xchg),
        M::Xadd => Does(alu::xadd),
        M::Cmpxchg => Does(alu::cmpxchg),
        M::Cmpxchg8b => Does(alu::cmpxchg8b),
        M::Clc => Does(alu::clc),
        M::Stc => Does(alu::stc),
        M::Cmc => Does(alu::cmc),

        M::Mul => Does(muldiv::pick_mul),
        M::Imul => Does(muldiv::pick_imul),
        M::Div => Does(muldiv::pick_div),
        M::Idiv => Does(muldiv::pick_idiv),

        M::Shl | M::Sal => Does(shift::pick::<shift::Shl>),
        M::Shr => Does(shift::pick::<shift::Shr>),
        M::Sar => Does(shift::pick::<shift::Sar>),
        M::Rol => Does(shift::pick::<shift::Rol>),
        M::Ror => Does(shift::pick::<shift::Ror>),
        M::Rcl => Does(shift::pick::<shift::Rcl>),
        M::Rcr => Does(shift::pick::<shift::Rcr>),
        M::Shld => Does(shift::pick_double::<shift::Shld>),
        M::Shrd => Does(shift::pick_double::<shift::Shrd>),

        M::Bt => Does(bits::pick::<bits::Bt>),
        M::Bts => Does(bits::pick::<bits::Bts>),
        M::Btr => Does(bits::pick::<bits::Btr>),
        M::Btc => Does(bits::pick::<bits::Btc>),
        M::Bsf => Does(bits::pick_scan::<bits::Bsf>),
        M::Bsr => Does(bits::pick_scan::<bits::Bsr>),
        M::Bswap => Does(bits::bswap),

        M::Mov => Does(segments::mov),
        M::Movnti => Does(moves::mov),
        M::Movzx => Does(moves::movzx),
        M::Movsx | M::Movsxd => Does(moves::movsx),
        M::Lea => Does(moves::lea),
        M::Seta | M::Setae | M::Setb | M::Setbe | M::Sete | M::Setg | M::Setge | M::Setl | M::Setle
        | M::Setne | M::Setno | M::Setnp | M::Setns | M::Seto | M::Setp | M::Sets => Does(moves::setcc),
        M::Cmova | M::Cmovae | M::Cmovb | M::Cmovbe | M::Cmove | M::Cmovg | M::Cmovge | M::Cmovl
        | M::Cmovle | M::Cmovne | M::Cmovno | M::Cmovnp | M::Cmovns | M::Cmovo | M::Cmovp
        | M::Cmovs => Does(moves::cmovcc),
        M::Cbw => Does(moves::cbw),
        M::Cwde => Does(moves::cwde),
        M::Cdqe => Does(moves::cdqe),
        M::Cwd => Does(moves::cwd),
        M::Cdq => Does(moves::cdq),
        M::Cqo => Does(moves::cqo),
        M::Xlatb => Does(moves::xlatb),
        M::Lahf => Does(moves::lahf),
        M::Sahf => Does(moves::sahf),
        M::Cld => Does(moves::cld),
        M::Std => Does(moves::std),
        M::Nop | M::Pause | M::Endbr32 | M::Endbr64 | M::Reservednop | M::Lfence | M::Mfence | M::Sfence
        | M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 => Does(moves::nop),
        M::Clflush => Does(moves::clflush),

        M::Push => Does(stack::pick_push),
        M::Pop => Does(stack::pick_pop),
        M::Pushf | M::Pushfd | M::Pushfq => Does(stack::pick_pushf),
        M::Popf | M::Popfd | M::Popfq => Does(stack::pick_popf),
        M::Enter => Does(stack::pick_enter),
        M::Leave => Does(stack::pick_leave),

        M::Jmp => Does(far::jmp),
        M::Call => Does(far::call),
        M::Ret => Does(branch::pick_ret),
        M::Ja | M::Jae | M::Jb | M::Jbe | M::Je | M::Jg | M::Jge | M::Jl | M::Jle | M::Jne | M::Jno
        | M::Jnp | M::Jns | M::Jo | M::Jp | M::Js => Does(branch::jcc),
        M::Loop => Does(branch::pick_loop),
        M::Loope => Does(branch::pick_loope),
        M::Loopne => Does(branch::pick_loopne),
        M::Jcxz | M::Jecxz | M::Jrcxz => Does(branch::jcxz),
        M::Int => Does(branch::int),
        M::Int3 => Does(branch::int3),
        M::Int1 => Does(branch::int1),
        M::Ud0 | M::Ud1 | M::Ud2 => Does(branch::ud),

        // SSE2 has these names too.
        M::Movsd if !on_strings => Does(sse::moves::movsd),
        M::Cmpsd if !on_strings => Does(float::cmpsd),
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => Does(string::pick::<string::Movs>),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => Does(string::pick::<string::Cmps>),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => Does(string::pick::<string::Stos>),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Does(string::pick::<string::Lods>),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => Does(string::pick::<string::Scas>),
        M::Insb | M::Insw | M::Insd => Does(string::pick::<string::Ins>),
        M::Outsb | M::Outsw | M::Outsd => Does(string::pick::<string::Outs>),
        M::In => Does(io_ports::pick_in),
        M::Out => Does(io_ports::pick_out),

        M::Retf => Does(far::retf),
        M::Iret | M::Iretd | M::Iretq => Does(far::iret),
        M::Syscall => Does(far::syscall),
        M::Sysret | M::Sysretq => Does(far::sysret),
        M::Sysenter | M::Sysexit | M::Sysexitq => Undefined("CPUID does not tell of SEP"),
        M::Lfs | M::Lgs | M::Lss | M::Lds | M::Les => Does(segments::load_far),
        M::Swapgs => Does(segments::swapgs),
        M::Lar => Does(descriptors::lar),
        M::Lsl => Does(descriptors::lsl),
        M::Verr => Does(descriptors::verr),
        M::Verw => Does(descriptors::verw),
        M::Lldt => Does(descriptors::lldt),
        M::Ltr => Does(descriptors::ltr),
        M::Sldt => Does(descriptors::sldt),
        M::Str => Does(descriptors::str),

        M::Lgdt => Does(system::lgdt),
        M::Lidt => Does(system::lidt),
        M::Sgdt => Does(system::sgdt),
        M::Sidt => Does(system::sidt),
        M::Smsw => Does(system::smsw),
        M::Lmsw => Does(system::lmsw),
        M::Clts => Does(system::clts),
        M::Cli => Does(system::cli),
        M::Sti => Does(system::sti),
        M::Hlt => Does(system::hlt),
        M::Invd | M::Wbinvd => Does(system::privileged_nop),
        M::Invlpg => Does(system::invlpg),
        M::Rdmsr => Does(system::rdmsr),
        M::Wrmsr => Does(system::wrmsr),
        M::Rdtsc => Does(system::rdtsc),
        M::Cpuid => Does(system::cpuid),
        M::Rdpmc => Does(system::rdpmc),
        M::Rsm => Undefined("no system management mode"),

        M::Aaa => Does(decimal::aaa),
        M::Aad => Does(decimal::aad),
        M::Aam => Does(decimal::aam),
        M::Aas => Does(decimal::aas),
        M::Daa => Does(decimal::daa),
        M::Das => Does(decimal::das),
        M::Salc => Does(decimal::salc),
        M::Into => Does(decimal::into),
        M::Bound => Does(decimal::bound),
        M::Arpl => Does(decimal::arpl),
        M::Pusha | M::Pushad => Does(stack::pick_pusha),
        M::Popa | M::Popad => Does(stack::pick_popa),

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
        M::F2xm1 => Does(transcendental::pick_unary::<transcendental::Exp2>),
        M::Fsin => Does(transcendental::pick_unary::<transcendental::Sin>),
        M::Fcos => Does(transcendental::pick_unary::<transcendental::Cos>),
        M::Fsincos => Does(transcendental::pick_sin_cos),
        M::Fptan => Does(transcendental::pick_tan),
        M::Fpatan => Does(transcendental::pick_binary::<transcendental::Atan>),
        M::Fyl2x => Does(transcendental::pick_binary::<transcendental::Log2>),
        M::Fyl2xp1 => Does(transcendental::pick_binary::<transcendental::Log2Of1Plus>),
        M::Wait => Does(control::pick_wait),

        M::Addps => Does(float::addps),
        M::Addpd => Does(float::addpd),
        M::Addss => Does(float::addss),
        M::Addsd => Does(float::addsd),
        M::Subps => Does(float::subps),
        M::Subpd => Does(float::subpd),
        M::Subss => Does(float::subss),
        M::Subsd => Does(float::subsd),
        M::Mulps => Does(float::mulps),
        M::Mulpd => Does(float::mulpd),
        M::Mulss => Does(float::mulss),
        M::Mulsd => Does(float::mulsd),
        M::Divps => Does(float::divps),
        M::Divpd => Does(float::divpd),
        M::Divss => Does(float::divss),
        M::Divsd => Does(float::divsd),
        M::Minps => Does(float::minps),
        M::Minpd => Does(float::minpd),
        M::Minss => Does(float::minss),
        M::Minsd => Does(float::minsd),
        M::Maxps => Does(float::maxps),
        M::Maxpd => Does(float::maxpd),
        M::Maxss => Does(float::maxss),
        M::Maxsd => Does(float::maxsd),
        M::Sqrtps => Does(float::sqrtps),
        M::Sqrtpd => Does(float::sqrtpd),
        M::Sqrtss => Does(float::sqrtss),
        M::Sqrtsd => Does(float::sqrtsd),
        M::Cmpps => Does(float::cmpps),
        M::Cmppd => Does(float::cmppd),
        M::Cmpss => Does(float::cmpss),
        M::Comiss => Does(float::comiss),
        M::Comisd => Does(float::comisd),
        M::Ucomiss => Does(float::ucomiss),
        M::Ucomisd => Does(float::ucomisd),
        M::Cvtps2pd => Does(float::cvtps2pd),
        M::Cvtpd2ps => Does(float::cvtpd2ps),
        M::Cvtss2sd => Does(float::cvtss2sd),
        M::Cvtsd2ss => Does(float::cvtsd2ss),
        M::Cvtdq2ps => Does(float::cvtdq2ps),
        M::Cvtps2dq => Does(float::cvtps2dq),
        M::Cvttps2dq => Does(float::cvttps2dq),
        M::Cvtdq2pd => Does(float::cvtdq2pd),
        M::Cvtpd2dq => Does(float::cvtpd2dq),
        M::Cvttpd2dq => Does(float::cvttpd2dq),
        M::Cvtsi2ss => Does(convert::cvtsi2ss),
        M::Cvtsi2sd => Does(convert::cvtsi2sd),
        M::Cvtss2si => Does(convert::cvtss2si),
        M::Cvtsd2si => Does(convert::cvtsd2si),
        M::Cvttss2si => Does(convert::cvttss2si),
        M::Cvttsd2si => Does(convert::cvttsd2si),
        M::Cvtpi2ps => Does(convert::cvtpi2ps),
        M::Cvtpi2pd => Does(convert::cvtpi2pd),
        M::Cvtps2pi => Does(convert::cvtps2pi),
        M::Cvttps2pi => Does(convert::cvttps2pi),
        M::Cvtpd2pi => Does(convert::cvtpd2pi),
        M::Cvttpd2pi => Does(convert::cvttpd2pi),
        M::Rcpps => Does(approximate::rcpps),
        M::Rcpss => Does(approximate::rcpss),
        M::Rsqrtps => Does(approximate::rsqrtps),
        M::Rsqrtss => Does(approximate::rsqrtss),

        M::Movups | M::Movupd | M::Movdqu => Does(sse::moves::unaligned),
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq => Does(sse::moves::aligned),
        M::Movss => Does(sse::moves::movss),
        M::Movlps | M::Movlpd => Does(sse::moves::low_half),
        M::Movhps | M::Movhpd => Does(sse::moves::high_half),
        M::Movhlps => Does(sse::moves::movhlps),
        M::Movlhps => Does(sse::moves::movlhps),
        M::Movd | M::Movq => Does(sse::moves::movd_movq),
        M::Movq2dq => Does(sse::moves::movq2dq),
        M::Movdq2q => Does(sse::moves::movdq2q),
        M::Movntq => Does(sse::moves::movntq),
        M::Maskmovdqu | M::Maskmovq => Does(sse::moves::masked),

        M::Andps | M::Andpd | M::Pand => Does(packed::pand),
        M::Andnps | M::Andnpd | M::Pandn => Does(packed::pandn),
        M::Orps | M::Orpd | M::Por => Does(packed::por),
        M::Xorps | M::Xorpd | M::Pxor => Does(packed::pxor),
        M::Unpcklps | M::Punpckldq => Does(packed::punpckldq),
        M::Unpckhps | M::Punpckhdq => Does(packed::punpckhdq),
        M::Unpcklpd | M::Punpcklqdq => Does(packed::punpcklqdq),
        M::Unpckhpd | M::Punpckhqdq => Does(packed::punpckhqdq),
        M::Punpcklbw => Does(packed::punpcklbw),
        M::Punpcklwd => Does(packed::punpcklwd),
        M::Punpckhbw => Does(packed::punpckhbw),
        M::Punpckhwd => Does(packed::punpckhwd),
        M::Packsswb => Does(packed::packsswb),
        M::Packssdw => Does(packed::packssdw),
        M::Packuswb => Does(packed::packuswb),
        M::Paddb => Does(packed::paddb),
        M::Paddw => Does(packed::paddw),
        M::Paddd => Does(packed::paddd),
        M::Paddq => Does(packed::paddq),
        M::Paddsb => Does(packed::paddsb),
        M::Paddsw => Does(packed::paddsw),
        M::Paddusb => Does(packed::paddusb),
        M::Paddusw => Does(packed::paddusw),
        M::Psubb => Does(packed::psubb),
        M::Psubw => Does(packed::psubw),
        M::Psubd => Does(packed::psubd),
        M::Psubq => Does(packed::psubq),
        M::Psubsb => Does(packed::psubsb),
        M::Psubsw => Does(packed::psubsw),
        M::Psubusb => Does(packed::psubusb),
        M::Psubusw => Does(packed::psubusw),
        M::Pcmpeqb => Does(packed::pcmpeqb),
        M::Pcmpeqw => Does(packed::pcmpeqw),
        M::Pcmpeqd => Does(packed::pcmpeqd),
        M::Pcmpgtb => Does(packed::pcmpgtb),
        M::Pcmpgtw => Does(packed::pcmpgtw),
        M::Pcmpgtd => Does(packed::pcmpgtd),
        M::Pminub => Does(packed::pminub),
        M::Pmaxub => Does(packed::pmaxub),
        M::Pminsw => Does(packed::pminsw),
        M::Pmaxsw => Does(packed::pmaxsw),
        M::Pavgb => Does(packed::pavgb),
        M::Pavgw => Does(packed::pavgw),
        M::Psadbw => Does(packed::psadbw),
        M::Pmullw => Does(packed::pmullw),
        M::Pmulhw => Does(packed::pmulhw),
        M::Pmulhuw => Does(packed::pmulhuw),
        M::Pmuludq => Does(packed::pmuludq),
        M::Pmaddwd => Does(packed::pmaddwd),
        M::Psllw => Does(packed::psllw),
        M::Pslld => Does(packed::pslld),
        M::Psllq => Does(packed::psllq),
        M::Pslldq => Does(packed::pslldq),
        M::Psrlw => Does(packed::psrlw),
        M::Psrld => Does(packed::psrld),
        M::Psrlq => Does(packed::psrlq),
        M::Psrldq => Does(packed::psrldq),
        M::Psraw => Does(packed::psraw),
        M::Psrad => Does(packed::psrad),
        M::Pshufd => Does(shuffle::pshufd),
        M::Pshuflw => Does(shuffle::pshuflw),
        M::Pshufhw => Does(shuffle::pshufhw),
        M::Pshufw => Does(shuffle::pshufw),
        M::Shufps => Does(shuffle::shufps),
        M::Shufpd => Does(shuffle::shufpd),
        M::Pinsrw => Does(shuffle::pinsrw),
        M::Pextrw => Does(shuffle::pextrw),
        M::Pmovmskb => Does(shuffle::pmovmskb),
        M::Movmskps => Does(shuffle::movmskps),
        M::Movmskpd => Does(shuffle::movmskpd),

        M::Ldmxcsr => Does(sse::control::ldmxcsr),
        M::Stmxcsr => Does(sse::control::stmxcsr),
        M::Fxsave => Does(sse::control::fxsave),
        M::Fxsave64 => Does(sse::control::fxsave64),
        M::Fxrstor => Does(sse::control::fxrstor),
        M::Fxrstor64 => Does(sse::control::fxrstor64),

        _ => NotYet(MMX),
    }
}
