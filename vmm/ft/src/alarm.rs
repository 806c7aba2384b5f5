//! A timer for a member's loop, which sets it again at each turn. It is a timer of the host: to set one of
//! tokio's to an earlier time wakes the thread that does so once more.

use super::now;
use super::readable::readable;
use ft_protocol::Time;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// See the module.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// The time for which it is set.
    set: Option<Time>,
}

impl Alarm {
    /// A timer that is not set, inside the runtime.
    pub fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm {
            timer: readable(timer)?,
            set: None,
        })
    }

    /// Returns once it is `at`; never if there is no such time. Cancel-safe.
    pub async fn until(&mut self, at: Option<Time>) -> io::Result<()> {
        let Some(at) = at else {
            return pending().await;
        };
        while now() < at {
            if self.set != Some(at) {
                self.set(at)?;
            }
            // Nothing is read: a timer that is set again becomes readable again.
            self.timer.readable().await?.clear_ready();
        }
        Ok(())
    }

    fn set(&mut self, at: Time) -> io::Result<()> {
        const SECOND: u64 = 1_000_000_000;
        let (zero, at_ns) = (Timespec::default(), at.0);
        let timer = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: (at_ns / SECOND) as i64,
                tv_nsec: (at_ns % SECOND) as i64,
            },
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &timer)?;
        self.set = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_goes_off_each_time_that_it_is_set_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        for ms in [1, 5, 0, 2] {
            let at = now().after(Duration::from_millis(ms));
            // Set for later, and given up.
            tokio::select! {
                biased;
                set = alarm.until(Some(at.after(Duration::from_secs(60)))) => set.unwrap(),
                () = std::future::ready(()) => {}
            }
            alarm.until(Some(at)).await.unwrap();
            assert!(now() >= at);
        }
        let never = tokio::time::timeout(Duration::from_millis(5), alarm.until(None));
        assert!(never.await.is_err());
    }
}
