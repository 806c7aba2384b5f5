//! The instruction allowlist: a guest may contain only instructions whose result depends on nothing but
//! the machine's state.
//!
//! Whole instruction set extensions are allowed. Within them, single instructions are refused: those
//! that read a clock, a random number, the CPU's identity or hidden state, and those that make one exit
//! per byte (string I/O). Everything else is refused too, also bytes that do not decode.

use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, NasmFormatter,
};
use std::fmt;

/// An instruction that keeps an image from being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Guest address.
    pub address: u64,
    /// The function that contains it, and the distance from the function's start.
    pub symbol: Option<(String, u64)>,
    /// In Intel syntax; `None` if the bytes do not decode.
    pub instruction: Option<String>,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Nondeterministic,
    StringIo,
    Extension,
    Undecodable,
}

impl Refused {
    /// What the guest's author can do about it.
    pub fn advice(&self) -> &'static str {
        match self.why {
            Why::Nondeterministic => {
                "build the guest without it and ask the machine instead (clock page, boot info)"
            }
            Why::StringIo => "use single IN and OUT instructions or virtio-console",
            Why::Extension => "build the guest for baseline x86-64 (SSE2)",
            Why::Undecodable => "keep data out of executable segments",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instruction {
            Some(text) => write!(f, "instruction `{text}` at {:#x}", self.address)?,
            None => write!(f, "bytes that are no instruction at {:#x}", self.address)?,
        }
        if let Some((symbol, offset)) = &self.symbol {
            write!(f, " ({symbol}+{offset:#x})")?;
        }
        match self.why {
            Why::Nondeterministic => write!(f, " has a result that no replay can reproduce"),
            Why::StringIo => write!(f, " is string I/O"),
            Why::Extension => write!(f, " is not on the allowlist"),
            Why::Undecodable => write!(f, " cannot be checked"),
        }
    }
}

/// Checks all of `code`, which will lie at guest address `base`.
pub fn check(code: &[u8], base: u64, symbols: &[(u64, String)]) -> Result<(), Refused> {
    // Compilers for baseline x86-64 write BSF with a prefix that makes it TZCNT on CPUs that have
    // TZCNT. They do so only where the operand is not zero and the flags are not used: then both give
    // the same result. So it is decoded as BSF here. The flags do differ, which is one reason why a
    // pair needs equal CPUs.
    let mut decoder = Decoder::with_ip(64, code, base, DecoderOptions::NO_MPFX_0FBC);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if let Some(why) = verdict(&instruction) {
            return Err(refused(&instruction, why, symbols));
        }
    }
    Ok(())
}

fn verdict(instruction: &Instruction) -> Option<Why> {
    use Mnemonic as M;
    if instruction.is_invalid() {
        return Some(Why::Undecodable);
    }
    match instruction.mnemonic() {
        // Clocks, random numbers, the CPU's identity, counters, hidden state.
        M::Rdtsc | M::Rdtscp | M::Rdpid | M::Rdpmc | M::Rdpru | M::Rdrand | M::Rdseed
        | M::Cpuid | M::Xgetbv | M::Rdmsr | M::Wrmsr | M::Sgdt | M::Sidt | M::Str | M::Sldt
        | M::Smsw | M::Lsl | M::Lar | M::Verr | M::Verw | M::Vmcall | M::Vmmcall
        // Waits whose end is not at a position.
        | M::Monitor | M::Mwait | M::Umonitor | M::Umwait | M::Tpause
        // Approximations that differ between CPU vendors.
        | M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss
        // x87 transcendental functions, which differ too.
        | M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::Fpatan | M::F2xm1 | M::Fyl2x
        | M::Fyl2xp1 => Some(Why::Nondeterministic),
        M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => Some(Why::StringIo),
        _ if instruction.cpuid_features().iter().all(|f| allowed(*f)) => None,
        _ => Some(Why::Extension),
    }
}

fn allowed(feature: CpuidFeature) -> bool {
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
            | F::CX8
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::FXSR
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::CLFSH
            | F::CET_IBT
    )
}

fn refused(instruction: &Instruction, why: Why, symbols: &[(u64, String)]) -> Refused {
    let address = instruction.ip();
    let before = symbols.partition_point(|(at, _)| *at <= address);
    let symbol = before.checked_sub(1).map(|index| {
        let (at, name) = &symbols[index];
        (name.clone(), address - at)
    });
    let text = (why != Why::Undecodable).then(|| {
        let mut text = String::new();
        NasmFormatter::new().format(instruction, &mut text);
        text
    });
    Refused {
        address,
        symbol,
        instruction: text,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(code: &[u8]) -> Option<String> {
        let symbols = [(0x20_0000, "main".to_string())];
        check(code, 0x20_0000, &symbols)
            .err()
            .map(|r| r.to_string())
    }

    #[test]
    fn everything_that_no_replay_can_reproduce_is_refused_by_name() {
        let refused: &[(&[u8], &str)] = &[
            (&[0x0f, 0x31], "rdtsc"),
            (&[0x0f, 0x01, 0xf9], "rdtscp"),
            (&[0xf3, 0x0f, 0xc7, 0xf8], "rdpid"),
            (&[0x0f, 0x33], "rdpmc"),
            (&[0x0f, 0xc7, 0xf0], "rdrand"),
            (&[0x0f, 0xc7, 0xf8], "rdseed"),
            (&[0x0f, 0xa2], "cpuid"),
            (&[0x0f, 0x01, 0xd0], "xgetbv"),
            (&[0x0f, 0xae, 0x20], "xsave"),
            (&[0xc7, 0xf8, 0, 0, 0, 0], "xbegin"),
            (&[0x0f, 0x01, 0xc8], "monitor"),
            (&[0x66, 0x0f, 0xae, 0xf0], "tpause"),
            (&[0x0f, 0x01, 0x00], "sgdt"),
            (&[0x0f, 0x00, 0xc8], "str"),
            (&[0x0f, 0x03, 0xc0], "lsl"),
            (&[0x6c], "insb"),
            (&[0xf3, 0x6e], "outsb"),
            (&[0xd9, 0xfe], "fsin"),
            (&[0x0f, 0x53, 0xc0], "rcpps"),
            (&[0xc5, 0xfc, 0x57, 0xc0], "vxorps"),
            (&[0xf3, 0x0f, 0xb8, 0xc0], "popcnt"),
        ];
        for (code, name) in refused {
            // A harmless instruction before it shows that the reported address is right.
            let message = first(&[&[0x90], *code].concat()).unwrap_or_default();
            assert!(message.contains(name), "{name}: {message}");
            assert!(message.contains("0x200001 (main+0x1)"), "{message}");
        }
    }

    #[test]
    fn bytes_that_are_no_instruction_are_refused() {
        assert!(first(&[0x06]).unwrap().contains("no instruction"));
        assert!(first(&[0x0f]).unwrap().contains("no instruction"));
    }

    #[test]
    fn ordinary_code_passes() {
        // mov eax,1; rep bsf eax,eax; out dx,eax; in eax,dx; addsd xmm0,xmm1; sqrtsd xmm0,xmm1; rep movsb; iretq; hlt; lgdt [rax]
        let code = [
            0xb8, 1, 0, 0, 0, 0xf3, 0x0f, 0xbc, 0xc0, 0xef, 0xed, 0xf2, 0x0f, 0x58, 0xc1, 0xf2,
            0x0f, 0x51, 0xc1, 0xf3, 0xa4, 0x48, 0xcf, 0xf4, 0x0f, 0x01, 0x10,
        ];
        assert_eq!(first(&code), None);
    }
}
