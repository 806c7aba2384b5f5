//! Computes with integers and floating point, without a pause, and prints a checksum.
//!
//! Shows a guest that makes hardly any exits. All CPUs round its operations in the same way (IEEE 754
//! addition, multiplication, division, square root), so the checksum is always the same.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::x86_64::{_mm_cvtsd_f64, _mm_set_sd, _mm_sqrt_sd};

use guest_rt::println;

/// Numbers sieved for primes.
const SIEVE: usize = 8_000_000;
/// Numbers sorted.
const SORTED: usize = 2_000_000;
/// Steps of the floating-point iterations.
const STEPS: usize = 80_000_000;
/// Bodies and time steps of the gravitational simulation.
const BODIES: usize = 8;
const TIME_STEPS: usize = 800_000;

guest_rt::entry!(main);

fn main() -> u32 {
    let parts = [
        ("primes", primes()),
        ("sort", sort()),
        ("series", series()),
        ("bodies", bodies()),
    ];
    let mut checksum = 0xcbf2_9ce4_8422_2325;
    for (name, value) in parts {
        println!("compute: {name} {value:016x}");
        checksum = mix(checksum, value);
    }
    println!("compute: done, checksum {checksum:016x}");
    0
}

fn mix(state: u64, value: u64) -> u64 {
    (state ^ value)
        .wrapping_mul(0x0000_0100_0000_01b3)
        .rotate_left(23)
}

fn sqrt(x: f64) -> f64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_cvtsd_f64(_mm_sqrt_sd(_mm_set_sd(0.0), _mm_set_sd(x))) }
}

/// How many primes there are below [`SIEVE`].
fn primes() -> u64 {
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

/// A checksum over sorted pseudo-random numbers.
fn sort() -> u64 {
    let mut state = 1u64;
    let mut numbers: Vec<u64> = (0..SORTED)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 11
        })
        .collect();
    numbers.sort_unstable();
    numbers.iter().fold(0, |sum, number| mix(sum, *number))
}

/// A chaotic iteration: any difference in rounding shows in the result.
fn series() -> u64 {
    let (mut x, mut sum) = (0.5f64, 0.0f64);
    for i in 0..STEPS {
        x = 3.9 * x * (1.0 - x);
        sum += sqrt(x) / (1.0 + i as f64);
    }
    sum.to_bits()
}

/// Bodies that attract each other.
fn bodies() -> u64 {
    let mut place = [[0.0f64; 3]; BODIES];
    let mut speed = [[0.0f64; 3]; BODIES];
    for (i, at) in place.iter_mut().enumerate() {
        let k = i as f64 + 1.0;
        *at = [k * 1.5, 2.0 / k, k * k * 0.25];
    }
    for _ in 0..TIME_STEPS {
        for (i, speed) in speed.iter_mut().enumerate() {
            for j in (0..BODIES).filter(|j| *j != i) {
                attract(&place, speed, i, j);
            }
        }
        for (at, speed) in place.iter_mut().zip(&speed) {
            for (x, v) in at.iter_mut().zip(speed) {
                *x += v * 0.0005;
            }
        }
    }
    place
        .iter()
        .flatten()
        .fold(0, |sum, x| mix(sum, x.to_bits()))
}

fn attract(place: &[[f64; 3]; BODIES], speed: &mut [f64; 3], i: usize, j: usize) {
    let mut way = [0.0; 3];
    let mut square = 0.01;
    for axis in 0..3 {
        way[axis] = place[j][axis] - place[i][axis];
        square += way[axis] * way[axis];
    }
    let pull = 0.0005 / (square * sqrt(square));
    for (v, way) in speed.iter_mut().zip(way) {
        *v += way * pull;
    }
}
