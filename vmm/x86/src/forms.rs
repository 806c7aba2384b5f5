//! The table from instructions to handlers: what each mnemonic means here, and why those that mean nothing
//! do not.

use crate::form::Form;
use crate::integer::{alu, bits, decimal, moves, muldiv, shift};
use crate::op::Handler;
use crate::sse::float;
use crate::{branch, descriptors, far, io_ports, mmx, segments, sse, stack, string, system, x87};
use iced_x86::{CpuidFeature, Instruction, Mnemonic};

/// What a mnemonic means on this processor.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// It is done by what this chooses.
    Does(fn(&Form) -> Handler),
    /// It raises #UD on this processor, for this reason.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the test of coverage prints it")
    )]
    Undefined(&'static str),
    /// It is no instruction of the baseline: #UD.
    Absent,
}

/// Which handler runs this instruction.
pub fn handler(form: &Form) -> Handler {
    let handler = match meaning(form.instruction) {
        Meaning::Does(choose) => choose(form),
        Meaning::Undefined(_) | Meaning::Absent => branch::ud(form),
    };
    #[cfg(test)]
    let handler = crate::differential::planted::planted(form, handler);
    handler
}

/// What an instruction means on this processor.
pub fn meaning(instruction: &Instruction) -> Meaning {
    let features = instruction.cpuid_features();
    match features.iter().all(|f| baseline(*f)) {
        true if features.contains(&CpuidFeature::MMX) => of_mmx(instruction.mnemonic()),
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
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
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
            | F::PREFETCHW
            | F::CLFSH
            | F::CET_IBT
    )
}

/// What a mnemonic means on MMX registers, where that is not what it means on XMM registers with half as
/// many bits.
fn of_mmx(mnemonic: Mnemonic) -> Meaning {
    use Meaning::Does;
    use Mnemonic as M;
    match mnemonic {
        M::Movd | M::Movq => Does(mmx::movd_movq),
        M::Punpcklbw => Does(mmx::punpcklbw),
        M::Punpcklwd => Does(mmx::punpcklwd),
        M::Punpckldq => Does(mmx::punpckldq),
        M::Punpckhbw => Does(mmx::punpckhbw),
        M::Punpckhwd => Does(mmx::punpckhwd),
        M::Punpckhdq => Does(mmx::punpckhdq),
        M::Packsswb => Does(mmx::packsswb),
        M::Packssdw => Does(mmx::packssdw),
        M::Packuswb => Does(mmx::packuswb),
        M::Emms => Does(mmx::emms),
        other => of_mnemonic(other, false),
    }
}

/// What a mnemonic means. Those of the baseline all stand here; a test sees to it.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "a table")]
fn of_mnemonic(mnemonic: Mnemonic, on_strings: bool) -> Meaning {
    use Meaning::{Does, Undefined};
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
        | M::Prefetch | M::Prefetchw | M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 => Does(moves::nop),
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
        M::Invd | M::Wbinvd | M::Invlpg => Does(system::privileged_nop),
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

        other => x87::forms::of_mnemonic(other).or_else(|| sse::forms::of_mnemonic(other)).unwrap_or(Meaning::Absent),
    }
}
