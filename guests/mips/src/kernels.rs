//! The kernels, each of some hundred million instructions or less.

use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;

/// Computes something.
type Kernel = fn() -> u64;

/// Those that need no more than a CPU.
pub const KERNELS: [(&str, Kernel); 7] = [
    ("sort", sort),
    ("hash", hash),
    ("float", float),
    ("sieve", sieve),
    ("copy", copy),
    ("parser", parser),
    ("sha256", sha256),
];

/// The next of a sequence of pseudo-random numbers.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 11
}

fn sort() -> u64 {
    let mut state = 1;
    let mut numbers: Vec<u64> = (0..500_000).map(|_| next(&mut state)).collect();
    numbers.sort_unstable();
    numbers[250_000]
}

/// Eight bytes at a time, by multiplication and rotation.
fn hash() -> u64 {
    let mut state = 1;
    let words: Vec<u64> = (0..1 << 17).map(|_| next(&mut state)).collect();
    let mut sum = 0u64;
    for _ in 0..200 {
        for word in black_box(&words) {
            sum = (sum ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }
    sum
}

fn float() -> u64 {
    let (mut x, mut sum) = (0.5f64, 0.0f64);
    for i in 0..10_000_000 {
        x = 3.9 * x * (1.0 - x);
        sum += x / (1.0 + f64::from(i));
    }
    sum.to_bits()
}

fn sieve() -> u64 {
    const BELOW: usize = 4_000_000;
    let mut prime = vec![true; BELOW];
    let mut i = 2;
    while i * i < BELOW {
        if prime[i] {
            for multiple in (i * i..BELOW).step_by(i) {
                prime[multiple] = false;
            }
        }
        i += 1;
    }
    prime.iter().skip(2).filter(|it| **it).count() as u64
}

/// Word by word: a REP MOVS would be few instructions of many steps.
fn copy() -> u64 {
    let from: Vec<u64> = (0..1 << 16).collect();
    let mut to = vec![0u64; from.len()];
    for _ in 0..300 {
        for (to, from) in to.iter_mut().zip(&from) {
            // SAFETY: both are references; volatile, so that no call of memcpy comes of it.
            unsafe { core::ptr::write_volatile(to, core::ptr::read_volatile(from)) };
        }
    }
    to[1000]
}

/// Sums, products and brackets: a recursive descent over text.
fn parser() -> u64 {
    let text = b"(12+34)*(5+6*(7+8))+9*(1+2)*3+(((4)))+56*7+(8+9)*(10+11*12)+";
    let text: Vec<u8> = text
        .iter()
        .cycle()
        .take(text.len() * 4000)
        .copied()
        .collect();
    let mut total = 0u64;
    for _ in 0..20 {
        let mut at = black_box(&text).iter().copied().peekable();
        while at.peek().is_some() {
            total = total.rotate_left(1).wrapping_add(sum(&mut at));
            at.next();
        }
    }
    total
}

type Text<'a> = core::iter::Peekable<core::iter::Copied<core::slice::Iter<'a, u8>>>;

fn sum(at: &mut Text<'_>) -> u64 {
    let mut value = product(at);
    while at.next_if_eq(&b'+').is_some() && at.peek().is_some() {
        value = value.wrapping_add(product(at));
    }
    value
}

fn product(at: &mut Text<'_>) -> u64 {
    let mut value = factor(at);
    while at.next_if_eq(&b'*').is_some() {
        value = value.wrapping_mul(factor(at));
    }
    value
}

fn factor(at: &mut Text<'_>) -> u64 {
    if at.next_if_eq(&b'(').is_some() {
        let value = sum(at);
        at.next();
        return value;
    }
    let mut value = 0u64;
    while let Some(digit) = at.next_if(u8::is_ascii_digit) {
        value = value * 10 + u64::from(digit - b'0');
    }
    value
}

fn sha256() -> u64 {
    let mut state = 1;
    let bytes: Vec<u8> = (0..4 << 20).map(|_| next(&mut state) as u8).collect();
    super::sha256::hash(black_box(&bytes))
}
