//! Queues of bytes, whose memory is taken from a budget.

use alloc::vec::Vec;

use thiserror::Error;

/// Bytes that an empty buffer keeps allocated for its next use.
const KEPT: usize = 16 * 1024;

/// No memory: the budget or the heap is exhausted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("out of memory")]
pub struct OutOfMemory;

/// A limit on bytes, and how many of them are taken.
#[derive(Debug)]
pub struct Budget {
    used: usize,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    /// Takes `bytes` from it.
    pub fn take(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        if bytes > self.limit.saturating_sub(self.used) {
            return Err(OutOfMemory);
        }
        self.used += bytes;
        Ok(())
    }

    /// Gives `bytes` back.
    pub fn give(&mut self, bytes: usize) {
        assert!(bytes <= self.used, "memory given back that nobody took");
        self.used -= bytes;
    }

    /// Bytes taken.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The limit, bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Consumed bytes that were not moved away yet.
    start: usize,
}

impl Buffer {
    /// Its content.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `more` bytes.
    pub fn reserve(&mut self, more: usize, budget: &mut Budget) -> Result<(), OutOfMemory> {
        if more <= self.bytes.capacity() - self.bytes.len() {
            return Ok(());
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        let (needed, old) = (self.bytes.len() + more, self.bytes.capacity());
        if needed <= old {
            return Ok(());
        }
        let new = needed.max(old * 2);
        budget.take(new - old)?;
        if self
            .bytes
            .try_reserve_exact(new - self.bytes.len())
            .is_err()
        {
            budget.give(new - old);
            return Err(OutOfMemory);
        }
        assert_eq!(
            self.bytes.capacity(),
            new,
            "the budget counts what is allocated"
        );
        Ok(())
    }

    /// Appends `bytes`, for which there is room.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.bytes.capacity() - self.bytes.len(),
            "pushed without a reservation"
        );
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops all but the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.start + length);
    }

    /// Drops the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed more than there is");
        self.start += count;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Frees memory if the buffer is empty and has much. With `all`, frees everything, content
    /// included.
    pub fn trim(&mut self, all: bool, budget: &mut Budget) {
        if all || (self.is_empty() && self.bytes.capacity() > KEPT) {
            budget.give(self.bytes.capacity());
            *self = Self::default();
        }
    }
}
