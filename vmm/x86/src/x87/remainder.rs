//! FPREM and FPREM1.
//!
//! Where the exponents are 64 apart or more, one instruction does part of the work only, and how much is the
//! processor's choice. Here it is Intel's: the difference is made smaller by a multiple of 32, until it is
//! from 32 to 63, and the quotient's bits above that are taken away.

use super::host::{Job, arithmetic};
use super::round::round;
use super::stack::fsw;
use super::wide::Wide;

const DE: u16 = 2;
const UE: u16 = 1 << 4;
/// All masked, 64 bits, to the nearest.
const DEFAULT: u16 = 0x37f;

/// FPREM.
pub fn truncated(job: &mut Job) {
    if !in_part(job) {
        arithmetic::rem(job);
    }
}

/// FPREM1.
pub fn nearest(job: &mut Job) {
    if !in_part(job) {
        arithmetic::rem1(job);
    }
}

/// A finite number that is not zero, and whether it is denormal.
fn finite(value: u128) -> Option<(Wide, bool)> {
    let (exponent, significand) = (value >> 64 & 0x7fff, value as u64);
    let valid = significand >> 63 == 1 && exponent != 0x7fff;
    let denormal = exponent == 0 && significand != 0;
    (valid || denormal).then(|| (Wide::from_extended(value), denormal))
}

/// Does part of the work, if that is what is to be done.
fn in_part(job: &mut Job) -> bool {
    let (Some((a, denormal_a)), Some((b, denormal_b))) = (finite(job.a), finite(job.b)) else {
        return false;
    };
    let distance = a.exponent - b.exponent;
    let denormal = denormal_a || denormal_b;
    if distance < 64 || denormal && job.fcw & DE == 0 {
        return false;
    }
    let left = distance & 31 | 32;
    let (multiple, _) = round(b.scaled(distance - left), true, DEFAULT);
    let mut part = Job::new(DEFAULT, job.a, multiple, 0);
    arithmetic::rem(&mut part);
    job.a = part.a;
    job.fsw = fsw::C2 | if denormal { DE } else { 0 };
    if job.fcw & UE == 0 && is_tiny(part.a) {
        job.a = scaled_up(part.a);
        job.fsw |= UE;
    }
    true
}

fn is_tiny(value: u128) -> bool {
    value >> 64 & 0x7fff == 0 && value as u64 != 0
}

/// As an underflow that is not masked leaves it: normal, with an exponent that is larger by 24576 (SDM vol. 1,
/// 8.5.5).
fn scaled_up(value: u128) -> u128 {
    let (sign, significand) = (value >> 79 << 79, value as u64);
    let shift = significand.leading_zeros();
    let exponent = u128::from(1 + 24576 - shift);
    sign | exponent << 64 | u128::from(significand << shift)
}
