//! Numbers of 80 bits.

/// The exponent of 1.
pub const BIAS: u32 = 0x3fff;

/// An integer, which all fit.
pub fn from_integer(value: i64) -> u128 {
    let sign = u128::from(value < 0) << 79;
    let magnitude = value.unsigned_abs();
    if magnitude == 0 {
        return 0;
    }
    let shift = magnitude.leading_zeros();
    let exponent = BIAS + 63 - shift;
    sign | u128::from(exponent) << 64 | u128::from(magnitude << shift)
}

/// The two bits that a register that is not empty has in the full tag word.
pub fn tag(value: u128) -> u16 {
    let (exponent, significand) = (value >> 64 & 0x7fff, value as u64);
    match (exponent, significand) {
        (0, 0) => 1,
        (0 | 0x7fff, _) => 2,
        _ if significand >> 63 == 0 => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_normalised() {
        assert_eq!(from_integer(0), 0);
        assert_eq!(from_integer(1), 0x3fff_8000_0000_0000_0000);
        assert_eq!(from_integer(-3), 0xc000_c000_0000_0000_0000);
        assert_eq!(from_integer(i64::MIN), 0xc03e_8000_0000_0000_0000);
        assert_eq!(from_integer(i64::MAX), 0x403d_ffff_ffff_ffff_fffe);
    }
}
