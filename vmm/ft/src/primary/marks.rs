//! Progress marks while the guest computes for long: the backup must learn that nothing happened.
//!
//! The vCPU's thread hands its log on when an output waits for it, when the guest waits, and at the first
//! exit after a millisecond. While it stays in the guest it cannot. Then the runtime kicks it out. The
//! runtime looks every millisecond, and only while entries wait: a guest that waits, or that no backup
//! follows, wakes no thread.

use crate::now;
use ft_protocol::Time;
use lockstep_pulse::PulseWatch;
use lockstep_replay::journal::FLUSH_INTERVAL;
use lockstep_replay::record::Controls;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Looks in a row that find nothing before the looking ends.
const QUIET_LOOKS: u32 = 4;

/// One end of it; the vCPU's thread and the runtime have one each.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    shared: Arc<Shared>,
    quiet: u32,
    /// The next look; none while no entries wait.
    next: Option<Time>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The runtime looks, or need not.
    looks: AtomicBool,
    wanted: Notify,
}

impl Marks {
    /// On the vCPU's thread: the log has something that is not handed on, and the guest is entered.
    pub fn wake(&self) {
        // Both sides store before they load: either this thread sees that the runtime does not look, or the
        // runtime, which has just stopped to look, sees that entries wait.
        if !self.shared.looks.load(Ordering::SeqCst) {
            self.shared.wanted.notify_one();
        }
    }

    /// When to look. `follows`: a backup needs the marks.
    pub fn next(&mut self, follows: bool) -> Option<Time> {
        if !follows {
            // The vCPU's thread must not wake the runtime.
            self.shared.looks.store(true, Ordering::SeqCst);
            self.next = None;
        } else if self.next.is_none() && self.shared.looks.load(Ordering::SeqCst) {
            // It is followed again, or for the first time.
            self.begin();
        }
        self.next
    }

    /// Returns when there is something to look after again; then it is to [`Marks::begin`]. Cancel-safe.
    pub async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }

    /// Looks from now on.
    pub fn begin(&mut self) {
        self.shared.looks.store(true, Ordering::SeqCst);
        (self.quiet, self.next) = (0, Some(now().after(FLUSH_INTERVAL)));
    }

    /// The log was just handed on, so that nothing waits long in it: a look that is due soon is put off.
    pub fn handed_on(&mut self) {
        if let Some(next) = &mut self.next {
            let soon = now().after(FLUSH_INTERVAL / 2);
            if *next < soon {
                *next = now().after(FLUSH_INTERVAL);
            }
        }
    }

    /// Looks: has the vCPU's thread kicked if its log waits while it is in its guest.
    pub fn look(&mut self, controls: &Controls, watch: &mut PulseWatch) {
        if controls.log_waits() {
            watch.nudge();
            return self.begin();
        }
        self.quiet += 1;
        self.next = Some(now().after(FLUSH_INTERVAL));
        if self.quiet < QUIET_LOOKS {
            return;
        }
        self.next = None;
        self.shared.looks.store(false, Ordering::SeqCst);
        if controls.log_waits() {
            self.begin();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_pulse::Pulse;

    /// Whether the vCPU's thread woke the runtime.
    fn woken(marks: &Marks) -> bool {
        let mut wanted = std::pin::pin!(marks.wanted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        wanted.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn nobody_is_woken_that_has_nothing_to_do() {
        let (mut marks, controls) = (Marks::default(), Controls::default());
        let mut watch = PulseWatch::new(Pulse::default());
        let vcpu = marks.clone();
        assert_eq!(marks.next(true), None, "nothing has run yet");
        vcpu.wake();
        assert!(woken(&marks));
        marks.begin();
        for _ in 0..QUIET_LOOKS {
            assert!(marks.next(true).is_some());
            vcpu.wake();
            assert!(!woken(&marks), "the runtime looks anyway");
            marks.look(&controls, &mut watch);
        }
        assert_eq!(marks.next(true), None, "there was nothing to look after");
        vcpu.wake();
        assert!(woken(&marks), "and now there is");
        marks.begin();
        assert_eq!(marks.next(false), None, "but for nobody");
        vcpu.wake();
        assert!(!woken(&marks));
        assert!(marks.next(true).is_some(), "somebody follows again");
    }
}
