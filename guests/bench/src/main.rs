//! Kernels of one kind of work each, whose times are measured one by one.
//!
//! Shows what counting branch edges costs: run it from images that were built with and without the
//! counter (guests/README.md). Before each look at the clock an exit brings it up to date, to 50 µs,
//! and each kernel runs for tenths of a second. The results are printed too, so that the compiler
//! cannot leave work out and two builds can be seen to have done the same work.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;

use guest_rt::{boot_info, clock, edges, println};

/// How often each kernel is timed. The shortest time counts, as it was disturbed least.
const ROUNDS: usize = 3;
/// Numbers sorted.
const SORTED: usize = 1_000_000;
/// Bytes hashed, and how often.
const HASHED: usize = 1 << 20;
const HASH_PASSES: usize = 100;
/// Steps of the floating-point iteration.
const STEPS: usize = 40_000_000;
/// Numbers sieved for primes.
const SIEVE: usize = 8_000_000;

/// Bytes copied, compared and scanned in one call each, which is a stretch without a count. A machine
/// with 64 MiB has room for two blocks of about this size.
const STRETCH: usize = 24 << 20;

/// Computes something.
type Kernel = fn() -> u64;

/// The kernels that are timed.
const KERNELS: [(&str, Kernel); 7] = [
    ("sort", sort),
    ("hash", hash),
    ("float", float),
    ("sieve", sieve),
    ("copy", copy),
    ("compare", compare),
    ("utf8", utf8),
];

guest_rt::entry!(main);

fn main() -> u32 {
    println!("bench: quantum {}", boot_info().quantum);
    for (name, kernel) in KERNELS {
        let mut best = u64::MAX;
        for _ in 0..ROUNDS {
            println!("bench: {name} begins");
            let (before, quanta) = (clock::fresh_ns(), edges::quanta_passed());
            let value = kernel();
            let ns = clock::fresh_ns() - before;
            let quanta = edges::quanta_passed() - quanta;
            println!("bench: {name} took {ns} ns, {quanta} quanta, value {value:016x}");
            best = best.min(ns);
        }
        println!("bench: {name} {best} ns");
    }
    println!("bench: done");
    0
}

/// The next of a sequence of pseudo-random numbers.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 11
}

fn sort() -> u64 {
    let mut state = 1;
    let mut numbers: Vec<u64> = (0..SORTED).map(|_| next(&mut state)).collect();
    numbers.sort_unstable();
    numbers[SORTED / 2]
}

/// A hash that takes eight bytes at a time, by multiplication and rotation.
fn hash() -> u64 {
    let mut state = 1;
    let words: Vec<u64> = (0..HASHED / 8).map(|_| next(&mut state)).collect();
    let mut sum = 0u64;
    for _ in 0..HASH_PASSES {
        for word in &words {
            sum = (sum ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }
    sum
}

fn float() -> u64 {
    let (mut x, mut sum) = (0.5f64, 0.0f64);
    for i in 0..STEPS {
        x = 3.9 * x * (1.0 - x);
        sum += x / (1.0 + i as f64);
    }
    sum.to_bits()
}

fn sieve() -> u64 {
    let mut prime = vec![true; SIEVE];
    let mut i = 2;
    while i * i < SIEVE {
        if prime[i] {
            for multiple in (i * i..SIEVE).step_by(i) {
                prime[multiple] = false;
            }
        }
        i += 1;
    }
    prime.iter().skip(2).filter(|it| **it).count() as u64
}

/// `memcpy`: assembly, not counted.
fn copy() -> u64 {
    let from = vec![0xa5u8; STRETCH];
    let to = black_box(&from).clone();
    u64::from(to[STRETCH / 2])
}

/// `memcmp`: assembly, not counted.
fn compare() -> u64 {
    let (a, b) = (vec![0x5au8; STRETCH], vec![0x5au8; STRETCH]);
    u64::from(black_box(&a) == black_box(&b))
}

/// The precompiled library's check of text that is not ASCII: not counted.
fn utf8() -> u64 {
    let mut text = vec![0xc3u8; STRETCH];
    for byte in text.iter_mut().skip(1).step_by(2) {
        *byte = 0xa4;
    }
    core::str::from_utf8(black_box(&text)).map_or(0, |text| text.len() as u64)
}
