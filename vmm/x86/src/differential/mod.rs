//! This CPU against the host's: random code, run on both, everything compared.
//!
//! Left out is what a process must not or cannot do: system calls and software interrupts, loading segment
//! registers, single steps and alignment checks (TF and AC), what tells of the host (CPUID, RDTSC and
//! descriptor tables), and what is computed in software (x87 functions, approximations of reciprocals).
//! `tests/system` runs those that belong to a system, and `x87::tests` and `sse::approximate` the others.
//!
//! A case whose code is written over by an instruction that repeats does not count either: how many of its
//! iterations a processor makes before it looks at the new bytes is its own affair.
//!
//! On Intel's processors nothing is masked: what the manual leaves undefined is to be the same too. On
//! others flags that an instruction leaves undefined do not reach the next one, and what differs between
//! vendors by design is left out: see [`masked`].

pub mod assemble;
mod campaign;
mod compare;
pub mod generate;
pub mod layout;
mod leaks;
pub mod native;
mod operand;
mod pair;
pub mod planted;
mod prepare;
pub mod random;
pub mod soft;
mod speed;
mod tests;
pub mod x87;

use crate::forms::{self, Meaning};
use crate::state::Mode;
use iced_x86::{Code, CpuidFeature as F, Instruction, Mnemonic, OpCodeOperandKind as Kind};
use std::sync::LazyLock;

/// Which forms a campaign draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// All, in 64-bit mode.
    All,
    /// SSE and SSE2, FXSAVE and FXRSTOR.
    Sse,
    /// x87 and MMX.
    X87,
    /// All, in compatibility mode.
    Compatible,
}

impl Set {
    /// Each of them.
    pub const ALL: [Set; 4] = [Set::All, Set::Sse, Set::X87, Set::Compatible];

    /// How much of a campaign it gets.
    fn tenths(self) -> u64 {
        match self {
            Set::All => 4,
            Set::Sse | Set::X87 | Set::Compatible => 2,
        }
    }

    /// The mode that its code runs in.
    pub fn mode(self) -> Mode {
        match self {
            Set::All | Set::Sse | Set::X87 => Mode::Long,
            Set::Compatible => Mode::Compat32,
        }
    }

    /// Its forms: what a process can run.
    pub fn forms(self) -> Vec<Code> {
        let has = |code: &Code, wanted: &[F]| {
            let features = code.cpuid_features();
            features.iter().any(|feature| wanted.contains(feature))
        };
        let belongs = |code: &Code| match self {
            Set::All | Set::Compatible => true,
            Set::Sse => has(code, &[F::SSE, F::SSE2, F::FXSR]),
            Set::X87 => has(code, &[F::FPU, F::FPU287, F::FPU387, F::MMX]),
        };
        let mut forms = forms(self.mode());
        forms.retain(belongs);
        forms
    }
}

/// Forms that a process can run in this mode.
pub fn forms(mode: Mode) -> Vec<Code> {
    let there = |code: &Code| {
        let info = code.op_code();
        let in_mode = match mode {
            Mode::Long => info.mode64(),
            Mode::Compat32 => info.mode32(),
        };
        info.is_instruction() && in_mode
    };
    let vendors = |code: &Code| masked() && left_to_vendors(*code);
    let forms = Code::values().filter(there).filter(|code| does(*code));
    forms
        .filter(|code| !left_out(*code) && !vendors(code))
        .collect()
}

/// Is what vendors do in different ways left out? `LOCKSTEP_VENDOR=other` says yes, also on Intel's.
pub fn masked() -> bool {
    // CPUID takes long inside a virtual machine.
    static MASKED: LazyLock<bool> = LazyLock::new(|| {
        let name = std::arch::x86_64::__cpuid(0);
        let intel = [name.ebx, name.edx, name.ecx] == [0x756e_6547, 0x4965_6e69, 0x6c65_746e];
        !intel || std::env::var("LOCKSTEP_VENDOR").is_ok_and(|vendor| vendor == "other")
    });
    *MASKED
}

/// Where other vendors' processors differ beyond flags: the partial remainder, and what stores the last
/// x87 instruction's addresses.
fn left_to_vendors(code: Code) -> bool {
    use Mnemonic as M;
    matches!(
        code.mnemonic(),
        M::Fprem
            | M::Fprem1
            | M::Fnstenv
            | M::Fstenv
            | M::Fnsave
            | M::Fsave
            | M::Fxsave
            | M::Fxsave64
    )
}

/// Is it done here?
fn does(code: Code) -> bool {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    matches!(forms::meaning(&instruction), Meaning::Does(_))
}

/// See the module's documentation.
#[rustfmt::skip]
fn left_out(code: Code) -> bool {
    use Mnemonic as M;
    let segment = ["_Sreg", "_FS", "_GS", "_SS", "_DS", "_ES", "_CS"];
    let name = format!("{code:?}");
    // Near branches of 16 bits are AMD's in 64-bit mode; there, as on Intel's, the prefix does nothing. In
    // compatibility mode they go to the first 64 KiB.
    if code.op_code().op_kinds().iter().any(|kind| matches!(kind, Kind::br16_1 | Kind::br16_2)) {
        return true;
    }
    match code.mnemonic() {
        M::Syscall | M::Int | M::Int1 | M::Retf | M::Iret | M::Iretd | M::Iretq | M::Sysret | M::Sysretq
        | M::Cpuid | M::Rdtsc | M::Rdpmc | M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw
        | M::Lar | M::Lsl | M::Verr | M::Verw | M::Lfs | M::Lgs | M::Lss | M::Lds | M::Les => true,
        M::Mov | M::Push | M::Pop => segment.iter().any(|s| name.contains(s)),
        // As above for the operand size of 16 bits; and far ones.
        M::Ret => matches!(code, Code::Retnw | Code::Retnw_imm16),
        M::Jmp | M::Call => !name.contains("_rel") && !name.ends_with("_rm32") && !name.ends_with("_rm64"),
        M::Ud0 | M::Ud1 => true,
        _ => computed(code),
    }
}

/// Is it computed in software, with a result that is not the host's?
pub fn computed(code: Code) -> bool {
    use Mnemonic as M;
    #[rustfmt::skip]
    let computed = [
        M::Rcpss, M::Rcpps, M::Rsqrtss, M::Rsqrtps,
        M::F2xm1, M::Fcos, M::Fpatan, M::Fptan, M::Fsin, M::Fsincos, M::Fyl2x, M::Fyl2xp1,
    ];
    computed.contains(&code.mnemonic())
}

/// Where a campaign begins: `LOCKSTEP_SEED` in hexadecimal.
pub fn seed() -> u64 {
    match std::env::var("LOCKSTEP_SEED") {
        Ok(text) => {
            let digits = text.trim_start_matches("0x");
            u64::from_str_radix(digits, 16).expect("LOCKSTEP_SEED is a hexadecimal number")
        }
        Err(_) => 0x10c5,
    }
}
