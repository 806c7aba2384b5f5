//! Keys and values, and what they cost.

use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thiserror::Error;

use crate::buffer::{Budget, OutOfMemory};
use crate::number::{self, Digits};
use crate::resp::MAX_BULK;

/// What an entry costs besides its key and value, bytes: its place in a table that may be half
/// empty and, while it grows, exists twice, and what the heap rounds up.
const ENTRY_COST: usize = 200;

/// Why a value did not change.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// No memory left for data.
    #[error("out of memory")]
    OutOfMemory(#[from] OutOfMemory),
    /// Arithmetic on what is no number of 64 bits.
    #[error("value is not an integer or out of range")]
    NoInteger,
    /// The sum has more than 64 bits.
    #[error("increment or decrement would overflow")]
    Overflow,
    /// The value would be too long.
    #[error("string exceeds maximum allowed size ({MAX_BULK} bytes)")]
    TooLong,
}

/// The database.
pub struct Db {
    map: HashMap<Vec<u8>, Vec<u8>, FixedState>,
    budget: Budget,
    seed: u64,
}

impl Db {
    /// An empty one that may grow to `limit` bytes; `seed` makes it hard to find keys that collide.
    pub fn new(limit: usize, seed: u64) -> Self {
        Self {
            map: HashMap::with_hasher(FixedState::with_seed(seed)),
            budget: Budget::new(limit),
            seed,
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Bytes used and most bytes to be used.
    pub fn memory(&self) -> (usize, usize) {
        (self.budget.used(), self.budget.limit())
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.map.get(key).map(Vec::as_slice)
    }

    /// Sets `key` to `value`.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), OutOfMemory> {
        let Some(old) = self.map.get_mut(key) else {
            return self.insert(key, value);
        };
        let room = old.capacity();
        if value.len() > room || value.len() < room / 2 {
            let new = copy(value, &mut self.budget)?;
            self.budget.give(room);
            *old = new;
        } else {
            old.clear();
            old.extend_from_slice(value);
        }
        Ok(())
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), OutOfMemory> {
        self.budget.take(ENTRY_COST)?;
        let entry = self
            .map
            .try_reserve(1)
            .map_err(|_| OutOfMemory)
            .and_then(|()| {
                let key = copy(key, &mut self.budget)?;
                match copy(value, &mut self.budget) {
                    Ok(value) => Ok((key, value)),
                    Err(error) => {
                        self.budget.give(key.capacity());
                        Err(error)
                    }
                }
            });
        match entry {
            Ok((key, value)) => {
                self.map.insert(key, value);
                Ok(())
            }
            Err(error) => {
                self.budget.give(ENTRY_COST);
                Err(error)
            }
        }
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, value)) = self.map.remove_entry(key) else {
            return false;
        };
        self.budget
            .give(ENTRY_COST + key.capacity() + value.capacity());
        true
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.budget.limit(), self.seed);
    }

    /// Adds `amount` to the number at `key`, 0 if there is none; the sum.
    pub fn add(&mut self, key: &[u8], amount: i64) -> Result<i64, Refused> {
        let old = match self.get(key) {
            Some(value) => number::parse(value).ok_or(Refused::NoInteger)?,
            None => 0,
        };
        let sum = old.checked_add(amount).ok_or(Refused::Overflow)?;
        self.set(key, Digits::of(sum).as_bytes())?;
        Ok(sum)
    }

    /// Appends `more` to the value of `key`; its length then.
    pub fn append(&mut self, key: &[u8], more: &[u8]) -> Result<usize, Refused> {
        let Some(value) = self.map.get_mut(key) else {
            self.insert(key, more)?;
            return Ok(more.len());
        };
        let (length, room) = (value.len() + more.len(), value.capacity());
        if length > MAX_BULK {
            return Err(Refused::TooLong);
        }
        if length > room {
            // Half as much again, so that many small pieces cost few copies.
            let grown = (length + length / 2).min(MAX_BULK);
            self.budget.take(grown - room)?;
            if value.try_reserve_exact(grown - value.len()).is_err() {
                self.budget.give(grown - room);
                return Err(OutOfMemory.into());
            }
            assert_eq!(
                value.capacity(),
                grown,
                "the budget counts what is allocated"
            );
        }
        value.extend_from_slice(more);
        Ok(length)
    }
}

/// A copy of `bytes` that is paid for.
fn copy(bytes: &[u8], budget: &mut Budget) -> Result<Vec<u8>, OutOfMemory> {
    let mut copy = Vec::new();
    budget.take(bytes.len())?;
    if copy.try_reserve_exact(bytes.len()).is_err() {
        budget.give(bytes.len());
        return Err(OutOfMemory);
    }
    copy.extend_from_slice(bytes);
    assert_eq!(
        copy.capacity(),
        bytes.len(),
        "the budget counts what is allocated"
    );
    Ok(copy)
}
