//! Detects that the vCPU's thread hangs.
//!
//! A guest that loops for ever is not a failure. A VMM thread that hangs is one (on a lock, or in a
//! system call that does not return). So the vCPU's thread counts beats as it makes progress. When it
//! has been in the guest for a while without one, the watch kicks it out by a signal: its return is a
//! beat.

use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// A vCPU thread that neither rests nor beats for this long counts as hanging. Work whose time grows
/// with the machine's memory beats all along.
pub const HANG_LIMIT: Duration = Duration::from_secs(1);

/// The time between two looks counts at most this much: if the watching thread itself did not run, it
/// has not seen the vCPU's thread do nothing.
const LOOK_COUNTS: Duration = Duration::from_millis(100);

/// What the vCPU's thread shows of its progress; shared with all that wait for that thread.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Goes up with every position, every kick that was answered, and every rest.
    beats: AtomicU64,
    resting: AtomicBool,
    in_guest: AtomicBool,
    /// The thread is kicked, for a guest that runs in this process: no signal gets it out.
    kick: Arc<AtomicBool>,
    seen_by: Option<Box<dyn AtPositions>>,
}

/// Is called at every position, on the vCPU's thread: where a program plants a fault there.
pub trait AtPositions: Debug + Send + Sync {
    /// The thread is at a position.
    fn position(&self);
}

/// While this exists, the thread rests: it waits for something that may rightly never come.
#[derive(Debug)]
pub struct Rest<'a>(&'a Pulse);

impl Pulse {
    /// The pulse of a thread whose positions something sees.
    pub fn seen_by(this: Box<dyn AtPositions>) -> Pulse {
        Pulse {
            shared: Arc::new(Shared {
                seen_by: Some(this),
                ..Shared::default()
            }),
        }
    }

    /// Called on the vCPU's thread at every position.
    pub fn position(&self) {
        self.beat();
        if let Some(seer) = &self.shared.seen_by {
            seer.position();
        }
    }

    /// True when the thread is kicked. Who has left the guest for that makes it false.
    pub fn kick(&self) -> Arc<AtomicBool> {
        self.shared.kick.clone()
    }

    /// Called on the vCPU's thread when it has made progress.
    pub fn beat(&self) {
        self.shared.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the thread has made progress.
    pub fn beats(&self) -> u64 {
        self.shared.beats.load(Ordering::Relaxed)
    }

    /// Called on the vCPU's thread before a wait that is not a failure.
    pub fn rest(&self) -> Rest<'_> {
        self.shared.resting.store(true, Ordering::Release);
        Rest(self)
    }

    /// Called on the vCPU's thread before it enters the guest (true) and after it has left it (false).
    pub fn in_guest(&self, inside: bool) {
        self.shared.in_guest.store(inside, Ordering::Release);
        self.beat();
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.beat();
        self.0.shared.resting.store(false, Ordering::Release);
    }
}

/// Watches a vCPU thread from another thread.
#[derive(Debug)]
pub struct PulseWatch {
    pulse: Pulse,
    thread: Option<JoinHandle<()>>,
    beats: u64,
    /// When the thread was looked at last, and for how long it has shown no beat.
    looked: Instant,
    still: Duration,
}

impl PulseWatch {
    /// A watch for the thread that uses `pulse`. It begins with [`PulseWatch::attach`].
    pub fn new(pulse: Pulse) -> PulseWatch {
        PulseWatch {
            pulse,
            thread: None,
            beats: 0,
            looked: Instant::now(),
            still: Duration::ZERO,
        }
    }

    /// The pulse that it watches.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Watches this thread from now on.
    pub fn attach(&mut self, thread: JoinHandle<()>) {
        (self.looked, self.still) = (Instant::now(), Duration::ZERO);
        self.thread = Some(thread);
    }

