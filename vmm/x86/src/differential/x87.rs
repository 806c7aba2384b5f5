//! x87 registers as code finds them: numbers of all kinds, stacks of all depths, all modes.

use super::random::Random;

/// A number of 80 bits as arithmetic likes and dislikes them.
pub fn number(random: &mut Random) -> u128 {
    const ONE: u64 = 0x3fff;
    let exponent = match random.below(16) {
        0 => 0,
        1 => 0x7fff,
        2 => random.below(70),
        3 => 0x7ffe - random.below(70),
        // The ends of single and double precision.
        4 => ONE - 150 + random.below(30),
        5 => ONE + 120 + random.below(10),
        6 => ONE - 1080 + random.below(70),
        7 => ONE + 1020 + random.below(8),
        8..11 => ONE - 4 + random.below(8),
        11..13 => ONE + random.below(70),
        13 => ONE - random.below(70),
        _ => random.below(0x8000),
    };
    let whole = 1 << 63;
    let fraction = match random.below(10) {
        0 => 0,
        1 => whole - 1,
        2 => 1 << 62,
        3 => random.below(4),
        // Halfway between two numbers of less precision.
        4 => random.next() << 11 | 1 << 10,
        5 => random.next() << 40 | 1 << 39,
        6 => random.next() << 40,
        7 => random.next() << (56 + random.below(8)),
        _ => random.next(),
    };
    // Without the first bit it is no valid number, or a denormal one.
    let first = match (exponent, random.below(16)) {
        (0, ..14) => 0,
        (0, _) => whole,
        (_, 0) => 0,
        _ => whole,
    };
    let sign = random.next() & 0x8000;
    u128::from(sign | exponent) << 64 | u128::from(fraction & (whole - 1) | first)
}

/// Which registers are full: all, none, those of a stack, or any.
fn full(random: &mut Random, top: u8) -> u8 {
    match random.below(8) {
        0 => 0xff,
        1 => 0,
        2 => random.next() as u8,
        _ => {
            let depth = 2 + random.below(5) as u32;
            ((1u16 << depth) - 1).to_le_bytes()[0].rotate_left(u32::from(top))
        }
    }
}

/// Fills the x87 part of an FXSAVE area, mostly with numbers from `pool`: the registers that a bit of
/// `which` stands for, and the control registers.
pub fn fill(random: &mut Random, pool: &[u128], area: &mut [u8; 512], which: u32) {
    let masks = match random.below(16) {
        0 => random.below(0x40) as u16,
        1 => 0x3f & !(1 << random.below(6)),
        _ => 0x3f,
    };
    let fcw = masks | 0x40 | random.next() as u16 & 0x1f00;
    let top = random.below(8) as u8;
    // An exception that is not masked ends the code at once.
    let raised = match random.below(16) {
        0 => random.next() as u16 & 0x7f,
        1..6 => random.next() as u16 & (masks | 0x40),
        _ => 0,
    };
    let pending = if raised & !masks & 0x3f == 0 {
        0
    } else {
        0x8080
    };
    let codes = random.next() as u16 & 0x4700;
    let fsw = codes | raised | pending | u16::from(top) << 11;
    area[..2].copy_from_slice(&fcw.to_le_bytes());
    area[2..4].copy_from_slice(&fsw.to_le_bytes());
    area[4] = full(random, top);
    for (index, register) in area[32..160].chunks_exact_mut(16).enumerate() {
        if which >> index & 1 == 0 {
            continue;
        }
        let value = match random.one_in(16) {
            true => number(random),
            false => random.pick(pool),
        };
        register[..10].copy_from_slice(&value.to_le_bytes()[..10]);
    }
}

/// The x87 part of an FXSAVE area, in words.
pub fn text(area: &[u8; 512]) -> String {
    let hex = |bytes: &[u8]| -> String {
        bytes
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let registers: Vec<String> = area[32..160].chunks(16).map(|r| hex(&r[..10])).collect();
    let (fcw, fsw, full) = (hex(&area[..2]), hex(&area[2..4]), area[4]);
    format!(
        "FCW={fcw} FSW={fsw} full={full:08b} ST0..={}",
        registers.join(" ")
    )
}
