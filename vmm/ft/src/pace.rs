//! Stops the primary's vCPU while it may not run on.

use lockstep_pulse::Pulse;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
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

/// The vCPU's brake. A vCPU that need not wait takes no lock here.
#[derive(Debug)]
pub struct Pace {
    /// Changed with the lock held, so that a vCPU that is about to wait learns of it.
    stopped: AtomicBool,
    /// Share of its time that the vCPU rests, percent; changed like that as well.
    rest: AtomicU32,
    unseen: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
    pulse: Pulse,
}

#[derive(Debug)]
struct State {
    /// The vCPU must rest until [`Pace::resume`].
    parked: bool,
    /// The vCPU works since then; means something while it is to rest.
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
            stopped: AtomicBool::new(false),
            rest: AtomicU32::new(0),
            unseen: AtomicUsize::new(0),
            state: Mutex::new(State {
                parked: false,
                works_since: Instant::now(),
            }),
            changed: Condvar::new(),
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
        let before = self.rest.load(Ordering::Relaxed);
        if self.stopped.load(Ordering::Relaxed) != may_run && before == rest {
            return;
        }
        let mut state = self.lock();
        if before == 0 && rest > 0 {
            state.works_since = Instant::now();
        }
        self.rest.store(rest, Ordering::Release);
        self.stopped.store(!may_run, Ordering::Release);
        self.changed.notify_all();
    }

    fn must_wait(&self) -> bool {
        let unseen = self.unseen.load(Ordering::Acquire);
        self.stopped.load(Ordering::Acquire) || unseen >= MAX_UNSEEN_BYTES
    }

    /// How much of its time the vCPU rests, percent.
    fn rest(&self) -> u32 {
        self.rest.load(Ordering::Acquire)
    }

    /// Must the vCPU wait?
    pub fn holds(&self) -> bool {
        self.must_wait() || self.rest() > 0 && self.lock().works_since.elapsed() >= WORK_SPAN
    }

    /// The vCPU waited for its inputs for this time: it did not work.
    pub fn idled(&self, time: Duration) {
        if self.rest() > 0 {
            let mut state = self.lock();
            state.works_since = (state.works_since + time).min(Instant::now());
        }
    }

    /// Waits until the vCPU may run. Returns whether it had to wait.
    pub fn wait(&self) -> bool {
        if !self.holds() {
            return false;
        }
        let _rest = self.pulse.rest();
        let mut state = self.lock();
        let rest = self.rest();
        if rest > 0 {
            let work = state.works_since.elapsed().min(MAX_WORK);
            let time = (work * rest / (100 - rest).max(1)).min(MAX_REST);
            let held = self
                .changed
                .wait_timeout_while(state, time, |_| self.rest() > 0);
            (state, _) = held.expect("nobody panics with this lock");
        }
        while self.must_wait() {
            let held = self.changed.wait(state);
            state = held.expect("nobody panics with this lock");
        }
        state.works_since = Instant::now();
        true
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
        assert!(!pace.wait(), "it has not worked yet");
        std::thread::sleep(WORK_SPAN);
        assert!(pace.holds());
        let began = Instant::now();
        pace.wait();
        let rested = began.elapsed();
        assert!(rested >= WORK_SPAN, "{rested:?}");
        assert!(!pace.holds(), "it just rested");
        std::thread::sleep(WORK_SPAN);
        pace.idled(WORK_SPAN);
        assert!(!pace.holds(), "it waited for its inputs");
        std::thread::sleep(WORK_SPAN);
        assert!(pace.holds());
        pace.set(true, 0);
        assert!(!pace.holds());
    }

    #[test]
    fn a_parked_vcpu_runs_on_when_it_is_told_to() {
        let pace = Arc::new(Pace::default());
        let (parks, parked) = channel();
        let vcpu = pace.clone();
        let thread = std::thread::spawn(move || {
            let resumed = vcpu.clone();
            vcpu.park(|| resumed.resume());
            vcpu.park(|| parks.send(()).unwrap());
        });
        parked.recv().unwrap();
        pace.resume();
        thread.join().unwrap();
    }
}
