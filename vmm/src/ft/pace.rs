//! Holds the primary's vCPU while it may not run on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

/// Log and outputs that the vCPU's thread may have handed to the runtime without the runtime having
/// looked at them, bytes. With the protocol's window it stays below what a backup takes in.
pub const MAX_UNSEEN_BYTES: usize = 4 << 20;

/// The vCPU's brake.
#[derive(Debug)]
pub struct Pace {
    may_run: Mutex<bool>,
    changed: Condvar,
    unseen: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            may_run: Mutex::new(true),
            changed: Condvar::new(),
            unseen: AtomicUsize::new(0),
        }
    }
}

impl Pace {
    /// The vCPU's thread handed so many bytes over.
    pub fn handed(&self, bytes: usize) {
        self.unseen.fetch_add(bytes, Ordering::AcqRel);
    }

    /// The runtime looked at so many bytes of what was handed over.
    pub fn seen(&self, bytes: usize) {
        let before = self.unseen.fetch_sub(bytes, Ordering::AcqRel);
        if before >= MAX_UNSEEN_BYTES && before - bytes < MAX_UNSEEN_BYTES {
            let _held = self.may_run.lock().expect("nobody panics with this lock");
            self.changed.notify_all();
        }
    }

    /// Lets the vCPU run, or stops it where it leaves its position.
    pub fn set(&self, may_run: bool) {
        let mut held = self.may_run.lock().expect("nobody panics with this lock");
        if *held != may_run {
            *held = may_run;
            self.changed.notify_all();
        }
    }

    /// Must the vCPU wait?
    pub fn holds(&self) -> bool {
        let may_run = *self.may_run.lock().expect("nobody panics with this lock");
        !may_run || self.unseen.load(Ordering::Acquire) >= MAX_UNSEEN_BYTES
    }

    /// Waits until it need not.
    pub fn wait(&self) {
        let mut held = self.may_run.lock().expect("nobody panics with this lock");
        while !*held || self.unseen.load(Ordering::Acquire) >= MAX_UNSEEN_BYTES {
            held = self
                .changed
                .wait(held)
                .expect("nobody panics with this lock");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    #[test]
    fn a_held_vcpu_goes_on_when_it_may() {
        let pace = Arc::new(Pace::default());
        assert!(!pace.holds());
        pace.set(false);
        assert!(pace.holds());
        let (done, waited) = channel();
        let vcpu = pace.clone();
        let thread = std::thread::spawn(move || {
            vcpu.wait();
            done.send(()).unwrap();
        });
        assert!(waited.try_recv().is_err());
        pace.set(true);
        waited.recv().unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn unseen_work_is_bounded() {
        let pace = Pace::default();
        pace.handed(MAX_UNSEEN_BYTES - 1);
        assert!(!pace.holds());
        pace.handed(10);
        assert!(pace.holds());
        pace.seen(10);
        assert!(!pace.holds());
        pace.wait();
    }
}
