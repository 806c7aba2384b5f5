//! What CPUID answers, the same on every host. The model's name has a version in it: a change of these answers
//! must change that too.

use crate::paging::PHYSICAL_BITS;

/// What it calls itself: 48 bytes.
pub const NAME: &str = "Lockstep x86-64 software processor, model 2\0\0\0\0\0";
/// 12 bytes.
const VENDOR: &[u8; 12] = b"GenuineIntel";
/// Family 6, model 15, stepping 11.
const SIGNATURE: u32 = 0x6fb;

/// FPU DE PSE TSC MSR PAE CX8 PGE CMOV PAT CLFLUSH MMX FXSR SSE SSE2.
const FEATURES: u32 = 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 15
    | 1 << 16
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26;
/// CLFLUSH works on 64 bytes.
const CLFLUSH_LINE: u32 = 8 << 8;
/// SYSCALL NX PDPE1GB LM.
const EXTENDED: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 29;
/// LAHF in 64-bit mode.
const LAHF: u32 = 1;

/// The time-stamp counter's rate, Hz: a nanosecond is a step.
const TSC_HZ: u32 = 1_000_000_000;
/// The same in MHz.
const TSC_MHZ: u32 = TSC_HZ / 1_000_000;
/// The time-stamp counter has the same rate whatever the processor does.
const INVARIANT_TSC: u32 = 1 << 8;
/// IA32_TSC_ADJUST.
const TSC_ADJUST: u32 = 1 << 1;
/// IA32_ARCH_CAPABILITIES is there.
const ARCH_CAPABILITIES: u32 = 1 << 29;

const HIGHEST: u32 = 0x16;
const HIGHEST_EXTENDED: u32 = 0x8000_0008;

fn words(text: &[u8]) -> Vec<u32> {
    let chunks = text.chunks_exact(4);
    chunks
        .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect()
}

/// EAX, EBX, ECX and EDX.
pub fn leaf(number: u32) -> [u32; 4] {
    match number {
        0 => {
            let vendor = words(VENDOR);
            [HIGHEST, vendor[0], vendor[2], vendor[1]]
        }
        1 => [SIGNATURE, CLFLUSH_LINE, 0, FEATURES],
        7 => [0, TSC_ADJUST, 0, ARCH_CAPABILITIES],
        // The counter's rate is the crystal's, and the processor's.
        0x15 => [1, 1, TSC_HZ, 0],
        HIGHEST => [TSC_MHZ, TSC_MHZ, 0, 0],
        0x8000_0000 => [HIGHEST_EXTENDED, 0, 0, 0],
        0x8000_0001 => [0, 0, LAHF, EXTENDED],
        0x8000_0002..=0x8000_0004 => {
            let name = words(NAME.as_bytes());
            let at = 4 * (number - 0x8000_0002) as usize;
            [name[at], name[at + 1], name[at + 2], name[at + 3]]
        }
        0x8000_0007 => [0, 0, 0, INVARIANT_TSC],
        HIGHEST_EXTENDED => [48 << 8 | PHYSICAL_BITS, 0, 0, 0],
        _ if number < HIGHEST => [0; 4],
        // Beyond the highest, the answer is the highest basic leaf's.
        _ if !(0x8000_0000..=HIGHEST_EXTENDED).contains(&number) => leaf(HIGHEST),
        _ => [0; 4],
    }
}
