//! SHA-256 (FIPS 180-4), written plainly.

const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes, computed with integers.
fn constants() -> [u32; 64] {
    let mut constants = [0; 64];
    let (mut found, mut number) = (0, 2u64);
    while found < 64 {
        if (2..number)
            .take_while(|f| f * f <= number)
            .all(|f| number % f != 0)
        {
            constants[found] = cube_root_fraction(number);
            found += 1;
        }
        number += 1;
    }
    constants
}

/// The largest `x` of 35 bits with `x³ ≤ number · 2⁹⁶`, less its whole part.
fn cube_root_fraction(number: u64) -> u32 {
    let mut root = 0u128;
    for bit in (0..36).rev() {
        let next = root | 1 << bit;
        if next * next * next <= u128::from(number) << 96 {
            root = next;
        }
    }
    root as u32
}

fn block(state: &mut [u32; 8], bytes: &[u8], k: &[u32; 64]) {
    let mut w = [0u32; 64];
    for (word, four) in w.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
    }
    for t in 16..64 {
        let (a, b) = (w[t - 15], w[t - 2]);
        let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ a >> 3;
        let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ b >> 10;
        w[t] = w[t - 16]
            .wrapping_add(s0)
            .wrapping_add(w[t - 7])
            .wrapping_add(s1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for t in 0..64 {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = e & f ^ !e & g;
        let t1 = h
            .wrapping_add(s1)
            .wrapping_add(choice)
            .wrapping_add(k[t])
            .wrapping_add(w[t]);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t2 = s0.wrapping_add(a & b ^ a & c ^ b & c);
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(add);
    }
}

/// The first eight bytes of the hash of whole blocks and a last one that pads them.
pub fn hash(bytes: &[u8]) -> u64 {
    let (k, mut state) = (constants(), INITIAL);
    for chunk in bytes.chunks_exact(64) {
        block(&mut state, chunk, &k);
    }
    let mut last = [0; 64];
    last[0] = 0x80;
    last[56..].copy_from_slice(&(8 * bytes.len() as u64).to_be_bytes());
    block(&mut state, &last, &k);
    u64::from(state[0]) << 32 | u64::from(state[1])
}
