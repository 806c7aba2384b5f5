//! A preemptive scheduler: six tasks that compute with floating point, switched by the timer.
//!
//! Five of the tasks make no exits by themselves: a tick interrupts them where the instruction counter
//! makes them exit. Each switch adds to a checksum the instruction at which it came, the task's XMM
//! registers and its progress, so the output depends on where every interrupt came. In the end each
//! task's result is compared with an undisturbed run of as many steps.
//!
//! Preemption is off in the scheduler and wherever it prints. A word in memory says so; the timer's
//! handler reads it (`switch.s`). The tasks share nothing, so they never need to turn preemption off.
#![no_std]
#![no_main]

extern crate alloc;

mod maps;
mod switch;
mod task;

use alloc::vec::Vec;
use core::cell::RefCell;

use guest_rt::abi::irq::PIT;
use guest_rt::{boot_info, irq, pit, println};
use switch::{Context, Stack};
use task::TASKS;

/// Time between two ticks, microseconds.
const INTERVAL_US: u32 = 1000;
/// Switches until the end.
const SWITCHES: u64 = 1000;
/// Switches between two printed lines.
const PER_LINE: u64 = 25;

guest_rt::entry!(main);

struct Threads {
    stacks: Vec<Stack>,
    contexts: Vec<Context>,
    /// Where `main` waits for the end; `None` before the first task has run.
    main: Option<Context>,
    running: usize,
    switches: u64,
    /// Number of ticks that came while preemption was off.
    late: u64,
    checksum: u64,
}

struct Global(RefCell<Option<Threads>>);

// SAFETY: one vCPU; only `main` before and after `switch::run`, and the scheduler with preemption off,
// use it.
unsafe impl Sync for Global {}

static THREADS: Global = Global(RefCell::new(None));

fn main() -> u32 {
    if !boot_info().interrupts_computing() {
        println!(
            "threads: this machine makes no exits inside computation, so no timer interrupt would ever reach a task: give it a --quantum"
        );
        return 1;
    }
    let (stacks, contexts) = TASKS
        .iter()
        .enumerate()
        .map(|(index, task)| Stack::with_task(task.program, index))
        .unzip();
    *THREADS.0.borrow_mut() = Some(Threads {
        stacks,
        contexts,
        main: None,
        running: 0,
        switches: 0,
        late: 0,
        checksum: 0,
    });
    println!(
        "threads: {} tasks, a tick every {INTERVAL_US} us",
        TASKS.len()
    );
    pit::periodic(INTERVAL_US);
    switch::run(schedule);
    report()
}

/// The scheduler: runs between two tasks, with preemption off.
fn schedule(left: Context) -> Context {
    let mut threads = THREADS.0.borrow_mut();
    let threads = threads.as_mut().expect("main() has made them");
    let late = switch::take_due();
    threads.late += u64::from(late);
    if threads.main.is_none() {
        threads.main = Some(left);
        return threads.contexts[threads.running];
    }
    threads.account(left, late);
    if threads.switches < SWITCHES {
        threads.running = (threads.running + 1) % TASKS.len();
        return threads.contexts[threads.running];
    }
    // The end: with the line masked no more ticks come, so main() goes on undisturbed.
    irq::mask(PIT);
    pit::stop();
    switch::take_due();
    threads.main.expect("main() came first")
}

impl Threads {
    /// Records that the running task was interrupted at `left`.
    fn account(&mut self, left: Context, late: bool) {
        assert!(self.stacks[self.running].intact(), "a task's stack is full");
        self.contexts[self.running] = left;
        self.switches += 1;
        let mut sum = mix(self.checksum, left.rip());
        sum = mix(sum, self.running as u64 * 2 + u64::from(late));
        sum = mix(sum, TASKS[self.running].progress.steps());
        self.checksum = left.xmm().fold(sum, mix);
        if self.switches.is_multiple_of(PER_LINE) {
            println!(
                "threads: switch {} sum {:016x}",
                self.switches, self.checksum
            );
        }
    }
}

/// Prints the results of the tasks and returns the exit status.
fn report() -> u32 {
    let threads = THREADS.0.borrow();
    let threads = threads.as_ref().expect("main() has made them");
    let mut wrong = 0;
    let mut checksum = threads.checksum;
    for task in &TASKS {
        let (_, state) = task.progress.read();
        checksum = state.into_iter().fold(checksum, mix);
        let right = task.right();
        wrong += u32::from(!right);
        let verdict = if right { "right" } else { "WRONG" };
        println!(
            "threads: {} {} steps, {verdict}",
            task.name,
            task.progress.steps()
        );
    }
    println!(
        "threads: done, {} switches, {} ticks, {} late, checksum {checksum:016x}",
        threads.switches,
        switch::tick_count(),
        threads.late
    );
    u32::from(wrong > 0)
}

fn mix(state: u64, value: u64) -> u64 {
    (state ^ value)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}
