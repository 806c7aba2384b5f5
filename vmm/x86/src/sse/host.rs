//! The host's own instructions, under the guest's MXCSR.
//!
//! Each of these is one instruction between loading an MXCSR and loading the host's again. What it is given
//! has all exceptions masked and no flags set; what it gives back is the flags that the instruction set.
#![allow(unsafe_code, reason = "instructions that have no safe intrinsics")]

use core::arch::asm;
use core::arch::x86_64::*;

/// The exception flags of MXCSR.
pub const FLAGS: u32 = 0x3f;
/// The bits that mask exceptions.
pub const MASKS: u32 = 0x1f80;

/// A register as intrinsics want it.
#[inline(always)]
pub fn vector(number: u128) -> __m128i {
    // SAFETY: both are 16 bytes, and any bytes are either.
    unsafe { core::mem::transmute::<u128, __m128i>(number) }
}

/// The other way.
#[inline(always)]
pub fn number(vector: __m128i) -> u128 {
    // SAFETY: as in `vector`.
    unsafe { core::mem::transmute::<__m128i, u128>(vector) }
}

/// The host's MXCSR.
pub fn mxcsr() -> u32 {
    let mut word = 0u32;
    // SAFETY: the word is this function's.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
    word
}

/// Runs instructions under this MXCSR: the flags that they set.
macro_rules! under {
    ($mxcsr:expr, [$($text:expr),+], $($operands:tt)*) => {{
        debug_assert_eq!($mxcsr & (FLAGS | MASKS), MASKS);
        let mut guest: u32 = $mxcsr;
        let mut host = 0u32;
        // SAFETY: the instructions work on registers that the operands name, and cannot fault: all
        // exceptions are masked, and no reserved bit is set, since the guest could not set one. The two
        // words are this function's. MXCSR is as before afterwards.
        unsafe {
            asm!(
                "stmxcsr [{host}]",
                "ldmxcsr [{guest}]",
                $($text,)+
                "stmxcsr [{guest}]",
                "ldmxcsr [{host}]",
                guest = in(reg) &raw mut guest,
                host = in(reg) &raw mut host,
                $($operands)*
                options(nostack)
            );
        }
        guest & FLAGS
    }};
}

/// From what the destination holds and the source to what the destination will hold.
macro_rules! operations {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name(mxcsr: u32, a: u128, b: u128) -> (u128, u32) {
            let (mut a, b) = (vector(a), vector(b));
            let flags = under!(
                mxcsr,
                [concat!(stringify!($name), " {a}, {b}")],
                a = inout(xmm_reg) a,
                b = in(xmm_reg) b,
            );
            (number(a), flags)
        }
    )*};
}
operations! {
    addps addpd addss addsd
    subps subpd subss subsd
    mulps mulpd mulss mulsd
    divps divpd divss divsd
    minps minpd minss minsd
    maxps maxpd maxss maxsd
    sqrtps sqrtpd sqrtss sqrtsd
    cvtps2pd cvtpd2ps cvtss2sd cvtsd2ss
    cvtdq2ps cvtps2dq cvttps2dq
    cvtdq2pd cvtpd2dq cvttpd2dq
}

/// The same with predicate `P`.
macro_rules! comparisons {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name<const P: u8>(mxcsr: u32, a: u128, b: u128) -> (u128, u32) {
            let (mut a, b) = (vector(a), vector(b));
            let flags = under!(
                mxcsr,
                [concat!(stringify!($name), " {a}, {b}, {p}")],
                a = inout(xmm_reg) a,
                b = in(xmm_reg) b,
                p = const P,
            );
            (number(a), flags)
        }
    )*};
}
comparisons! { cmpps cmppd cmpss cmpsd }

/// From two registers to ZF, PF and CF, where they are in RFLAGS.
macro_rules! orders {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name(mxcsr: u32, a: u128, b: u128) -> (u64, u32) {
            let (z, p, c): (u8, u8, u8);
            let flags = under!(
                mxcsr,
                [concat!(stringify!($name), " {a}, {b}"), "setz {z}", "setp {p}", "setc {c}"],
                a = in(xmm_reg) vector(a),
                b = in(xmm_reg) vector(b),
                z = out(reg_byte) z,
                p = out(reg_byte) p,
                c = out(reg_byte) c,
            );
            (u64::from(z << 6 | p << 2 | c), flags)
        }
    )*};
}
orders! { comiss comisd ucomiss ucomisd }

