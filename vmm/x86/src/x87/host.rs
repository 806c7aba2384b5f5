//! Arithmetic on the host's own x87 unit: one operation on given operands, and nothing left behind.
//!
//! Each operation runs in a unit that FNINIT has just emptied, under the guest's control word: precision,
//! rounding and masks. An exception that the guest does not mask becomes pending there, which does no more
//! than set flags, because no waiting instruction follows before FNCLEX. So the result is the processor's
//! own, with the bias of an unmasked overflow and all. The host's control word is put back, and the unit
//! is empty, as Rust's calling convention wants it.
#![allow(unsafe_code, reason = "x87 instructions have no intrinsics")]

use std::arch::asm;
use std::mem::offset_of;

/// Operands and results of one operation.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Job {
    /// ST(0), before and after: 80 bits.
    pub a: u128,
    /// ST(1), before and after.
    pub b: u128,
    /// The operand in memory, or what is written there.
    pub memory: u128,
    /// The guest's control word.
    pub fcw: u16,
    /// The status word that comes of it.
    pub fsw: u16,
    host: u16,
}

/// Runs one operation.
pub type Operation = fn(&mut Job);

impl Job {
    /// Of these operands, under this control word.
    pub fn new(fcw: u16, a: u128, b: u128, memory: u128) -> Job {
        Job {
            a,
            b,
            memory,
            fcw,
            fsw: 0,
            host: 0,
        }
    }
}

/// Functions that run an instruction between loading what `$before` says and storing what `$after` says.
macro_rules! operations {
    ($($name:ident: [$($before:literal)*] $instruction:literal [$($after:literal)*])*) => {$(
        pub fn $name(job: &mut Job) {
            // SAFETY: it reads and writes `job` alone, and what Rust may expect of the x87 unit (it is
            // empty, its control word is as before) holds afterwards. No exception is taken: FNSTCW,
            // FNSTSW, FNINIT and FNCLEX do not wait, and what waits follows FNINIT or FNCLEX.
            unsafe {
                asm!(
                    "fnstcw [{job} + {host}]",
                    "fninit",
                    "fldcw [{job} + {fcw}]",
                    $($before,)*
                    $instruction,
                    "fnstsw [{job} + {fsw}]",
                    "fnclex",
                    $($after,)*
                    "fninit",
                    "fldcw [{job} + {host}]",
                    "/* {a} {b} {m} */",
                    job = in(reg) job,
                    a = const offset_of!(Job, a),
                    b = const offset_of!(Job, b),
                    m = const offset_of!(Job, memory),
                    fcw = const offset_of!(Job, fcw),
                    fsw = const offset_of!(Job, fsw),
                    host = const offset_of!(Job, host),
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    options(nostack),
                );
            }
        }
    )*};
}

/// The same for what works on ST(0) and ST(1), changes ST(0), and may have an operand in memory.
macro_rules! on_two {
    ($($name:ident $instruction:literal)*) => {operations! {$(
        $name:
            ["fld tbyte ptr [{job} + {b}]" "fld tbyte ptr [{job} + {a}]"]
            $instruction
            ["fstp tbyte ptr [{job} + {a}]"]
    )*}};
}

/// The same for what works on ST(0) alone, which may go to memory.
macro_rules! on_one {
    ($($name:ident $instruction:literal)*) => {operations! {$(
        $name:
            ["fld tbyte ptr [{job} + {a}]"]
            $instruction
            ["fstp tbyte ptr [{job} + {a}]"]
    )*}};
}

/// The same for what loads.
macro_rules! loads {
    ($($name:ident $instruction:literal)*) => {operations! {$(
        $name: [] $instruction ["fstp tbyte ptr [{job} + {a}]"]
    )*}};
}

/// Arithmetic, with the source in a register or in memory.
#[allow(missing_docs, reason = "the names are the instructions'")]
pub mod arithmetic {
    use super::{Job, asm, offset_of};

    on_two! {
        add "fadd st, st(1)"
        add_32 "fadd dword ptr [{job} + {m}]"
        add_64 "fadd qword ptr [{job} + {m}]"
        add_int_16 "fiadd word ptr [{job} + {m}]"
        add_int_32 "fiadd dword ptr [{job} + {m}]"
        sub "fsub st, st(1)"
        sub_32 "fsub dword ptr [{job} + {m}]"
        sub_64 "fsub qword ptr [{job} + {m}]"
        sub_int_16 "fisub word ptr [{job} + {m}]"
        sub_int_32 "fisub dword ptr [{job} + {m}]"
        subr "fsubr st, st(1)"
        subr_32 "fsubr dword ptr [{job} + {m}]"
        subr_64 "fsubr qword ptr [{job} + {m}]"
        subr_int_16 "fisubr word ptr [{job} + {m}]"
        subr_int_32 "fisubr dword ptr [{job} + {m}]"
        mul "fmul st, st(1)"
        mul_32 "fmul dword ptr [{job} + {m}]"
        mul_64 "fmul qword ptr [{job} + {m}]"
        mul_int_16 "fimul word ptr [{job} + {m}]"
        mul_int_32 "fimul dword ptr [{job} + {m}]"
        div "fdiv st, st(1)"
        div_32 "fdiv dword ptr [{job} + {m}]"
        div_64 "fdiv qword ptr [{job} + {m}]"
        div_int_16 "fidiv word ptr [{job} + {m}]"
        div_int_32 "fidiv dword ptr [{job} + {m}]"
        divr "fdivr st, st(1)"
        divr_32 "fdivr dword ptr [{job} + {m}]"
        divr_64 "fdivr qword ptr [{job} + {m}]"
        divr_int_16 "fidivr word ptr [{job} + {m}]"
        divr_int_32 "fidivr dword ptr [{job} + {m}]"
        scale "fscale"
        rem "fprem"
        rem1 "fprem1"
    }

