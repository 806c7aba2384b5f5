//! A wire between the members' hosts that can be cut: a thread that carries frames from one TAP to the
//! other, and does to each direction what a scenario wants.

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

/// Longest frame, bytes: Ethernet's MTU, a header, and the byte that shows that it was cut.
const FRAME_BYTES: usize = 1514 + 1;

/// Nice value of the wire's thread.
const HIGHEST_PRIORITY: i32 = -20;

/// A wire. Its ends are up while it exists; dropping it ends its thread.
#[derive(Debug)]
pub(super) struct Wire {
    lanes: Arc<Mutex<[Lane; 2]>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Joins two TAPs. What is read from the first is its host's sending, direction 0.
    pub(super) fn between(ends: [Tap; 2]) -> io::Result<Self> {
        let lanes: Arc<Mutex<[Lane; 2]>> = Arc::default();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = Arc::new(eventfd(0, flags)?);
        let (theirs, told) = (Arc::clone(&lanes), Arc::clone(&stop));
        let carry = move || {
            // No real wire waits for a processor. Without the right to this it may, on a busy machine.
            if let Err(e) = setpriority_process(Some(gettid()), HIGHEST_PRIORITY) {
                tracing::debug!("the wire's thread has no priority ({e})");
            }
            // A wire that breaks by itself shows as a suspicion in the scenario.
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

    /// From the moment of return on, the frames that host `from` sends fare like this.
    pub(super) fn set(&self, from: usize, quality: Quality) {
        lock(&self.lanes)[from].set(quality);
    }

    /// What became of the frames of each host so far.
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
            // It reports its errors itself.
            let _ended = thread.join();
        }
    }
}

fn lock(lanes: &Mutex<[Lane; 2]>) -> MutexGuard<'_, [Lane; 2]> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries frames until it is told to stop.
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
                // Locked until the frame is out: a cut that has returned lets none through.
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
