//! Measures how late the timer's interrupts come to a program that only computes.
//!
//! The guest can compute when a tick is due: the counter was loaded at a known time and counts at a
//! known rate. Several ticks that come due before one was taken make one interrupt; the first of them
//! is measured. There are two measures:
//!
//! - nanoseconds: the time in the clock page when the handler runs, minus the time at which the tick
//!   was due. The machine updates the page at the position where it delivers the interrupt.
//! - quanta: the program records at which count of quanta it first saw each value of the clock page.
//!   The first value at or after the due time shows the position at which the machine knew that the
//!   tick was due. Counted from the position before that one, the handler comes 1 quantum later if the
//!   machine delivered at once, and 1 more for each position that it let pass. So the tick waited for
//!   less than this many quanta of edges, however long the host took to run them.
#![no_std]
#![no_main]

extern crate alloc;

mod handler;

use alloc::vec::Vec;
use core::hint::black_box;

use guest_rt::abi::irq::PIT;
use guest_rt::{boot_info, clock, edges, irq, pit, println};
use handler::{SAMPLES, Sample};

/// Interval between two ticks: 1 ms.
const INTERVAL_US: u32 = 1000;
const INTERVAL_COUNTS: u64 = INTERVAL_US as u64 * pit::INPUT_HZ / 1_000_000;
/// Steps of computation between two reads of the clock page.
const STEPS: u64 = 100;
/// Most values of the clock page that are recorded: a few per tick.
const MAX_VALUES: usize = 64 * SAMPLES;

guest_rt::entry!(main);

fn main() -> u32 {
    if !boot_info().interrupts_computing() {
        println!(
            "latency: this machine makes no exits inside computation, so no timer interrupt would ever come: give it a --quantum"
        );
        return 1;
    }
    let mut values = Vec::with_capacity(MAX_VALUES);
    let mut x = 0.5f64;
    handler::install();
    irq::unmask(PIT);
    pit::periodic(INTERVAL_US);
    // The port write that loaded the counter has updated the clock page to the same time.
    let start = Sample {
        ns: clock::now_ns(),
        quanta: edges::quanta_passed(),
    };
    let mut last = start;
    while handler::count() < SAMPLES && values.len() < MAX_VALUES {
        for _ in 0..STEPS {
            x = 3.9 * x * (1.0 - x);
        }
        let ns = clock::now_ns();
        if ns != last.ns {
            let quanta = edges::quanta_passed();
            last = Sample { ns, quanta };
            values.push(last);
        }
    }
    irq::mask(PIT);
    pit::stop();
    black_box(x);
    report(start, last, &values);
    0
}

fn report(start: Sample, last: Sample, values: &[Sample]) {
    let (mut ns, mut quanta) = (Vec::new(), Vec::new());
    let (mut value, mut due_ticks) = (0, 1);
    for index in 0..handler::count() {
        let sample = handler::sample(index);
        let due = start.ns + nanoseconds(due_ticks * INTERVAL_COUNTS);
        while values.get(value).is_some_and(|it| it.ns < due) {
            value += 1;
        }
        let known = values.get(value).unwrap_or(&last);
        ns.push(sample.ns.saturating_sub(due));
        quanta.push(1 + sample.quanta.saturating_sub(known.quanta));
        // The first tick that was not due yet when this one was taken.
        due_ticks = counts(sample.ns - start.ns) / INTERVAL_COUNTS + 1;
    }
    let passed = (last.quanta - start.quanta).max(1);
    println!(
        "latency: {} interrupts for {} ticks, {} edges per quantum, {} ns per quantum",
        ns.len(),
        due_ticks - 1,
        boot_info().quantum,
        (last.ns - start.ns) / passed
    );
    print_quantiles("ns", ns);
    // A machine that makes the exits itself does not tell of them.
    if boot_info().quantum != 0 {
        print_quantiles("quanta", quanta);
    }
    println!("latency: done");
}

fn print_quantiles(unit: &str, mut values: Vec<u64>) {
    values.sort_unstable();
    let Some(last) = values.len().checked_sub(1) else {
        return;
    };
    println!(
        "latency: {unit} p50 {} p99 {} max {}",
        values[last / 2],
        values[last * 99 / 100],
        values[last]
    );
}

/// First nanosecond at which the 8254 has counted `counts`.
fn nanoseconds(counts: u64) -> u64 {
    (u128::from(counts) * 1_000_000_000).div_ceil(u128::from(pit::INPUT_HZ)) as u64
}

/// Counts of the 8254 in `ns` nanoseconds.
fn counts(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(pit::INPUT_HZ) / 1_000_000_000) as u64
}