    on_one! {
        sqrt "fsqrt"
        round "frndint"
    }

    operations! {
        extract:
            ["fld tbyte ptr [{job} + {a}]"]
            "fxtract"
            ["fstp tbyte ptr [{job} + {a}]" "fstp tbyte ptr [{job} + {b}]"]
    }
}

/// Comparing: the result is in the status word.
#[allow(missing_docs, reason = "the names are the instructions'")]
pub mod comparison {
    use super::{Job, asm, offset_of};

    on_two! {
        com "fcom st(1)"
        com_32 "fcom dword ptr [{job} + {m}]"
        com_64 "fcom qword ptr [{job} + {m}]"
        com_int_16 "ficom word ptr [{job} + {m}]"
        com_int_32 "ficom dword ptr [{job} + {m}]"
        ucom "fucom st(1)"
    }

    on_one! {
        test "ftst"
    }
}

/// Loading and storing, with conversion.
#[allow(missing_docs, reason = "the names are the instructions'")]
pub mod conversion {
    use super::{Job, asm, offset_of};

    loads! {
        load_32 "fld dword ptr [{job} + {m}]"
        load_64 "fld qword ptr [{job} + {m}]"
        one "fld1"
        log2_10 "fldl2t"
        log2_e "fldl2e"
        pi "fldpi"
        log10_2 "fldlg2"
        ln_2 "fldln2"
        zero "fldz"
    }

    on_one! {
        store_32 "fst dword ptr [{job} + {m}]"
        store_64 "fst qword ptr [{job} + {m}]"
        store_int_16 "fist word ptr [{job} + {m}]"
        store_int_32 "fist dword ptr [{job} + {m}]"
    }

    operations! {
        store_int_64:
            ["fld tbyte ptr [{job} + {a}]"] "fistp qword ptr [{job} + {m}]" []
        store_bcd:
            ["fld tbyte ptr [{job} + {a}]"] "fbstp tbyte ptr [{job} + {m}]" []
    }
}

/// What is computed in software, to compare with.
#[cfg(test)]
#[allow(missing_docs, reason = "the names are the instructions'")]
pub mod functions {
    use super::{Job, asm, offset_of};

    on_one! {
        exp2_minus_1 "f2xm1"
        sin "fsin"
        cos "fcos"
    }

    on_two! {
        log2 "fyl2x"
        log2_of_1_plus "fyl2xp1"
        atan "fpatan"
    }

    operations! {
        tan:
            ["fld tbyte ptr [{job} + {a}]"]
            "fptan"
            ["fstp tbyte ptr [{job} + {b}]" "fstp tbyte ptr [{job} + {a}]"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control_word() -> u16 {
        let mut word = 0u16;
        // SAFETY: it writes to `word` alone.
        unsafe { asm!("fnstcw [{word}]", word = in(reg) &mut word, options(nostack)) };
        word
    }

    /// 1/3, rounded as the guest wants, whatever the host's thread had set.
    #[test]
    fn the_guests_rounding_holds_and_the_hosts_comes_back() {
        const ONE: u128 = 0x3fff_8000_0000_0000_0000;
        const THREE: u128 = 0x4000_c000_0000_0000_0000;
        let third = |fcw: u16| {
            let mut job = Job::new(fcw, ONE, THREE, 0);
            arithmetic::div(&mut job);
            (job.a, job.fsw & 0x3f)
        };
        for host in [0x37f_u16, 0x27f, 0xf7f, 0x340] {
            // SAFETY: nothing here is x87 code but what is under test, and the usual control word comes back.
            unsafe { asm!("fldcw [{word}]", word = in(reg) &host, options(nostack)) };
            let found = [third(0x37f), third(0xb7f), third(0x7f), third(0x340)];
            let after = control_word();
            // SAFETY: it is the usual control word.
            unsafe { asm!("fninit", options(nostack)) };
            assert_eq!(after, host);
            assert_eq!(found[0], (0x3ffd_aaaa_aaaa_aaaa_aaab, 0x20));
            assert_eq!(found[1], (0x3ffd_aaaa_aaaa_aaaa_aaab, 0x20));
            assert_eq!(found[2], (0x3ffd_aaaa_ab00_0000_0000, 0x20));
            assert_eq!(found[3], (0x3ffd_aaaa_aaaa_aaaa_aaab, 0x20));
        }
    }
}