    /// Does the thread answer? Must be called every few milliseconds. It kicks the thread out of the
    /// guest if no beat came since the last call.
    pub fn answers(&mut self) -> bool {
        let Some(thread) = self.thread.as_ref().filter(|t| !t.is_finished()) else {
            return true;
        };
        let shared = &self.pulse.shared;
        let beats = shared.beats.load(Ordering::Relaxed);
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.looked, now);
        if beats != self.beats || shared.resting.load(Ordering::Acquire) {
            (self.beats, self.still) = (beats, Duration::ZERO);
            return true;
        }
        self.still += since.min(LOOK_COUNTS);
        if shared.in_guest.load(Ordering::Acquire) {
            shared.kick.store(true, Ordering::Relaxed);
            if let Err(e) = thread.kill(SIGRTMIN()) {
                tracing::warn!("the vCPU's thread cannot be kicked ({e})");
            }
        }
        self.still < HANG_LIMIT
    }

    /// Kicks the thread out of the guest if it has been there since the last call. Must be called every
    /// few milliseconds while the thread shall notice a change outside.
    pub fn nudge(&mut self) {
        let _hangs = !self.answers();
    }
}

/// Installs a handler for the signal of a kick, so that it does nothing but interrupt. Must be called
/// before a thread may be kicked.
pub fn install_kick() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static ONCE: Once = Once::new();
    static FAILED: Mutex<Option<i32>> = Mutex::new(None);
    ONCE.call_once(|| {
        if let Err(e) = register_signal_handler(SIGRTMIN(), nothing) {
            *FAILED.lock().expect("nobody panics with this lock") = Some(e.errno());
        }
    });
    match *FAILED.lock().expect("nobody panics with this lock") {
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn watch(work: impl FnOnce(Pulse) + Send + 'static) -> PulseWatch {
        install_kick().unwrap();
        let pulse = Pulse::default();
        let mut watch = PulseWatch::new(pulse.clone());
        watch.attach(std::thread::spawn(move || work(pulse)));
        watch
    }

    /// Asks until the thread counts as hanging, for ten limits at most.
    fn hangs(watch: &mut PulseWatch) -> bool {
        let began = Instant::now();
        while began.elapsed() < HANG_LIMIT * 3 {
            if !watch.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    #[test]
    fn a_thread_that_waits_for_what_never_comes_hangs() {
        let (sender, receiver) = channel::<()>();
        let mut watch = watch(move |pulse| {
            pulse.beat();
            let _closed = receiver.recv();
        });
        assert!(hangs(&mut watch));
        drop(sender);
    }

    #[test]
    fn a_thread_that_rests_does_not_hang() {
        let (sender, receiver) = channel::<()>();
        let mut watch = watch(move |pulse| {
            let _rest = pulse.rest();
            let _closed = receiver.recv();
        });
        assert!(!hangs(&mut watch));
        drop(sender);
    }

    #[test]
    fn a_watcher_that_did_not_look_has_seen_nothing() {
        let (sender, receiver) = channel::<()>();
        let (begun, begins) = channel();
        let mut watch = watch(move |pulse| {
            pulse.beat();
            begun.send(()).unwrap();
            let _closed = receiver.recv();
        });
        begins.recv().unwrap();
        assert!(watch.answers());
        // This sleep does not wait for an event: the watching thread itself must not run here.
        std::thread::sleep(HANG_LIMIT * 2);
        assert!(watch.answers());
        assert!(hangs(&mut watch));
        drop(sender);
    }

    #[test]
    fn a_guest_that_loops_is_kicked_and_answers() {
        let (sender, receiver) = channel::<()>();
        let mut watch = watch(move |pulse| {
            // What KVM_RUN does: sleeps in the kernel until a signal comes.
            let long = libc::timespec {
                tv_sec: 3600,
                tv_nsec: 0,
            };
            while receiver.try_recv().is_err() {
                pulse.in_guest(true);
                // SAFETY: the pointers are to a timespec that outlives the call, and null.
                unsafe { libc::nanosleep(&raw const long, std::ptr::null_mut()) };
                pulse.in_guest(false);
            }
        });
        assert!(!hangs(&mut watch));
        sender.send(()).unwrap();
    }
}
