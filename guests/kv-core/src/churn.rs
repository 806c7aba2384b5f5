//! `DEBUG CHURN`: writes memory over and over, so that a copy of the running machine has changes to
//! follow.

use alloc::vec::Vec;

use crate::buffer::OutOfMemory;

/// Words of a page.
const PAGE_WORDS: usize = 512;
const PAGE_BYTES: u64 = 4096;
/// Time between two writes, nanoseconds.
const STEP_NS: u64 = 5_000_000;
/// Most pages written at a time: after a long stop of the machine, the missed writes are not made up
/// for.
const MAX_PAGES: u64 = 1024;

/// The memory, and the rate of writing.
#[derive(Debug, Default)]
pub struct Churn {
    pool: Vec<u64>,
    bytes_per_second: u64,
    /// When the writing began, and how many pages were written since.
    since_ns: Option<u64>,
    pages: u64,
    next: usize,
    word: u64,
}

impl Churn {
    /// Writes `rate` MiB per second into `pool` MiB of memory; stops with a rate of 0.
    pub fn set(&mut self, rate: usize, pool: usize) -> Result<(), OutOfMemory> {
        *self = Self::default();
        let words = pool.saturating_mul(1 << 20) / 8;
        if rate > 0 && words >= PAGE_WORDS {
            self.pool
                .try_reserve_exact(words)
                .map_err(|_| OutOfMemory)?;
            self.pool.resize(words, 0);
            self.bytes_per_second = (rate as u64).saturating_mul(1 << 20);
        }
        Ok(())
    }

    /// Pages written so far.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Writes what is due at `now_ns`, nanoseconds since boot. Returns when it must be called again.
    pub fn run(&mut self, now_ns: u64) -> Option<u64> {
        if self.bytes_per_second == 0 {
            return None;
        }
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        let elapsed_us = now_ns.saturating_sub(since_ns) / 1000;
        let bytes = u128::from(self.bytes_per_second) * u128::from(elapsed_us) / 1_000_000;
        let due = (bytes / u128::from(PAGE_BYTES)) as u64;
        for _ in 0..due.saturating_sub(self.pages).min(MAX_PAGES) {
            self.write_page();
        }
        self.pages = self.pages.max(due);
        Some(now_ns + STEP_NS)
    }

    /// Fills the next page with bytes that do not compress.
    fn write_page(&mut self) {
        let start = self.next;
        for word in &mut self.pool[start..start + PAGE_WORDS] {
            self.word = self
                .word
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(1);
            *word = self.word;
        }
        self.next = match start + 2 * PAGE_WORDS > self.pool.len() {
            true => 0,
            false => start + PAGE_WORDS,
        };
    }
}
