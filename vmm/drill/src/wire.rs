//! A wire between the members' hosts that can be cut: a thread that carries frames from each of two
//! TAPs to the other, and treats each direction as the scenario wants.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::lane::{Counts, Lane, Quality};
use lockstep_backends::Tap;

/// Longest frame, bytes: Ethernet's MTU, a header, and one byte that would show that it was cut.
const FRAME_BYTES: usize = 1514 + 1;

/// Nice value of the wire's thread.
const HIGHEST_PRIORITY: i32 = -20;

/// A wire. Its ends are up as long as it exists; dropping it ends its thread.
#[derive(Debug)]
pub(super) struct Wire {
    lanes: Arc<Mutex<[Lane; 2]>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Joins two TAPs. Direction 0 has the frames that the first TAP's host sends.
    pub(super) fn between(ends: [Tap; 2]) -> io::Result<Self> {
        let lanes: Arc<Mutex<[Lane; 2]>> = Arc::default();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = Arc::new(eventfd(0, flags)?);
        let (theirs, told) = (Arc::clone(&lanes), Arc::clone(&stop));
        let carry = move || {
            // A real wire never waits for a processor. Without the right to this priority, this one may
            // on a busy host.
            if let Err(e) = setpriority_process(Some(gettid()), HIGHEST_PRIORITY) {
                tracing::debug!("the wire's thread has no priority ({e})");
            }
            // If the wire breaks by itself, the scenario sees it as a suspicion.
            if let Err(e) = carry(&ends, &theirs, &told) {
                tracing::error!("the wire between the members' hosts failed ({e})");
            }
        };
        let thread = thread::Builder::new().name("wire".into()).spawn(carry)?;
        Ok(Self {
            lanes,
            stop,
            thread: Some(thread),
        })
    }

    /// After this returns, the frames that host `from` sends are treated like this.
    pub(super) fn set(&self, from: usize, quality: Quality) {
        lock(&self.lanes)[from].set(quality);
    }

    /// Counts of each host's frames so far.
    pub(super) fn counts(&self) -> [Counts; 2] {
        let lanes = lock(&self.lanes);
        [lanes[0].counts(), lanes[1].counts()]
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let told = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if told.is_ok()
            && let Some(thread) = self.thread.take()
        {
            // The thread reports its errors itself.
            let _ended = thread.join();
        }
    }
}

fn lock(lanes: &Mutex<[Lane; 2]>) -> MutexGuard<'_, [Lane; 2]> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries frames until it is asked to stop.
fn carry(ends: &[Tap; 2], lanes: &Mutex<[Lane; 2]>, stop: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; FRAME_BYTES];
    loop {
        let next = lock(lanes).iter().filter_map(Lane::next).min();
        let limit = next.map(|at| at.saturating_duration_since(Instant::now()));
        let limit = limit.map(|left| left.try_into().expect("a delay is a timespec"));
        let mut set = [
            PollFd::from_borrowed_fd(ends[0].poll_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ends[1].poll_fd(), PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut set, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        if !set[2].revents().is_empty() {
            return Ok(());
        }
        for from in 0..2 {
            while let Some(len) = ends[from].recv(&mut buffer)? {
                // Locked until the frame is out: after a cut has returned, no frame passes.
                let mut lanes = lock(lanes);
                let now = Instant::now();
                lanes[from].enter(now, &buffer[..len]);
                deliver(&mut lanes[from], now, &ends[1 - from])?;
            }
            deliver(&mut lock(lanes)[from], Instant::now(), &ends[1 - from])?;
        }
    }
}

fn deliver(lane: &mut Lane, now: Instant, to: &Tap) -> io::Result<()> {
    while let Some(frame) = lane.leave(now) {
        to.send(&frame)?;
    }
    Ok(())
}
