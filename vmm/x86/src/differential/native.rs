//! Runs code on the host's own processor, with given registers, until it comes to its end or faults.
//!
//! All of it happens in this thread: memory lies at fixed addresses, faults come as signals on a stack of
//! their own, and the signal handler notes the registers and has the thread go on behind the code.
#![allow(unsafe_code, reason = "it runs random code")]

use crate::state::Mode;
use std::arch::{asm, naked_asm};
use std::mem::{offset_of, zeroed};
use std::ptr::{addr_of, addr_of_mut};
use std::sync::{Mutex, MutexGuard};

/// Registers before and after.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Registers {
    /// General registers, by their numbers in instructions.
    pub r: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// Where to begin; where it faulted.
    pub rip: u64,
    /// The exception's vector, or [`NO_TRAP`].
    pub trap: u64,
    /// Its error code.
    pub code: u64,
    /// CR2.
    pub cr2: u64,
    /// A far pointer to `rip`, in compatibility mode's code segment.
    far: u64,
    host_rsp: u64,
    /// x87 and SSE registers, as FXSAVE has them.
    pub fx: Fx,
}

/// An FXSAVE area.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Fx(pub [u8; 512]);

/// It came to its end.
pub const NO_TRAP: u64 = u64::MAX;

/// Linux's selectors of user code in 64-bit and compatibility mode, and of user data.
pub const CODE_64: u16 = 0x33;
/// See [`CODE_64`].
pub const CODE_32: u16 = 0x23;
/// See [`CODE_64`].
pub const DATA: u16 = 0x2b;
/// The base of GS.
pub const GS_BASE: u64 = 0x240;

static mut CONTEXT: Registers = Registers::NEW;
static mut ACTIVE: bool = false;
static DEFAULT_MXCSR: u32 = 0x1f80;
/// One thread at a time.
static ONE: Mutex<()> = Mutex::new(());

impl Registers {
    /// All zero, floating point as after a reset.
    pub const NEW: Registers = {
        let mut fx = [0; 512];
        (fx[0], fx[1]) = (0x7f, 0x03);
        (fx[24], fx[25]) = (0x80, 0x1f);
        Registers {
            r: [0; 16],
            rflags: 2,
            rip: 0,
            trap: NO_TRAP,
            code: 0,
            cr2: 0,
            far: 0,
            host_rsp: 0,
            fx: Fx(fx),
        }
    };
}

/// A function that loads the registers and jumps to where they say.
macro_rules! enter {
    ($name:ident, $jump:literal, $target:ident) => {
#[unsafe(naked)]
extern "C" fn $name() {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "mov [rip + {c} + {host}], rsp",
        "fxrstor64 [rip + {c} + {fx}]",
        "push qword ptr [rip + {c} + {flags}]",
        "popfq",
        "mov rax, [rip + {c}]",
        "mov rcx, [rip + {c} + 8]",
        "mov rdx, [rip + {c} + 16]",
        "mov rbx, [rip + {c} + 24]",
        "mov rsp, [rip + {c} + 32]",
        "mov rbp, [rip + {c} + 40]",
        "mov rsi, [rip + {c} + 48]",
        "mov rdi, [rip + {c} + 56]",
        "mov r8, [rip + {c} + 64]",
        "mov r9, [rip + {c} + 72]",
        "mov r10, [rip + {c} + 80]",
        "mov r11, [rip + {c} + 88]",
        "mov r12, [rip + {c} + 96]",
        "mov r13, [rip + {c} + 104]",
        "mov r14, [rip + {c} + 112]",
        "mov r15, [rip + {c} + 120]",
        $jump,
        c = sym CONTEXT,
        host = const offset_of!(Registers, host_rsp),
        fx = const offset_of!(Registers, fx),
        flags = const offset_of!(Registers, rflags),
        target = const offset_of!(Registers, $target),
    )
}
    };
}
enter!(enter_long, "jmp qword ptr [rip + {c} + {target}]", rip);
enter!(
    enter_compatible,
    "jmp fword ptr [rip + {c} + {target}]",
    far
);

