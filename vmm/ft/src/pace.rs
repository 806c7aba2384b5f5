//! Stops the primary's vCPU while it may not run on.

use lockstep_pulse::Pulse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Bytes of log and outputs that the vCPU's thread may have handed over before the runtime has looked
/// at them. Together with the protocol's window this is less than a backup accepts.
pub const MAX_UNSEEN_BYTES: usize = 4 << 20;

/// A throttled vCPU works at least this long before it rests: in small steps, so that clients hardly
/// notice.
const WORK_SPAN: Duration = Duration::from_millis(2);
/// Most work that counts for one rest: a guest that only waited needs no rest.
const MAX_WORK: Duration = Duration::from_millis(20);
/// Longest rest at a time.
const MAX_REST: Duration = Duration::from_millis(50);

/// The vCPU's brake.
#[derive(Debug)]
pub struct Pace {
    state: Mutex<State>,
    changed: Condvar,
    unseen: AtomicUsize,
    pulse: Pulse,
}

#[derive(Debug)]
struct State {
    may_run: bool,
    /// The vCPU must rest until [`Pace::resume`].
    parked: bool,
    /// The part of its time for which the vCPU must rest, percent.
    rest: u32,
    /// Since when the vCPU has worked.
    works_since: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::new(Pulse::default())
    }
}

impl Pace {
    /// A brake that is off, for a vCPU's thread with this pulse.
    pub fn new(pulse: Pulse) -> Pace {
        Pace {
            state: Mutex::new(State {
                may_run: true,
                parked: false,
                rest: 0,
                works_since: Instant::now(),
            }),
            changed: Condvar::new(),
            unseen: AtomicUsize::new(0),
            pulse,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with this lock")
    }

    /// The vCPU's thread has handed over `bytes` bytes.
    pub fn handed(&self, bytes: usize) {
        self.unseen.fetch_add(bytes, Ordering::AcqRel);
    }

    /// The runtime has looked at `bytes` bytes of these.
    pub fn seen(&self, bytes: usize) {
        let before = self.unseen.fetch_sub(bytes, Ordering::AcqRel);
        if before >= MAX_UNSEEN_BYTES && before - bytes < MAX_UNSEEN_BYTES {
            let _held = self.lock();
            self.changed.notify_all();
        }
    }

    /// Lets the vCPU run, or stops it where it leaves its position; and sets the part of its time for
    /// which it must rest, percent.
    pub fn set(&self, may_run: bool, rest: u32) {
        let mut state = self.lock();
        state.rest = rest;
        if state.may_run != may_run {
            state.may_run = may_run;
            self.changed.notify_all();
        }
    }

    fn must_wait(&self, state: &State) -> bool {
        !state.may_run || self.unseen.load(Ordering::Acquire) >= MAX_UNSEEN_BYTES
    }

    /// Must the vCPU wait?
    pub fn holds(&self) -> bool {
        let state = self.lock();
        self.must_wait(&state) || state.rest > 0 && state.works_since.elapsed() >= WORK_SPAN
    }

    /// Waits until the vCPU may run.
    pub fn wait(&self) {
        let _rest = self.pulse.rest();
        let mut state = self.lock();
        if state.rest > 0 {
            let work = state.works_since.elapsed().min(MAX_WORK);
            let rest = (work * state.rest / (100 - state.rest).max(1)).min(MAX_REST);
            let held = self.changed.wait_timeout_while(state, rest, |s| s.rest > 0);
            (state, _) = held.expect("nobody panics with this lock");
        }
        while self.must_wait(&state) {
            let held = self.changed.wait(state);
            state = held.expect("nobody panics with this lock");
        }
        state.works_since = Instant::now();
    }

    /// On the vCPU's thread: calls `tell`, and rests until [`Pace::resume`], which may come as soon as
    /// `tell` has reported the rest.
    pub fn park(&self, tell: impl FnOnce()) {
        let _rest = self.pulse.rest();
        self.lock().parked = true;
        tell();
        let state = self.lock();
        let held = self.changed.wait_while(state, |state| state.parked);
        held.expect("nobody panics with this lock").works_since = Instant::now();
    }

    /// Lets a parked vCPU run on.
    pub fn resume(&self) {
        self.lock().parked = false;
        self.changed.notify_all();
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
        pace.set(false, 0);
        assert!(pace.holds());
        let (done, waited) = channel();
        let vcpu = pace.clone();
        let thread = std::thread::spawn(move || {
            vcpu.wait();
            done.send(()).unwrap();
        });
        assert!(waited.try_recv().is_err());
        pace.set(true, 0);
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

    #[test]
    fn a_throttled_vcpu_rests_its_share_after_it_worked() {
        let pace = Pace::default();
        pace.set(true, 50);
        std::thread::sleep(WORK_SPAN);
        assert!(pace.holds());
        let began = Instant::now();
        pace.wait();
        let rested = began.elapsed();
        assert!(rested >= WORK_SPAN, "{rested:?}");
        assert!(!pace.holds(), "it just rested");
        pace.set(true, 0);
        std::thread::sleep(WORK_SPAN);
        assert!(!pace.holds());
    }

    #[test]
    fn a_parked_vcpu_runs_on_when_it_is_told_to() {
        let pace = Arc::new(Pace::default());
        let vcpu = pace.clone();
        let thread = std::thread::spawn(move || {
            let resumed = vcpu.clone();
            vcpu.park(|| resumed.resume());
            vcpu.park(|| ());
        });
        while !pace.lock().parked {
            std::thread::yield_now();
        }
        pace.resume();
        thread.join().unwrap();
    }
}
