//! Shared state without locks: a guest has one vCPU, and its interrupt handlers run no Rust.

use core::cell::RefCell;

/// A `RefCell` that may be a static. Rust code runs on one vCPU, one stack at a time.
pub(crate) struct Single<T>(RefCell<T>);

// SAFETY: there is a single thread of Rust code: interrupt handlers are assembly and do not touch
// any `Single`, and exception_entry, the only other stack, never returns to what it interrupted.
// Re-entrance on that thread is what RefCell checks.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Runs `f` on the value; `None` if it is in use further up the stack.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut value| f(&mut value))
    }
}