/// To a general register of `S` bytes.
macro_rules! to_general {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name<const S: u8>(mxcsr: u32, b: u128) -> (u64, u32) {
            let b = vector(b);
            let value: u64;
            let flags = match S {
                4 => under!(
                    mxcsr,
                    [concat!(stringify!($name), " {r:e}, {b}")],
                    r = out(reg) value,
                    b = in(xmm_reg) b,
                ),
                _ => under!(
                    mxcsr,
                    [concat!(stringify!($name), " {r:r}, {b}")],
                    r = out(reg) value,
                    b = in(xmm_reg) b,
                ),
            };
            (value, flags)
        }
    )*};
}
to_general! { cvtss2si cvtsd2si cvttss2si cvttsd2si }

/// From one of `S` bytes.
macro_rules! from_general {
    ($($name:ident)*) => {$(
        #[inline(always)]
        pub fn $name<const S: u8>(mxcsr: u32, a: u128, value: u64) -> (u128, u32) {
            let mut a = vector(a);
            let flags = match S {
                4 => under!(
                    mxcsr,
                    [concat!(stringify!($name), " {a}, {r:e}")],
                    a = inout(xmm_reg) a,
                    r = in(reg) value,
                ),
                _ => under!(
                    mxcsr,
                    [concat!(stringify!($name), " {a}, {r:r}")],
                    a = inout(xmm_reg) a,
                    r = in(reg) value,
                ),
            };
            (number(a), flags)
        }
    )*};
}
from_general! { cvtsi2ss cvtsi2sd }

/// Packed integers, which MXCSR has nothing to do with.
macro_rules! integers {
    ($($name:ident $intrinsic:ident)*) => {$(
        #[inline(always)]
        pub fn $name(a: u128, b: u128) -> u128 {
            // SAFETY: every x86-64 processor has SSE2.
            number(unsafe { $intrinsic(vector(a), vector(b)) })
        }
    )*};
}
integers! {
    punpcklbw _mm_unpacklo_epi8 punpcklwd _mm_unpacklo_epi16
    punpckldq _mm_unpacklo_epi32 punpcklqdq _mm_unpacklo_epi64
    punpckhbw _mm_unpackhi_epi8 punpckhwd _mm_unpackhi_epi16
    punpckhdq _mm_unpackhi_epi32 punpckhqdq _mm_unpackhi_epi64
    packsswb _mm_packs_epi16 packssdw _mm_packs_epi32 packuswb _mm_packus_epi16
    paddb _mm_add_epi8 paddw _mm_add_epi16 paddd _mm_add_epi32 paddq _mm_add_epi64
    paddsb _mm_adds_epi8 paddsw _mm_adds_epi16 paddusb _mm_adds_epu8 paddusw _mm_adds_epu16
    psubb _mm_sub_epi8 psubw _mm_sub_epi16 psubd _mm_sub_epi32 psubq _mm_sub_epi64
    psubsb _mm_subs_epi8 psubsw _mm_subs_epi16 psubusb _mm_subs_epu8 psubusw _mm_subs_epu16
    pcmpeqb _mm_cmpeq_epi8 pcmpeqw _mm_cmpeq_epi16 pcmpeqd _mm_cmpeq_epi32
    pcmpgtb _mm_cmpgt_epi8 pcmpgtw _mm_cmpgt_epi16 pcmpgtd _mm_cmpgt_epi32
    pminub _mm_min_epu8 pmaxub _mm_max_epu8 pminsw _mm_min_epi16 pmaxsw _mm_max_epi16
    pavgb _mm_avg_epu8 pavgw _mm_avg_epu16 psadbw _mm_sad_epu8
    pmullw _mm_mullo_epi16 pmulhw _mm_mulhi_epi16 pmulhuw _mm_mulhi_epu16
    pmuludq _mm_mul_epu32 pmaddwd _mm_madd_epi16
    pand _mm_and_si128 pandn _mm_andnot_si128 por _mm_or_si128 pxor _mm_xor_si128
    psllw _mm_sll_epi16 pslld _mm_sll_epi32 psllq _mm_sll_epi64
    psrlw _mm_srl_epi16 psrld _mm_srl_epi32 psrlq _mm_srl_epi64
    psraw _mm_sra_epi16 psrad _mm_sra_epi32
}

/// The highest bits of the parts of a register.
macro_rules! signs {
    ($($name:ident $intrinsic:ident $as:path;)*) => {$(
        #[inline(always)]
        pub fn $name(value: u128) -> i32 {
            // SAFETY: as above.
            unsafe { $intrinsic($as(vector(value))) }
        }
    )*};
}
signs! {
    pmovmskb _mm_movemask_epi8 core::convert::identity;
    movmskps _mm_movemask_ps _mm_castsi128_ps;
    movmskpd _mm_movemask_pd _mm_castsi128_pd;
}
