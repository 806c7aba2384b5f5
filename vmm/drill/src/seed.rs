//! Random moments from a seed, the same on every machine and in every later version.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). `--seed`
/// promises that its sequence never changes; a library's generator makes no such promise.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `range`, both ends included.
    pub(super) fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        assert!(low <= high, "an empty range has no number");
        // The high half of a 128-bit product is as evenly distributed as 64 random bits allow.
        let span = u128::from(high - low) + 1;
        low + ((u128::from(self.next()) * span) >> 64) as u64
    }
}

/// A new seed of 32 bits, which every JSON reader represents exactly.
pub(super) fn fresh() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(super::clock::mono_ns()) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // The first outputs of the authors' reference implementation with seed 1234567.
        let mut random = Random::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            got,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn a_number_stays_in_its_range_and_reaches_both_ends() {
        let mut random = Random::new(7);
        let mut seen = [false; 4];
        for _ in 0..1000 {
            seen[random.within(3..=6) as usize - 3] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(random.within(9..=9), 9);
        random.within(0..=u64::MAX);
    }
}
