//! Shared state without locks. A guest has one vCPU, and its interrupt handlers run no Rust.

use core::cell::RefCell;

/// A `RefCell` that may be a static. Rust code runs on one vCPU, on one stack at a time.
pub(crate) struct Single<T>(RefCell<T>);

// SAFETY: there is a single thread of Rust code. Interrupt handlers are assembly and do not use a
// `Single`. exception_entry, which has the only other stack, never returns to the code that it
// interrupted. RefCell checks that this one thread does not borrow twice.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Runs `f` on the value; `None` if a caller further up the stack is using it.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut value| f(&mut value))
    }
}
