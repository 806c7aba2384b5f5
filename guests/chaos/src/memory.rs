//! Blocks of memory that are allocated, freed, grown, and copied into each other.

use alloc::vec;
use alloc::vec::Vec;

use crate::hash::Hash;
use crate::random::Random;

/// Number of blocks.
const BLOCKS: usize = 32;
/// Most bytes of a block: all blocks together take at most 2 MiB.
const MAX_BYTES: u64 = 64 * 1024;

/// The blocks.
pub struct Memory([Vec<u8>; BLOCKS]);

impl Memory {
    /// Empty blocks.
    pub fn new() -> Self {
        Self([const { Vec::new() }; BLOCKS])
    }

    /// Changes one or two blocks.
    pub fn change(&mut self, random: &mut Random, hash: &mut Hash) {
        let (to, from) = (self.pick(random), self.pick(random));
        let bytes = random.between(0, MAX_BYTES + 1) as usize;
        match random.between(0, 6) {
            0 => self.0[to] = vec![random.next() as u8; bytes],
            1 => self.0[to] = Vec::new(),
            2 => self.0[to].resize(bytes, random.next() as u8),
            3 => random.fill(&mut self.0[to]),
            4 => self.copy(to, from, random),
            _ => hash.bytes(&self.0[to]),
        }
    }

    fn pick(&self, random: &mut Random) -> usize {
        random.between(0, BLOCKS as u64) as usize
    }

    /// Copies a piece of one block over a piece of another or the same block; they may overlap.
    fn copy(&mut self, to: usize, from: usize, random: &mut Random) {
        let bytes = self.0[to].len().min(self.0[from].len());
        if bytes == 0 {
            return;
        }
        let length = random.between(0, bytes as u64 + 1) as usize;
        let place = |random: &mut Random, all: usize| {
            let start = random.between(0, (all - length) as u64 + 1) as usize;
            start..start + length
        };
        let read = place(random, self.0[from].len());
        let written = place(random, self.0[to].len()).start;
        if to == from {
            self.0[to].copy_within(read, written);
        } else if let Ok([to, from]) = self.0.get_disjoint_mut([to, from]) {
            to[written..written + length].copy_from_slice(&from[read]);
        }
    }
}
