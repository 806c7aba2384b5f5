//! Ends a machine's wait for its console's reader.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes a machine stop waiting for its console's reader, from another thread.
#[derive(Clone, Debug)]
pub struct Hurry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Readable once the wait must end.
    event: OwnedFd,
    waiting: AtomicBool,
    told: AtomicBool,
}

impl Hurry {
    /// The machine may still wait.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new() -> io::Result<Hurry> {
        Ok(Hurry(Arc::new(Inner {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            waiting: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })))
    }

    /// From now on the machine does not wait for the reader.
    pub fn up(&self) {
        // If the counter is full, the event is already set.
        let _full = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// Does the machine wait for its console now?
    pub fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// Waits until the console accepts text. Returns false if [`Hurry::up`] came first.
    pub(super) fn await_room(&self, console: BorrowedFd<'_>) -> io::Result<bool> {
        let mut set = [
            PollFd::from_borrowed_fd(console, PollFlags::OUT),
            PollFd::new(&self.0.event, PollFlags::IN),
        ];
        loop {
            match self.during(|| poll(&mut set, None)) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        // If the console has an error, the following write returns it.
        let ready = !set[0].revents().is_empty();
        if !ready && !self.0.told.swap(true, Ordering::Relaxed) {
            tracing::warn!("nobody reads the console: the last that the guest printed is dropped");
        }
        Ok(ready)
    }

    /// Does `wait`, which may wait for the console.
    pub(super) fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.waiting.store(true, Ordering::Release);
        let done = wait();
        self.0.waiting.store(false, Ordering::Release);
        done
    }
}
