//! Lists.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::{copy, shrink};
use crate::buffer::{Budget, OutOfMemory};

/// The cost of an item besides its bytes: its place, which may exist three times while the list grows,
/// and the heap's rounding.
const ITEM_COST: usize = 3 * size_of::<Box<[u8]>>() + 16;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// A list.
#[derive(Default)]
pub struct List {
    items: VecDeque<Box<[u8]>>,
    /// Bytes taken from the budget.
    taken: usize,
}

impl List {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes taken from the budget.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The item at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.items.get(index).map(|item| &**item)
    }

    /// The items from `start` to before `end`. They must be in the list.
    pub fn range(&self, start: usize, end: usize) -> impl Iterator<Item = &[u8]> {
        self.items.range(start..end).map(|item| &**item)
    }

    /// Adds an item.
    pub fn push(&mut self, end: End, item: &[u8], budget: &mut Budget) -> Result<(), OutOfMemory> {
        budget.take(ITEM_COST)?;
        let room = self.items.try_reserve(1).map_err(|_| OutOfMemory);
        match room.and_then(|()| copy(item, budget)) {
            Ok(item) => {
                self.taken += ITEM_COST + item.len();
                match end {
                    End::Left => self.items.push_front(item),
                    End::Right => self.items.push_back(item),
                }
                Ok(())
            }
            Err(error) => {
                budget.give(ITEM_COST);
                Err(error)
            }
        }
    }

    /// Removes an item.
    pub fn pop(&mut self, end: End, budget: &mut Budget) -> Option<Box<[u8]>> {
        let item = match end {
            End::Left => self.items.pop_front(),
            End::Right => self.items.pop_back(),
        }?;
        let cost = ITEM_COST + item.len();
        budget.give(cost);
        self.taken -= cost;
        shrink(&mut self.items);
        Some(item)
    }

    /// Replaces the item at `index`, which must be in the list.
    pub fn set(
        &mut self,
        index: usize,
        item: &[u8],
        budget: &mut Budget,
    ) -> Result<(), OutOfMemory> {
        let item = copy(item, budget)?;
        self.taken += item.len();
        let old = core::mem::replace(&mut self.items[index], item);
        budget.give(old.len());
        self.taken -= old.len();
        Ok(())
    }
}
