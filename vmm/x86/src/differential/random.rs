//! Random numbers, and numbers as arithmetic likes and dislikes them.

/// A generator of numbers that are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number as arithmetic likes and dislikes them.
    pub fn value(&mut self) -> u64 {
        const EDGES: [u64; 14] = [
            0,
            1,
            2,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000_0000_0000,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.pick(&EDGES),
            1 => self.below(64),
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    /// Two single or one double-precision number, or two of them by halves, as arithmetic likes and
    /// dislikes them.
    pub fn float_bits(&mut self) -> u64 {
        match self.below(8) {
            0 => self.value(),
            1..5 => u64::from(self.single()) | u64::from(self.single()) << 32,
            _ => self.double(),
        }
    }

    fn single(&mut self) -> u32 {
        let sign = (self.next() as u32) & 1 << 31;
        let exponent = self.exponent(0xff) as u32;
        let mask = self.pick(&[0, 1, 0x40_0000, 0x40_0001, 0x7f_ffff, 0x7f_f000, 0x7f_ffff]);
        let significand = match self.below(6) {
            0 => 0x7f_ffff,
            1 => 0x7f_ff00,
            _ => self.next() as u32,
        };
        sign | exponent << 23 | significand & mask
    }

    fn double(&mut self) -> u64 {
        let sign = self.next() & 1 << 63;
        let exponent = self.exponent(0x7ff);
        let all = (1 << 52) - 1;
        let mask = self.pick(&[0, 1, 1 << 51, 1 << 51 | 1, all, all << 23, all << 29, all]);
        let significand = match self.below(6) {
            0 => all,
            1 => all << 24,
            _ => self.next(),
        };
        sign | exponent << 52 | significand & mask & all
    }

    /// An exponent: often of denormal, infinite or small whole numbers, near the edges or near another
    /// precision's.
    fn exponent(&mut self, most: u64) -> u64 {
        let one = most / 2;
        match self.below(10) {
            0 => 0,
            1 => most,
            2 => self.below(26),
            3 => most - self.below(4),
            4 => one - 160 % one + self.below(60),
            5 => one + self.below(70),
            6 if most > 0xff => one + 120 + self.below(12),
            6 | 7 => one - 4 + self.below(8),
            _ => self.below(most + 1),
        }
    }
}
