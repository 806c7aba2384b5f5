//! Stacks, saved tasks and the entry to the scheduler: all the unsafe code of this program.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use alloc::boxed::Box;
use alloc::vec;
use guest_rt::abi::irq::PIT;
use guest_rt::irq;

use crate::maps::State;

global_asm!(include_str!("switch.s"));

/// Words of a task's stack (64 KiB). A saved task takes 80 words of it, and the scheduler runs on it.
const STACK_WORDS: usize = 8 * 1024;
/// A mark at the low end of every stack, which must never be overwritten.
const CANARY: u64 = 0x7ac4_57ac_c0de_0000;
/// Words of a saved task: 15 registers, flags, RIP.
const CONTEXT_WORDS: usize = 17;
/// Indices of these: the first argument's register, the flags and RIP.
const RDI: usize = 9;
const FLAGS: usize = 15;
const RIP: usize = 16;
/// Words of an FXSAVE image, and the XMM registers in it (Intel SDM vol. 1, 10.5.1).
const FXSAVE_WORDS: usize = 64;
const XMM_WORDS: core::ops::Range<usize> = 20..52;
/// x87 control word and MXCSR after reset: all exceptions masked.
const FCW: u64 = 0x37f;
const MXCSR: u64 = 0x1f80;

/// A task that does not run now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Context(u64);

/// A task's stack.
pub struct Stack(Box<[u64]>);

/// Runs between two tasks: gets the context that was interrupted, and returns the one to continue.
/// Preemption is off, so it may print and allocate, and is never entered twice.
pub type Scheduler = fn(Context) -> Context;

#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: `run` writes `scheduler` before the timer is unmasked, and it is only read afterwards. The
// words are written by switch.s, by one instruction each, and read volatile.
unsafe impl<T> Sync for Shared<T> {}

static SCHEDULER: Shared<Option<Scheduler>> = Shared(UnsafeCell::new(None));

unsafe extern "C" {
    static ticks: Shared<u64>;
    static switch_due: Shared<u64>;
    fn threads_tick();
    fn threads_run();
}

/// Rounds down to the alignment that calls and FXSAVE need.
fn align(address: usize) -> usize {
    address & !15
}

impl Stack {
    /// A stack with a saved task on it, which will call `task` with `argument`.
    pub fn with_task(task: extern "C" fn(usize) -> !, argument: usize) -> (Self, Context) {
        let mut words = vec![0; STACK_WORDS].into_boxed_slice();
        words[0] = CANARY;
        let base = words.as_ptr() as usize;
        // RIP's slot is at a multiple of 16: then `ret 128` leaves RSP as a call would.
        let rip = (align(base + (STACK_WORDS - 32) * 8) - base) / 8;
        let context = rip - RIP;
        words[rip] = task as usize as u64;
        words[context + FLAGS] = 0x202;
        words[context + RDI] = argument as u64;
        let address = base + context * 8;
        let fxsave = (align(address - FXSAVE_WORDS * 8) - base) / 8;
        words[fxsave] = FCW;
        words[fxsave + 3] = MXCSR;
        (Self(words), Context(address as u64))
    }

    /// Was the mark at its low end not overwritten?
    pub fn intact(&self) -> bool {
        // SAFETY: in bounds; volatile, as another task's code may have written to it.
        unsafe { self.0.as_ptr().read_volatile() == CANARY }
    }
}

impl Context {
    /// The instruction at which the task goes on.
    pub fn rip(self) -> u64 {
        self.word(RIP)
    }

    /// Its XMM registers, two words each.
    pub fn xmm(self) -> impl Iterator<Item = u64> {
        let fxsave = align(self.0 as usize - FXSAVE_WORDS * 8) as *const u64;
        // SAFETY: the FXSAVE image below a context is in the task's stack, and is not written while the
        // task does not run.
        XMM_WORDS.map(move |index| unsafe { fxsave.add(index).read_volatile() })
    }

    fn word(self, index: usize) -> u64 {
        assert!(index < CONTEXT_WORDS);
        // SAFETY: a context is made by switch.s or `with_task`: it has this many words of a stack that
        // exists, and is not written while the task does not run.
        unsafe { (self.0 as *const u64).add(index).read_volatile() }
    }
}

/// Hands the vCPU over to `scheduler`, with the caller as the interrupted context, and lets the timer's
/// line preempt from now on. Returns when the scheduler continues that context. The line must be
/// masked.
pub fn run(scheduler: Scheduler) {
    // SAFETY: no scheduler runs yet, and no tick comes, as the line is masked.
    unsafe {
        *SCHEDULER.0.get() = Some(scheduler);
        irq::set_raw_handler(PIT, threads_tick);
    }
    irq::unmask(PIT);
    // SAFETY: it saves every register that its caller expects to be preserved.
    unsafe { threads_run() };
}

/// Timer interrupts so far.
pub fn tick_count() -> u64 {
    // SAFETY: volatile, as the handler may write it at any exit.
    unsafe { ticks.0.get().read_volatile() }
}

/// Clears the note that a tick came while preemption was off. Returns whether there was one. Only the
/// scheduler may call it, as it is about to switch anyway.
pub fn take_due() -> bool {
    // SAFETY: as above; to the scheduler, a tick between the read and the write is the same tick.
    unsafe {
        let due = switch_due.0.get().read_volatile() != 0;
        switch_due.0.get().write_volatile(0);
        due
    }
}

/// Makes an exit by an OUT with `state` in the XMM registers that all tasks use, the carry flag set,
/// and a mark at both ends of the red zone. Returns the registers' values afterwards, and whether the
/// rest was preserved.
pub fn leave_holding(state: State) -> (State, bool) {
    const MARK: u64 = 0x5afe_5afe_5afe_5afe;
    let [mut x, mut y, mut z, mut w] = state;
    let (near, far): (u64, u64);
    // SAFETY: without `nostack` the compiler keeps nothing in the red zone, so it may be written; port
    // 80h has no device.
    unsafe {
        asm!(
            "mov [rsp - 8], {mark}",
            "mov [rsp - 128], {mark}",
            "stc",
            "out 0x80, al",
            "sbb {near}, {near}",
            "and {near}, [rsp - 8]",
            "mov {far}, [rsp - 128]",
            mark = in(reg) MARK,
            near = out(reg) near,
            far = out(reg) far,
            in("al") 0u8,
            inout("xmm0") x,
            inout("xmm1") y,
            inout("xmm2") z,
            inout("xmm3") w,
        );
    }
    ([x, y, z, w], near == MARK && far == MARK)
}

/// Called by switch.s with preemption off.
#[unsafe(no_mangle)]
extern "C" fn threads_schedule(left: u64) -> u64 {
    // SAFETY: `run` wrote it before this could be called, and it is not written again.
    let scheduler = unsafe { *SCHEDULER.0.get() }.expect("run() has set it");
    scheduler(Context(left)).0
}
