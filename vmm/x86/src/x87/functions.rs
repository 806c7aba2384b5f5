//! Functions of [`Wide`] numbers, by series. Results are within 2^-115 of their magnitude.

use super::wide::Wide;

/// Half of π, as Intel's processors have it for reducing angles: 66 bits, in units of 2^-67.
const HALF_PI_66: u128 = 0xc_90fd_aa22_168c_234c;
const PI: Wide = Wide::new(false, 1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
const LN_2: Wide = Wide::new(false, -1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
const LOG2_E: Wide = Wide::new(false, 0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88);
const ATAN_HALF: Wide = Wide::new(false, -2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03);
const SQRT_2: Wide = Wide::new(false, 0, 0xb504_f333_f9de_6484_597d_89b3_754a_be9f);

/// 1/n! for each n.
const FACTORIALS: [Wide; 34] = {
    let mut all = [Wide::ONE; 34];
    let mut n = 1;
    while n < all.len() {
        all[n] = all[n - 1].over(Wide::integer(n as u64));
        n += 1;
    }
    all
};

/// 1/(2n + 1) for each n.
const ODD: [Wide; 34] = {
    let mut all = [Wide::ONE; 34];
    let mut n = 0;
    while n < all.len() {
        all[n] = Wide::ONE.over(Wide::integer(2 * n as u64 + 1));
        n += 1;
    }
    all
};

/// The sum of `factors[n]` * `x`^n, from the last to the first.
fn series(factors: impl DoubleEndedIterator<Item = Wide>, x: Wide) -> Wide {
    factors
        .rev()
        .fold(Wide::ZERO, |sum, factor| sum.times(x).plus(factor))
}

/// Sine and cosine of an angle up to π/4.
fn small_sin_cos(x: Wide) -> (Wide, Wide) {
    let square = x.times(x).negated();
    let every_second = |from: usize| FACTORIALS.into_iter().skip(from).step_by(2);
    let sine = series(every_second(1), square);
    let cosine = series(every_second(0), square);
    (x.times(sine), cosine)
}

/// Sine and cosine of an angle below 2^63.
pub fn sin_cos(x: Wide) -> (Wide, Wide) {
    let (rest, quarters) = reduce(x.magnitude());
    let (sine, cosine) = small_sin_cos(rest);
    let (sine, cosine) = match quarters % 4 {
        0 => (sine, cosine),
        1 => (cosine, sine.negated()),
        2 => (sine.negated(), cosine.negated()),
        _ => (cosine.negated(), sine),
    };
    (if x.negative { sine.negated() } else { sine }, cosine)
}

/// The tangent of an angle below 2^63.
pub fn tan(x: Wide) -> Wide {
    if x.exponent < -64 {
        // It is a little more than the angle, never less: directed rounding depends on it.
        return Wide {
            significand: x.significand | 1,
            ..x
        };
    }
    let (sine, cosine) = sin_cos(x);
    sine.over(cosine)
}

/// The angle from the nearest quarter turn on, exactly, and how many quarter turns there are.
fn reduce(x: Wide) -> (Wide, u64) {
    if x.exponent < -4 {
        return (x, 0);
    }
    // In units of 2^-67 the angle is this, shifted to the left.
    let mut rest = x.significand >> 64;
    let mut quarters = 0u64;
    for _ in 0..x.exponent + 4 {
        rest <<= 1;
        quarters <<= 1;
        if rest >= HALF_PI_66 {
            rest -= HALF_PI_66;
            quarters |= 1;
        }
    }
    let in_units = |value| Wide::new(false, 127 - 67, value);
    match rest > HALF_PI_66 / 2 {
        true => (
            in_units(HALF_PI_66 - rest).negated(),
            quarters.wrapping_add(1),
        ),
        false => (in_units(rest), quarters),
    }
}

/// 2^x - 1, for x from -1 to 1.
pub fn exp2_minus_1(x: Wide) -> Wide {
    let y = x.times(LN_2);
    series(FACTORIALS.into_iter().skip(1), y).times(y)
}

/// 2 atanh(s) / ln 2, for s up to 0.18.
fn log2_of_ratio(s: Wide) -> Wide {
    let sum = series(ODD.into_iter(), s.times(s));
    s.times(sum).times(LOG2_E).scaled(1)
}

/// The logarithm of a positive number to the base of 2. Exact for powers of 2.
pub fn log2(x: Wide) -> Wide {
    let (mut mantissa, mut exponent) = (x.scaled(-x.exponent), x.exponent);
    if SQRT_2.is_smaller(mantissa) {
        (mantissa, exponent) = (mantissa.scaled(-1), exponent + 1);
    }
    let s = mantissa.minus(Wide::ONE).over(mantissa.plus(Wide::ONE));
    let whole = Wide::integer(u64::from(exponent.unsigned_abs()));
    let whole = if exponent < 0 { whole.negated() } else { whole };
    whole.plus(log2_of_ratio(s))
}

/// The logarithm of 1 + x, for x above -1.
pub fn log2_of_1_plus(x: Wide) -> Wide {
    match x.exponent < -2 {
        true => log2_of_ratio(x.over(x.plus(Wide::integer(2)))),
        false => log2(x.plus(Wide::ONE)),
    }
}

/// The angle whose tangent is x, for x from 0 to 1.
fn small_atan(x: Wide) -> Wide {
    let base = [Wide::ZERO, ATAN_HALF, PI.scaled(-2)];
    let tangent = [Wide::ZERO, Wide::ONE.scaled(-1), Wide::ONE];
    let nearest = match x.exponent {
        ..-2 => 0,
        _ if x.is_smaller(Wide::integer(13).scaled(-4)) => 1,
        _ => 2,
    };
    let from = tangent[nearest];
    let rest = match nearest {
        0 => x,
        _ => x.minus(from).over(x.times(from).plus(Wide::ONE)),
    };
    let sum = series(ODD.into_iter(), rest.times(rest).negated());
    base[nearest].plus(rest.times(sum))
}

/// The angle of the point (x, y), of which neither is zero.
pub fn atan2(y: Wide, x: Wide) -> Wide {
    let (a, b) = (y.magnitude(), x.magnitude());
    let angle = match b.is_smaller(a) {
        true => PI.scaled(-1).minus(small_atan(b.over(a))),
        false => small_atan(a.over(b)),
    };
    let angle = if x.negative { PI.minus(angle) } else { angle };
    if y.negative { angle.negated() } else { angle }
}

/// So many quarters of π.
pub fn quarters_of_pi(count: u64) -> Wide {
    PI.scaled(-2).times(Wide::integer(count))
}
