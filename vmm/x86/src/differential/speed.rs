//! How fast this CPU is, beside the host's, in loops that are hot.
#![allow(unsafe_code, reason = "it has code between labels")]

use super::layout;
use super::native::Registers;
use super::soft::Soft;
use crate::SoftVcpu;
use crate::state::Mode;
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::Vcpu;
use lockstep_vcpu::state::MSRS;
use std::arch::global_asm;

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

kernel!(
    "lockstep_speed_float",
    "mov eax, 3",
    "cvtsi2sd xmm0, eax",
    "mov eax, 7",
    "cvtsi2sd xmm1, eax",
    "divsd xmm0, xmm1",
    "movapd xmm3, xmm0",
    "movsd [rbx], xmm0",
    "2:",
    "mov esi, 16",
    "3:",
    "movapd xmm2, xmm0",
    "mulsd xmm2, xmm1",
    "addsd xmm3, xmm2",
    "subsd xmm3, xmm0",
    "divsd xmm3, xmm1",
    "addsd xmm3, [rbx]",
    "sqrtsd xmm4, xmm3",
    "movsd [rbx + rsi * 8], xmm4",
    "ucomisd xmm4, xmm0",
    "jb 4f",
    "4:",
    "dec esi",
    "jne 3b",
    "dec rcx",
    "jne 2b",
);
kernel!(
    "lockstep_speed_vector",
    "movdqu xmm1, [rbx]",
    "2:",
    "mov esi, 64",
    "3:",
    "movdqu xmm0, [rbx + rsi]",
    "paddd xmm0, xmm1",
    "pxor xmm1, xmm0",
    "pslld xmm0, 3",
    "movdqu [rbx + rsi], xmm0",
    "pshufd xmm1, xmm1, 0x39",
    "sub esi, 16",
    "jne 3b",
    "dec rcx",
    "jne 2b",
);
kernel!(
    "lockstep_speed_bytes",
    "mov r9, rcx",
    "2:",
    "mov ecx, 64",
    "mov rsi, rbx",
    "lea rdi, [rbx + 2048]",
    "rep movsb",
    "mov ecx, 16",
    "mov rdi, rbx",
    "xor eax, eax",
    "repne scasb",
    "dec r9",
    "jne 2b",
);

/// Processor time of this thread, seconds.
fn seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is this function's.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(done, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

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
    float lockstep_speed_float_begin lockstep_speed_float_end;
    vector lockstep_speed_vector_begin lockstep_speed_vector_end;
    bytes lockstep_speed_bytes_begin lockstep_speed_bytes_end;
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
        let began = seconds();
        soft.run_on(&before, end);
        let took = seconds() - began;
        let steps = soft.steps() - steps;
        println!(
            "{name}: {steps} steps, {:.0} MIPS",
            steps as f64 / took / 1e6
        );
    }
}

kernel!(
    "lockstep_speed_system",
    "2:",
    "mov eax, 39",
    "syscall",
    "add rbx, rax",
    "sub rdi, 1",
    "jne 2b",
    "hlt",
);
kernel!(
    "lockstep_speed_handler",
    "push rcx",
    "add rax, 1",
    "mov [rsp - 16], rax",
    "pop rcx",
    "sysretq"
);

unsafe extern "C" {
    static lockstep_speed_system_begin: u8;
    static lockstep_speed_system_end: u8;
    static lockstep_speed_handler_begin: u8;
    static lockstep_speed_handler_end: u8;
}

#[test]
#[ignore = "measures"]
fn millions_of_instructions_per_second_in_system_calls() {
    let (begin, end) = (
        &raw const lockstep_speed_system_begin,
        &raw const lockstep_speed_system_end,
    );
    // SAFETY: the assembler put the labels around the code between them.
    let user = unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) };
    let (begin, end) = (
        &raw const lockstep_speed_handler_begin,
        &raw const lockstep_speed_handler_end,
    );
    // SAFETY: as above.
    let handler = unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) };
    let ram = Ram::new(MIN_MIB).unwrap();
    for (at, entry) in [
        (0x1000, 0x2007),
        (0x2000, 0x3007),
        (0x3000, 0x87),
        (0x3008, 0x20_0087),
    ] {
        ram.write_u64(at, entry).unwrap();
    }
    ram.write(0x20_0000, user).unwrap();
    ram.write(0x1_0000, handler).unwrap();
    let mut state = lockstep_loader::start_state(0x20_0000);
    state.system.control[2] = 0x1000;
    state.system.control[5] |= 1;
    for (msr, value) in [
        (0xc000_0081, 0x001b_0008_0000_0000),
        (0xc000_0082, 0x1_0000),
    ] {
        let slot = MSRS.iter().position(|(number, _)| *number == msr).unwrap();
        state.msrs[slot] = value;
    }
    state.system.segments[0].attributes.dpl = 3;
    state.system.segments[0].selector = 0x2b;
    state.system.segments[5].attributes.dpl = 3;
    state.system.segments[5].selector = 0x23;
    // RSP and RDI.
    state.registers.general[7] = 0x21_0000;
    state.registers.general[5] = 5_000_000;
    let mut vcpu = SoftVcpu::new(ram, &state).unwrap();
    let began = seconds();
    let stopped = vcpu.run_steps(40_000_000);
    let took = seconds() - began;
    println!(
        "system calls: {} steps, {:.0} MIPS, {stopped:?}",
        vcpu.steps(),
        vcpu.steps() as f64 / took / 1e6
    );
}
