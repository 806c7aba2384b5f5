//! A hash table with an order, whose memory is allocated by requests that can fail, and paid for.
//!
//! Its entries have indices without gaps. A removal moves the last entry into the gap. So a scan of the
//! indices downwards meets every entry that exists all the time: see `commands/scan.rs`.

use alloc::boxed::Box;
use core::mem;

use foldhash::fast::FixedState;
use indexmap::IndexMap;

use super::copy;
use crate::buffer::{Budget, OutOfMemory};

/// A table that once had room for this many entries keeps it: it does not shrink below.
const KEPT: usize = 64;
/// How many places an entry may take: in a table that is half empty, and doubled while the table grows.
const PLACES: usize = 3;
/// The cost of an entry's index and of the heap's rounding, bytes.
const AROUND: usize = 64;

/// Keys and values.
pub struct Table<V> {
    map: IndexMap<Box<[u8]>, V, FixedState>,
    /// Bytes taken from the budget for keys and places.
    taken: usize,
}

impl<V> Table<V> {
    /// The cost of an entry, without its key and what its value points at, bytes.
    pub const ENTRY_COST: usize = PLACES * size_of::<(u64, Box<[u8]>, V)>() + AROUND;

    /// An empty table; `seed` makes it hard to find keys that collide.
    pub const fn new(seed: u64) -> Self {
        Self {
            map: IndexMap::with_hasher(FixedState::with_seed(seed)),
            taken: 0,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Bytes taken from the budget.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Is `key` in the table?
    pub fn has(&self, key: &[u8]) -> bool {
        self.map.contains_key(key)
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.map.get(key)
    }

    /// The value of `key`, to change it.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// The index of `key`.
    pub fn index_of(&self, key: &[u8]) -> Option<usize> {
        self.map.get_index_of(key)
    }

    /// The entry at `index`.
    pub fn at(&self, index: usize) -> Option<(&[u8], &V)> {
        self.map
            .get_index(index)
            .map(|(key, value)| (&**key, value))
    }

    /// The value at `index`, to change it.
    pub fn at_mut(&mut self, index: usize) -> Option<&mut V> {
        self.map.get_index_mut(index).map(|(_, value)| value)
    }

    /// All entries, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.map.iter().map(|(key, value)| (&**key, value))
    }

    /// Makes room for an entry with this key, which must then be [put](Self::put).
    pub fn prepare(&mut self, key: &[u8], budget: &mut Budget) -> Result<Box<[u8]>, OutOfMemory> {
        budget.take(Self::ENTRY_COST)?;
        let room = self.map.try_reserve(1).map_err(|_| OutOfMemory);
        match room.and_then(|()| copy(key, budget)) {
            Ok(key) => Ok(key),
            Err(error) => {
                budget.give(Self::ENTRY_COST);
                Err(error)
            }
        }
    }

    /// Puts an entry after all others. There must be room.
    pub fn put(&mut self, key: Box<[u8]>, value: V) {
        self.taken += Self::ENTRY_COST + key.len();
        let before = self.map.insert(key, value);
        assert!(before.is_none(), "only a new key is put");
    }

    /// Adds an entry whose key is new.
    pub fn insert(&mut self, key: &[u8], value: V, budget: &mut Budget) -> Result<(), OutOfMemory> {
        let key = self.prepare(key, budget)?;
        self.put(key, value);
        Ok(())
    }

    /// Removes the entry of `key`.
    pub fn remove(&mut self, key: &[u8], budget: &mut Budget) -> Option<V> {
        let index = self.index_of(key)?;
        Some(self.remove_at(index, budget)?.1)
    }

    /// Removes the entry at `index`. The last entry gets its index.
    pub fn remove_at(&mut self, index: usize, budget: &mut Budget) -> Option<(Box<[u8]>, V)> {
        let (key, value) = self.map.swap_remove_index(index)?;
        let cost = Self::ENTRY_COST + key.len();
        budget.give(cost);
        self.taken -= cost;
        self.shrink();
        Some((key, value))
    }

    /// Frees memory that is not needed any more, if there is memory to do it.
    fn shrink(&mut self) {
        let length = self.map.len();
        if self.map.capacity() <= KEPT || length >= self.map.capacity() / 4 {
            return;
        }
        let mut smaller = IndexMap::with_hasher(self.map.hasher().clone());
        if smaller.try_reserve(2 * length).is_ok() {
            smaller.extend(mem::take(&mut self.map));
            self.map = smaller;
        }
    }
}
