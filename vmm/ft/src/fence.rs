//! `--fence COMMAND`: shuts the other side out of everything that both could write to, between a won
//! test-and-set and going live.

use ft_protocol::arbiter::MemberId;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use thiserror::Error;
use tokio::process::Command;
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

/// The operator's command.
#[derive(Clone, Debug)]
pub struct Fence {
    /// Run by `sh -c`.
    pub command: Option<String>,
    /// Passed to it as `LOCKSTEP_VM`.
    pub vm: String,
    /// Passed to it as `LOCKSTEP_MEMBER`.
    pub me: MemberId,
}

impl Fence {
    /// Runs it for a generation that was won, and sends the result. Without a command it succeeds, as
    /// there is nothing to shut out.
    pub fn run<T: Send + 'static>(
        &self,
        generation: u64,
        answers: &UnboundedSender<T>,
        answer: impl FnOnce(Result<(), FenceError>) -> T + Send + 'static,
    ) {
        let (fence, answers) = (self.clone(), answers.clone());
        tokio::spawn(async move {
            let fenced = fence.fenced(generation).await;
            // If nothing waits for the result, the process is ending.
            let _gone = answers.send(answer(fenced));
        });
    }

    async fn fenced(&self, generation: u64) -> Result<(), FenceError> {
        let Some(command) = &self.command else {
            return Ok(());
        };
        let run = Command::new("/bin/sh")
            .args(["-c", command])
            .env("LOCKSTEP_VM", &self.vm)
            .env("LOCKSTEP_GENERATION", generation.to_string())
            .env("LOCKSTEP_MEMBER", self.me.to_string())
            .stdin(Stdio::null())
            // Standard output may be the guest's console, or JSON.
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .status();
        match tokio::time::timeout(FENCE_LIMIT, run).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(FenceError::Failed(status)),
            Ok(Err(e)) => Err(FenceError::NotStarted(e)),
            Err(_) => Err(FenceError::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(command: &str) -> Result<(), FenceError> {
        let fence = Fence {
            command: Some(command.into()),
            vm: "shop".into(),
            me: MemberId(7),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(fence.fenced(3))
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
}
