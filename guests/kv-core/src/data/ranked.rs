//! Members in the order of their scores: for sorted sets, and for keys by expiry time.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::cmp::Ordering;

use super::shrink;
use super::table::Table;
use crate::buffer::{Budget, OutOfMemory};

/// The cost of a member's place in the order, bytes: it may exist three times, as in a table.
const ORDER_COST: usize = 3 * size_of::<u32>();

/// Members, each once and with a score. Equal scores are ordered by member.
pub struct Ranked<S> {
    members: Table<S>,
    /// Indices of `members`, in the order of score and member.
    order: VecDeque<u32>,
}

impl<S: Copy + Ord> Ranked<S> {
    /// Without members; `seed` as for a table.
    pub const fn new(seed: u64) -> Self {
        Self {
            members: Table::new(seed),
            order: VecDeque::new(),
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Bytes taken from the budget.
    pub fn taken(&self) -> usize {
        self.members.taken() + ORDER_COST * self.len()
    }

    /// The members as a table, whose order is not that of the scores.
    pub fn table(&self) -> &Table<S> {
        &self.members
    }

    /// The score of `member`.
    pub fn score(&self, member: &[u8]) -> Option<S> {
        self.members.get(member).copied()
    }

    /// The member with this rank; rank 0 has the lowest score.
    pub fn at(&self, rank: usize) -> Option<(&[u8], S)> {
        let index = *self.order.get(rank)?;
        let (member, score) = self.members.at(index as usize)?;
        Some((member, *score))
    }

    /// The rank of `member`.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        self.search(self.score(member)?, member).ok()
    }

    /// The place of a member with this score in the order, or where it would be.
    fn search(&self, score: S, member: &[u8]) -> Result<usize, usize> {
        self.order.binary_search_by(|index| {
            let (other, its) = self.members.at(*index as usize).unwrap_or((&[], &score));
            its.cmp(&score).then_with(|| other.cmp(member))
        })
    }

    /// Sets the score of `member`. Returns the old one.
    pub fn set(
        &mut self,
        member: &[u8],
        score: S,
        budget: &mut Budget,
    ) -> Result<Option<S>, OutOfMemory> {
        let Some(index) = self.members.index_of(member) else {
            self.add(member, score, budget)?;
            return Ok(None);
        };
        let old = self.members.get(member).copied().unwrap_or(score);
        if old.cmp(&score) != Ordering::Equal {
            self.take_from_order(old, member);
            if let Some(its) = self.members.at_mut(index) {
                *its = score;
            }
            self.put_into_order(score, member, index);
        }
        Ok(Some(old))
    }

    fn add(&mut self, member: &[u8], score: S, budget: &mut Budget) -> Result<(), OutOfMemory> {
        budget.take(ORDER_COST)?;
        let room = self.order.try_reserve(1).map_err(|_| OutOfMemory);
        let added = room.and_then(|()| self.members.insert(member, score, budget));
        if let Err(error) = added {
            budget.give(ORDER_COST);
            return Err(error);
        }
        self.put_into_order(score, member, self.members.len() - 1);
        Ok(())
    }

    /// There is room for it: it was made for a new member, or has just become free for an old one.
    fn put_into_order(&mut self, score: S, member: &[u8], index: usize) {
        let rank = self.search(score, member).unwrap_or_else(|rank| rank);
        self.order.insert(rank, index as u32);
    }

    fn take_from_order(&mut self, score: S, member: &[u8]) {
        let rank = self.search(score, member);
        self.order
            .remove(rank.expect("every member is in the order"));
    }

    /// Removes `member`. Returns its score.
    pub fn remove(&mut self, member: &[u8], budget: &mut Budget) -> Option<S> {
        let rank = self.rank(member)?;
        Some(self.remove_at(rank, budget)?.1)
    }

    /// Removes the member with this rank.
    pub fn remove_at(&mut self, rank: usize, budget: &mut Budget) -> Option<(Box<[u8]>, S)> {
        let index = self.order.remove(rank)?;
        // The last member of the table will get the index that becomes free.
        let last = self.members.len() - 1;
        if last != index as usize {
            let (member, score) = self.members.at(last)?;
            let rank = self.search(*score, member);
            self.order[rank.expect("every member is in the order")] = index;
        }
        budget.give(ORDER_COST);
        shrink(&mut self.order);
        self.members.remove_at(index as usize, budget)
    }
}
