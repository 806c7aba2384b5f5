//! The stored data. All of its memory is paid for from one budget, and allocated by requests that can
//! fail.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::buffer::{Budget, OutOfMemory};

mod db;
mod hash;
mod list;
mod ranked;
mod table;
mod value;
mod watch;

pub use db::{DATABASES, Keyspace, View};
pub use hash::Hash;
pub use list::{End, List};
pub use ranked::Ranked;
pub use table::Table;
pub use value::{Score, Value};
pub use watch::MAX_WATCHES;

/// A queue that once had room for this many items keeps it: it does not shrink below.
const KEPT_ITEMS: usize = 64;

/// A copy of `bytes`, paid for from the budget.
fn copy(bytes: &[u8], budget: &mut Budget) -> Result<Box<[u8]>, OutOfMemory> {
    Ok(copy_with_room(bytes, bytes.len(), budget)?.into_boxed_slice())
}

/// The same with room for `room` bytes in total, all paid for.
fn copy_with_room(bytes: &[u8], room: usize, budget: &mut Budget) -> Result<Vec<u8>, OutOfMemory> {
    let mut copy = Vec::new();
    budget.take(room)?;
    if copy.try_reserve_exact(room).is_err() {
        budget.give(room);
        return Err(OutOfMemory);
    }
    copy.extend_from_slice(bytes);
    assert_eq!(copy.capacity(), room, "the budget counts what is allocated");
    Ok(copy)
}

/// Frees memory that is not needed any more, if there is memory to do it.
fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() <= KEPT_ITEMS || queue.len() >= queue.capacity() / 4 {
        return;
    }
    let mut smaller = VecDeque::new();
    if smaller.try_reserve_exact(2 * queue.len()).is_ok() {
        smaller.extend(queue.drain(..));
        *queue = smaller;
    }
}
