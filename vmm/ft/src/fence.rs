//! `--fence COMMAND`: shuts the other side out of everything that both could write to, between a won
//! test-and-set and going live.

use crate::errands::Errands;
use ft_protocol::arbiter::MemberId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

/// A fence that takes longer is killed, and has failed.
pub const FENCE_LIMIT: Duration = Duration::from_secs(30);

/// Why the other side is not known to be shut out.
#[derive(Debug, Error)]
pub enum FenceError {
    /// The command says so.
    #[error("the fence command failed ({0})")]
    Failed(ExitStatus),
    /// There is no command.
    #[error("the fence command cannot be started ({0})")]
    NotStarted(io::Error),
    /// The command hangs.
    #[error("the fence command did not end within {} s", FENCE_LIMIT.as_secs())]
    Late,
}

/// The operator's command, and the thread that runs it.
#[derive(Debug)]
pub struct Fence {
    /// The command, and its thread; `None` if there is nothing to shut out.
    command: Option<(Command, Errands)>,
}

/// What is run.
#[derive(Clone, Debug)]
struct Command {
    /// Run by `sh -c`.
    text: String,
    /// Passed to it as `LOCKSTEP_VM`.
    vm: String,
    /// Passed to it as `LOCKSTEP_MEMBER`.
    me: MemberId,
    running: Arc<Mutex<Running>>,
}

/// A command that is killed at the member's end.
#[derive(Debug, Default)]
struct Running {
    child: Option<Child>,
    /// The member has ended: nothing is started any more.
    ended: bool,
}

impl Fence {
    /// Runs this command when it is asked to, if there is one.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn new(command: Option<String>, vm: &str, me: MemberId) -> io::Result<Fence> {
        let with_thread = |text| {
            let (vm, running) = (vm.into(), Arc::default());
            let command = Command {
                text,
                vm,
                me,
                running,
            };
            Ok::<_, io::Error>((command, Errands::start("fence", 1)?))
        };
        Ok(Fence {
            command: command.map(with_thread).transpose()?,
        })
    }

    /// Runs it for a generation that was won, and sends the result. Without a command it succeeds, as
    /// there is nothing to shut out.
    pub fn run<T: Send + 'static>(
        &self,
        generation: u64,
        answers: &UnboundedSender<T>,
        answer: impl FnOnce(Result<(), FenceError>) -> T + Send + 'static,
    ) {
        let answers = answers.clone();
        // If nothing waits for the result, the process is ending.
        let tell = move |fenced| drop(answers.send(answer(fenced)));
        let Some((command, thread)) = &self.command else {
            return tell(Ok(()));
        };
        let command = command.clone();
        thread.run_next(move || tell(command.run(generation)));
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let Some((command, _)) = &self.command else {
            return;
        };
        let mut running = command.running();
        running.ended = true;
        if let Some(mut child) = running.child.take() {
            // It may have ended meanwhile.
            let _ended = child.kill();
        }
    }
}

impl Command {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().expect("nobody panics with this lock")
    }

    /// Waits for it. On the fence's thread.
    fn run(&self, generation: u64) -> Result<(), FenceError> {
        let mut running = self.running();
        if running.ended {
            return Err(FenceError::Late);
        }
        let child = process::Command::new("/bin/sh")
            .args(["-c", &self.text])
            .env("LOCKSTEP_VM", &self.vm)
            .env("LOCKSTEP_GENERATION", generation.to_string())
            .env("LOCKSTEP_MEMBER", self.me.to_string())
            .stdin(Stdio::null())
            // Standard output may be the guest's console, or JSON.
            .stdout(Stdio::null())
            .spawn()
            .map_err(FenceError::NotStarted)?;
        let ends = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        running.child = Some(child);
        drop(running);
        let in_time = ends.map(|ends| in_time(&ends));
        let Some(mut child) = self.running().child.take() else {
            // The member is ending, and has killed it.
            return Err(FenceError::Late);
        };
        if !matches!(in_time, Ok(true)) {
            let _ended = child.kill();
        }
        let status = child.wait().map_err(FenceError::NotStarted)?;
        match in_time {
            Ok(true) if status.success() => Ok(()),
            Ok(true) => Err(FenceError::Failed(status)),
            Ok(false) => Err(FenceError::Late),
            Err(e) => Err(FenceError::NotStarted(e.into())),
        }
    }
}

/// Waits until the process has ended, for at most [`FENCE_LIMIT`]. Returns whether it has.
fn in_time(process: &OwnedFd) -> bool {
    let late = Instant::now() + FENCE_LIMIT;
    loop {
        let left = late.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("a limit of seconds");
        let mut ends = [PollFd::new(process, PollFlags::IN)];
        // An error is a signal that came.
        if let Ok(count) = poll(&mut ends, Some(&left)) {
            return count > 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    fn fence(command: &str) -> Result<(), FenceError> {
        let fence = Fence::new(Some(command.into()), "shop", MemberId(7)).unwrap();
        let (sender, mut results) = unbounded_channel();
        fence.run(3, &sender, |result| result);
        results.blocking_recv().unwrap()
    }

    #[test]
    fn a_command_that_succeeds_fences_and_knows_what_for() {
        fence("true").unwrap();
        let knows =
            r#"test "$LOCKSTEP_VM $LOCKSTEP_GENERATION" = "shop 3" && test -n "$LOCKSTEP_MEMBER""#;
        fence(knows).unwrap();
    }

    #[test]
    fn a_command_that_fails_or_is_not_there_does_not() {
        let why = fence("exit 3").unwrap_err().to_string();
        assert!(why.contains("exit status: 3"), "{why}");
        assert!(fence("/nonexistent/fence").is_err());
    }

    #[test]
    fn a_command_is_killed_at_the_members_end() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let command = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
            pid.display()
        );
        let fence = Fence::new(Some(command), "shop", MemberId(7)).unwrap();
        let (sender, mut results) = unbounded_channel();
        fence.run(3, &sender, |result| result);
        let pid = loop {
            match std::fs::read_to_string(&pid) {
                Ok(text) => break Pid::from_raw(text.trim().parse().unwrap()).unwrap(),
                Err(_) => std::thread::yield_now(),
            }
        };
        let ends = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        drop(fence);
        assert!(in_time(&ends));
        assert!(results.blocking_recv().unwrap().is_err());
    }
}
