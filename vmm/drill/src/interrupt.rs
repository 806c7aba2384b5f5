//! SIGINT, SIGTERM and SIGHUP to a drill: it ends its members and keeps their recordings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lockstep_out as out;
use lockstep_signals::Hangup;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

/// How long an interrupted drill waits for each killed member to be gone.
const END_LIMIT: Duration = Duration::from_secs(2);

/// The members to kill if the drill is interrupted.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupts {
    members: Arc<Mutex<Vec<OwnedFd>>>,
}

impl Interrupts {
    /// Starts the thread that waits for the signals and then ends the process with status 128 plus the
    /// signal's number, as a shell reports it. `kept` is the directory that its last message names.
    ///
    /// A signal between the starts of two members is safe too: members die with the drill's process.
    pub(super) fn watch(kept: PathBuf) -> io::Result<Self> {
        let interrupts = Self::default();
        let members = Arc::clone(&interrupts.members);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        // The handlers must be in place before the first member starts, not only when the thread runs.
        let (mut int, mut term, mut hup) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                Hangup::listen()?,
            )
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let number = runtime.block_on(async {
                    tokio::select! {
                        _ = int.recv() => SignalKind::interrupt().as_raw_value(),
                        _ = term.recv() => SignalKind::terminate().as_raw_value(),
                        () = hup.recv() => SignalKind::hangup().as_raw_value(),
                    }
                });
                let members = members.lock().unwrap_or_else(PoisonError::into_inner);
                members.iter().for_each(end);
                out::tell(format_args!(
                    "the drill was interrupted; what it recorded is kept in {}",
                    kept.display()
                ));
                out::exit(128 + number);
            })?;
        Ok(interrupts)
    }

    /// Adds a member.
    pub(super) fn add(&self, pidfd: OwnedFd) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.push(pidfd);
    }

    /// Forgets all members, as they have ended.
    pub(super) fn clear(&self) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.clear();
    }
}

/// Kills one member and waits until it is gone.
fn end(pidfd: &OwnedFd) {
    if pidfd_send_signal(pidfd.as_fd(), Signal::KILL).is_ok() {
        let limit = END_LIMIT.try_into().expect("two seconds are a timespec");
        let mut set = [PollFd::new(pidfd, PollFlags::IN)];
        // If the wait is interrupted or too long, nothing changes: SIGKILL cannot be refused.
        let _ = poll(&mut set, Some(&limit));
    }
}
