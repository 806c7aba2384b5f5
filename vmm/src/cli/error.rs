//! Exit statuses, and errors that carry one.

use ft_protocol::log::LogError;
use lockstep_loader::ImageError;
use lockstep_machine::{DriveError, MachineError};
use lockstep_replay::{CheckpointError, FollowError, LogDirError, RecordError};
use lockstep_vcpu::CpuError;
use std::fmt;
use std::process::ExitCode;

/// The meaning of the command's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Done = 0,
    /// The run failed, a check did not hold, or the guest ended with a status of its own.
    Failed = 1,
    /// The command or the host cannot do it.
    Refused = 2,
    /// Divergence, or a damaged log.
    Diverged = 3,
    /// Halted because the other side went live.
    OtherSideLive = 4,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// An error for the user: one sentence and a status.
#[derive(Debug)]
pub struct CliError {
    /// The exit status of the process.
    pub status: Status,
    /// What failed, why, and what to do.
    pub message: String,
}

impl CliError {
    /// The command or the host cannot do it.
    pub fn refused(message: impl fmt::Display) -> CliError {
        CliError::with(Status::Refused, message)
    }

    /// The run failed.
    pub fn failed(message: impl fmt::Display) -> CliError {
        CliError::with(Status::Failed, message)
    }

    /// Standard output does not take the result, which is what the command was for.
    pub fn unprinted(error: &std::io::Error) -> CliError {
        CliError::failed(format_args!("cannot write to standard output ({error})"))
    }

    /// With this status.
    pub fn with(status: Status, message: impl fmt::Display) -> CliError {
        CliError {
            status,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ImageError> for CliError {
    fn from(error: ImageError) -> CliError {
        CliError::refused(error)
    }
}

impl From<MachineError> for CliError {
    fn from(error: MachineError) -> CliError {
        match error {
            MachineError::Cpu(CpuError::Guest { .. }) => CliError::failed(error),
            _ => CliError::refused(error),
        }
    }
}

impl From<LogDirError> for CliError {
    fn from(error: LogDirError) -> CliError {
        let status = match &error {
            LogDirError::Log { error, .. } => log_status(error),
            LogDirError::Checkpoint {
                error: CheckpointError::Cut | CheckpointError::Damaged { .. },
                ..
            } => Status::Diverged,
            _ => Status::Refused,
        };
        CliError::with(status, error)
    }
}

/// A cut log is a log that ends early, without an error; damage has the status of a divergence.
pub(super) fn log_status(error: &LogError) -> Status {
    match error {
        LogError::CutInHeader => Status::Done,
        LogError::BadMagic | LogError::BadVersion { .. } => Status::Refused,
        LogError::Damaged { .. } => Status::Diverged,
        LogError::Io(_) => Status::Failed,
    }
}

impl From<FollowError> for CliError {
    fn from(error: FollowError) -> CliError {
        let status = match &error {
            FollowError::Diverged(_) => Status::Diverged,
            FollowError::Log(error) => log_status(error),
            FollowError::Outlet(_) => Status::Failed,
        };
        CliError::with(status, error)
    }
}

impl From<RecordError> for CliError {
    fn from(error: RecordError) -> CliError {
        CliError::failed(error)
    }
}

impl<E: Into<CliError>> From<DriveError<E>> for CliError {
    fn from(error: DriveError<E>) -> CliError {
        match error {
            DriveError::Machine(error) => error.into(),
            DriveError::Edge(error) => error.into(),
        }
    }
}
