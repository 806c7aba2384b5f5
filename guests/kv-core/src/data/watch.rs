//! WATCH: which connections must know that a key was changed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::copy;
use crate::buffer::{Budget, OutOfMemory};

/// Most keys that all connections together may watch. Every change of a key searches them.
pub const MAX_WATCHES: usize = 1024;

/// A key that a connection watches.
struct Watch {
    client: u64,
    db: usize,
    key: Box<[u8]>,
    touched: bool,
}

/// All keys that are watched.
#[derive(Default)]
pub struct Watches(Vec<Watch>);

impl Watches {
    /// The cost of a watch besides its key, bytes.
    const COST: usize = 3 * size_of::<Watch>() + 16;

    /// Makes connection `client` watch a key.
    pub fn add(
        &mut self,
        client: u64,
        db: usize,
        key: &[u8],
        budget: &mut Budget,
    ) -> Result<(), OutOfMemory> {
        let same = |it: &Watch| it.client == client && it.db == db && *it.key == *key;
        if self.0.iter().any(same) {
            return Ok(());
        }
        if self.0.len() == MAX_WATCHES || self.0.try_reserve(1).is_err() {
            return Err(OutOfMemory);
        }
        budget.take(Self::COST)?;
        let key = copy(key, budget).inspect_err(|_| budget.give(Self::COST))?;
        self.0.push(Watch {
            client,
            db,
            key,
            touched: false,
        });
        Ok(())
    }

    /// Notes that a key was changed.
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        for watch in &mut self.0 {
            watch.touched |= watch.db == db && *watch.key == *key;
        }
    }

    /// Notes that those keys of a database were changed for which `which` returns true.
    pub fn touch_all(&mut self, db: usize, mut which: impl FnMut(&[u8]) -> bool) {
        for watch in self.0.iter_mut().filter(|it| it.db == db) {
            watch.touched |= which(&watch.key);
        }
    }

    /// Was a key that `client` watches changed since then?
    pub fn touched(&self, client: u64) -> bool {
        self.0.iter().any(|it| it.client == client && it.touched)
    }

    /// Ends all watches of `client`.
    pub fn forget(&mut self, client: u64, budget: &mut Budget) {
        self.0.retain(|it| {
            let stays = it.client != client;
            if !stays {
                budget.give(Self::COST + it.key.len());
            }
            stays
        });
    }
}