/// Where the code jumps at its end: notes the registers.
#[unsafe(naked)]
extern "C" fn leave() {
    naked_asm!(
        "mov [rip + {c}], rax",
        "mov [rip + {c} + 8], rcx",
        "mov [rip + {c} + 16], rdx",
        "mov [rip + {c} + 24], rbx",
        "mov [rip + {c} + 32], rsp",
        "mov [rip + {c} + 40], rbp",
        "mov [rip + {c} + 48], rsi",
        "mov [rip + {c} + 56], rdi",
        "mov [rip + {c} + 64], r8",
        "mov [rip + {c} + 72], r9",
        "mov [rip + {c} + 80], r10",
        "mov [rip + {c} + 88], r11",
        "mov [rip + {c} + 96], r12",
        "mov [rip + {c} + 104], r13",
        "mov [rip + {c} + 112], r14",
        "mov [rip + {c} + 120], r15",
        "mov rsp, [rip + {c} + {host}]",
        "pushfq",
        "pop qword ptr [rip + {c} + {flags}]",
        "fxsave64 [rip + {c} + {fx}]",
        "jmp {resume}",
        c = sym CONTEXT,
        host = const offset_of!(Registers, host_rsp),
        fx = const offset_of!(Registers, fx),
        flags = const offset_of!(Registers, rflags),
        resume = sym resume,
    )
}

/// Goes on behind [`enter`], with the stack as it was there.
#[unsafe(naked)]
extern "C" fn resume() {
    naked_asm!(
        "cld",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        mxcsr = sym DEFAULT_MXCSR,
    )
}

/// The kernel's order of registers in a signal's context, by ours.
const ORDER: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn on_signal(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a signal's context to its handler. The statics are this thread's: it is the
    // one that runs code, under the lock, or `ACTIVE` is false and the signal is a failure of the test
    // itself, which then dies of it.
    unsafe {
        if !ACTIVE {
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let registers = &mut machine.gregs;
        let noted = &mut *addr_of_mut!(CONTEXT);
        for (to, from) in noted.r.iter_mut().zip(ORDER) {
            *to = registers[from as usize] as u64;
        }
        noted.rflags = registers[libc::REG_EFL as usize] as u64;
        noted.rip = registers[libc::REG_RIP as usize] as u64;
        noted.trap = registers[libc::REG_TRAPNO as usize] as u64;
        noted.code = registers[libc::REG_ERR as usize] as u64;
        noted.cr2 = registers[libc::REG_CR2 as usize] as u64;
        let fx = machine.fpregs.cast::<[u8; 512]>();
        noted.fx.0.copy_from_slice(&*fx);
        registers[libc::REG_RIP as usize] = resume as *const () as i64;
        registers[libc::REG_RSP as usize] = noted.host_rsp as i64;
        registers[libc::REG_EFL as usize] = 0x202;
        let segments = registers[libc::REG_CSGSFS as usize];
        registers[libc::REG_CSGSFS as usize] = segments & !0xffff | i64::from(CODE_64);
    }
}

/// Runs `run` while the host's MXCSR and x87 control word are these.
pub fn under<T>(mxcsr: u32, control: u16, run: impl FnOnce() -> T) -> T {
    let mut old = (0u32, 0u16);
    // SAFETY: the words are this function's, no reserved bit of them is set, and all exceptions are masked.
    // What Rust's own floating point would compute meanwhile is not looked at.
    unsafe {
        asm!("stmxcsr [{}]", "fnstcw [{}]", in(reg) &mut old.0, in(reg) &mut old.1, options(nostack));
        asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &mxcsr, in(reg) &control, options(nostack));
    }
    let value = run();
    // SAFETY: as above.
    unsafe {
        asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &old.0, in(reg) &old.1, options(nostack));
    }
    value
}

/// The host's MXCSR.
pub fn mxcsr() -> u32 {
    let mut word = 0;
    // SAFETY: the word is this function's.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
    word
}

/// Has this thread run on this core alone. False: there is no such core, or it is not ours.
pub fn pin(core: usize) -> bool {
    // SAFETY: a set is plain data, and it is this thread's affinity that changes.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set) == 0
    }
}

