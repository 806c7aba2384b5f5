//! Hashes: fields and their values.

use alloc::boxed::Box;

use super::copy;
use super::table::Table;
use crate::buffer::{Budget, OutOfMemory};

/// A hash.
pub struct Hash {
    fields: Table<Box<[u8]>>,
    /// Bytes taken from the budget for values.
    values: usize,
}

impl Hash {
    /// An empty hash; `seed` as for a table.
    pub const fn new(seed: u64) -> Self {
        Self {
            fields: Table::new(seed),
            values: 0,
        }
    }

    /// The fields.
    pub fn table(&self) -> &Table<Box<[u8]>> {
        &self.fields
    }

    /// Bytes taken from the budget.
    pub fn taken(&self) -> usize {
        self.fields.taken() + self.values
    }

    /// The value of `field`.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(|value| &**value)
    }

    /// Sets `field`. Returns whether it is new.
    pub fn set(
        &mut self,
        field: &[u8],
        value: &[u8],
        budget: &mut Budget,
    ) -> Result<bool, OutOfMemory> {
        let value = copy(value, budget)?;
        let length = value.len();
        let new = match self.fields.get_mut(field) {
            Some(its) => {
                let old = core::mem::replace(its, value);
                budget.give(old.len());
                self.values -= old.len();
                false
            }
            None => {
                if let Err(error) = self.fields.insert(field, value, budget) {
                    budget.give(length);
                    return Err(error);
                }
                true
            }
        };
        self.values += length;
        Ok(new)
    }

    /// Removes `field`. Returns whether it existed.
    pub fn remove(&mut self, field: &[u8], budget: &mut Budget) -> bool {
        let Some(value) = self.fields.remove(field, budget) else {
            return false;
        };
        budget.give(value.len());
        self.values -= value.len();
        true
    }
}
