//! The priority of a thread that must be on time on a busy host.

use std::io;

/// The lowest real-time priority, which comes before all ordinary threads.
const REAL_TIME: libc::c_int = 1;
/// The niceness to use if that is not allowed. If this is not allowed either, nothing changes.
const NICE: i32 = -10;

/// Gives the calling thread a higher priority than the host's ordinary threads, as far as this user
/// may. The thread must sleep nearly all the time.
pub fn raise() {
    let raised = real_time().or_else(|_| {
        // On Linux this is the niceness of this thread alone.
        rustix::process::setpriority_process(None, NICE).map_err(io::Error::from)
    });
    if let Err(e) = raised {
        tracing::debug!("a thread that should be on time has an ordinary priority ({e})");
    }
}

fn real_time() -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: REAL_TIME,
    };
    // SAFETY: the calling thread exists, and the parameters are read before the call returns.
    match unsafe {
        libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &parameters)
    } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_have_it_goes_on_without() {
        let thread = std::thread::spawn(|| {
            raise();
            // SAFETY: it changes nothing.
            let policy = unsafe { libc::sched_getscheduler(0) };
            (policy, real_time().is_ok())
        });
        let (policy, may) = thread.join().expect("it does not panic");
        let wanted = if may {
            libc::SCHED_FIFO
        } else {
            libc::SCHED_OTHER
        };
        assert_eq!(policy, wanted);
    }
}