/// A piece of memory at a fixed address.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Where.
    pub at: u64,
    /// Bytes, whole pages.
    pub len: usize,
    /// May code write to it?
    pub writable: bool,
}

/// The host's processor, with memory mapped for the code.
pub struct Native {
    _one: MutexGuard<'static, ()>,
    areas: Vec<Area>,
}

impl Native {
    /// Maps the areas. The first holds the code.
    pub fn new(areas: &[Area]) -> Native {
        let one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for area in areas {
            // SAFETY: without MAP_FIXED's replacing, a new mapping harms no other.
            let got = unsafe {
                libc::mmap(
                    area.at as *mut libc::c_void,
                    area.len,
                    libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                    libc::MAP_PRIVATE
                        | libc::MAP_ANONYMOUS
                        | libc::MAP_POPULATE
                        | libc::MAP_FIXED_NOREPLACE,
                    -1,
                    0,
                )
            };
            assert_eq!(got as u64, area.at, "the address is taken");
        }
        let native = Native {
            _one: one,
            areas: areas.to_vec(),
        };
        native.catch_signals();
        native.set_segments();
        native
    }

    /// Data segments as compatibility mode needs them. GS is free: this thread's own data lies at FS.
    fn set_segments(&self) {
        // SAFETY: in 64-bit mode DS and ES mean nothing, and nothing of this thread uses GS.
        unsafe {
            asm!("mov ds, {0:x}", "mov es, {0:x}", in(reg) DATA, options(nostack));
            const SET_GS: libc::c_int = 0x1001;
            assert_eq!(libc::syscall(libc::SYS_arch_prctl, SET_GS, GS_BASE), 0);
        }
    }

    fn catch_signals(&self) {
        let stack = Box::leak(vec![0u8; 1 << 16].into_boxed_slice());
        // SAFETY: the stack is never freed, the handler is one, and the structures are the kernel's.
        unsafe {
            let alternate = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            assert_eq!(libc::sigaltstack(&alternate, std::ptr::null_mut()), 0);
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            for signal in [
                libc::SIGSEGV,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
                libc::SIGBUS,
            ] {
                assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
            }
        }
    }

    /// Makes read-only what is to be so.
    pub fn protect(&self) {
        for area in self.areas.iter().filter(|area| !area.writable) {
            let rights = libc::PROT_READ | libc::PROT_EXEC;
            // SAFETY: it is a mapping of ours.
            let done = unsafe { libc::mprotect(area.at as *mut libc::c_void, area.len, rights) };
            assert_eq!(done, 0);
        }
    }

    /// The bytes of an area.
    pub fn bytes_mut(&mut self, area: usize) -> &mut [u8] {
        let Area { at, len, .. } = self.areas[area];
        // SAFETY: it is mapped while this value lives, and code runs in `run` alone.
        unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) }
    }

    /// The address that code jumps to at its end.
    pub fn end() -> u64 {
        leave as *const () as u64
    }

    /// Runs from `registers.rip` to the jump to [`Native::end`], or to a fault.
    pub fn run(&mut self, registers: &Registers, mode: Mode) -> Registers {
        // SAFETY: this thread has the lock, so the statics are its own. The code is the test's; it has no
        // system calls and no way out but the jump at its end, and memory that it does not know the
        // address of it does not hit.
        unsafe {
            let host = CONTEXT.host_rsp;
            CONTEXT = *registers;
            CONTEXT.host_rsp = host;
            CONTEXT.trap = NO_TRAP;
            CONTEXT.far = registers.rip & 0xffff_ffff | u64::from(CODE_32) << 32;
            ACTIVE = true;
            match mode {
                Mode::Long => enter_long(),
                Mode::Compat32 => enter_compatible(),
            }
            ACTIVE = false;
            *addr_of!(CONTEXT)
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        for area in &self.areas {
            // SAFETY: it is a mapping of ours, and no reference into it is left.
            unsafe { libc::munmap(area.at as *mut libc::c_void, area.len) };
        }
    }
}
