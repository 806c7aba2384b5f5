//! Buffers that are shared with other threads, and used again when those have dropped them.

use std::collections::VecDeque;
use std::sync::Arc;

/// Buffers kept; what is shared beyond them is given back to the host.
const KEPT: usize = 64;

/// Buffers that were shared, the oldest first.
#[derive(Debug)]
pub struct Recycled<T>(VecDeque<Arc<T>>);

impl<T> Recycled<T> {
    /// Begins with `count` buffers that `make` makes.
    pub fn new(count: usize, make: impl FnMut() -> T) -> Recycled<T> {
        let mut buffers = VecDeque::with_capacity(KEPT);
        buffers.extend(std::iter::repeat_with(make).take(count).map(Arc::new));
        Recycled(buffers)
    }

    /// Shares `value`, and leaves in its place a buffer that no other thread holds any more, with the content
    /// that it was shared with, or one that `make` makes.
    pub fn share(&mut self, value: &mut T, make: impl FnOnce() -> T) -> Arc<T> {
        let free = |oldest: &mut Arc<T>| Arc::get_mut(oldest).is_some();
        let free = self.0.pop_front_if(free);
        let mut shared = free.unwrap_or_else(|| Arc::new(make()));
        let buffer = Arc::get_mut(&mut shared).expect("nobody else holds it");
        std::mem::swap(buffer, value);
        if self.0.len() < KEPT {
            self.0.push_back(Arc::clone(&shared));
        }
        shared
    }
}
