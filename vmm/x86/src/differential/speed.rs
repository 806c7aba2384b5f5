//! How fast this CPU is, beside the host's, in loops that are hot.

use super::layout;
use super::native::Registers;
use super::soft::Soft;
use crate::state::Mode;
use std::arch::global_asm;
use std::time::Instant;

macro_rules! kernel {
    ($name:literal, $($line:literal),* $(,)?) => {
        global_asm!(
            ".pushsection .text",
            concat!($name, "_begin:"),
            $($line,)*
            concat!($name, "_end:"),
            ".popsection",
        );
    };
}

// RBX points at 4 KiB of data, RCX is how often.
kernel!(
    "lockstep_speed_sum",
    "2:",
    "xor esi, esi",
    "3:",
    "mov rax, [rbx + rsi * 8]",
    "add rdx, rax",
    "xor rdx, rsi",
    "mov [rbx + rsi * 8], rdx",
    "inc esi",
    "cmp esi, 512",
    "jne 3b",
    "dec rcx",
    "jne 2b",
);
kernel!(
    "lockstep_speed_sieve",
    "2:",
    "mov esi, 3",
    "3:",
    "mov edi, esi",
    "4:",
    "mov byte ptr [rbx + rdi], 1",
    "add edi, esi",
    "cmp edi, 4096",
    "jb 4b",
    "5:",
    "add esi, 2",
    "cmp byte ptr [rbx + rsi], 0",
    "jne 6f",
    "6:",
    "cmp esi, 64",
    "jb 3b",
    "dec rcx",
    "jne 2b",
);
kernel!(
    "lockstep_speed_hash",
    "2:",
    "xor esi, esi",
    "mov rax, 0x1234567",
    "3:",
    "movzx edi, byte ptr [rbx + rsi]",
    "xor rax, rdi",
    "imul rax, rax, 0x1000193",
    "rol rax, 5",
    "add rsi, 1",
    "cmp rsi, 4096",
    "jb 3b",
    "dec rcx",
    "jne 2b",
);
kernel!(
    "lockstep_speed_calls",
    "2:",
    "mov edi, 12",
    "call 7f",
    "dec rcx",
    "jne 2b",
    "jmp 9f",
    "7:",
    "cmp edi, 2",
    "jb 8f",
    "push rdi",
    "sub edi, 1",
    "call 7b",
    "pop rdi",
    "push rax",
    "sub edi, 2",
    "call 7b",
    "pop rdx",
    "add rax, rdx",
    "ret",
    "8:",
    "mov eax, edi",
    "ret",
    "9:",
);
kernel!(
    "lockstep_speed_copy",
    "mov r9, rcx",
    "2:",
    "mov ecx, 256",
    "mov rsi, rbx",
    "lea rdi, [rbx + 2048]",
    "rep movsq",
    "dec r9",
    "jne 2b",
);

macro_rules! kernels {
    ($($name:ident $begin:ident $end:ident;)*) => {
        unsafe extern "C" { $( static $begin: u8; static $end: u8; )* }
        fn kernels() -> Vec<(&'static str, &'static [u8])> {
            vec![$({
                let (begin, end) = (&raw const $begin, &raw const $end);
                // SAFETY: the assembler put the labels around the code between them.
                let code = unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) };
                (stringify!($name), code)
            }),*]
        }
    };
}
kernels! {
    sum lockstep_speed_sum_begin lockstep_speed_sum_end;
    sieve lockstep_speed_sieve_begin lockstep_speed_sieve_end;
    hash lockstep_speed_hash_begin lockstep_speed_hash_end;
    calls lockstep_speed_calls_begin lockstep_speed_calls_end;
    copy lockstep_speed_copy_begin lockstep_speed_copy_end;
}

#[test]
#[ignore = "measures"]
fn millions_of_instructions_per_second() {
    let mut soft = Soft::new();
    for (name, code) in kernels() {
        let mut before = Registers::NEW;
        before.rip = layout::CODE.at;
        before.r[3] = layout::DATA.at;
        before.r[4] = layout::STACK.at + layout::STACK.len as u64;
        before.r[1] = 20_000;
        let end = layout::CODE.at + code.len() as u64;
        soft.load(code, Mode::Long);
        let steps = soft.steps();
        let began = Instant::now();
        soft.run_on(&before, end);
        let seconds = began.elapsed().as_secs_f64();
        let steps = soft.steps() - steps;
        println!(
            "{name}: {steps} steps, {:.0} MIPS",
            steps as f64 / seconds / 1e6
        );
    }
}
