//! Exit statuses, and errors that carry one.

use ft_protocol::HaltReason;
use ft_protocol::arbiter::ArbiterError;
use ft_protocol::log::LogError;
use lockstep_backends::TapError;
use lockstep_debug::DebugError;
use lockstep_drill::DrillError;
use lockstep_ft::arbiter::{AccessError, NotRestored, Unreachable};
use lockstep_ft::control::{AskError, StatusOfError};
use lockstep_ft::{Halt, StillOpen};
use lockstep_loader::ImageError;
use lockstep_machine::{DriveError, MachineError};
use lockstep_replay::{CheckpointError, FollowError, ForkError, LogDirError, RecordError};
use lockstep_vcpu::CpuError;
use std::process::ExitCode;
use std::{fmt, io};

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

    /// The result, which is the command's purpose, cannot be written to standard output.
    pub fn unprinted(error: &io::Error) -> CliError {
        CliError::failed(format_args!("cannot write to standard output ({error})"))
    }

    /// What its host did to a member.
    pub fn of_member(error: &io::Error) -> CliError {
        match error.kind() {
            // The address was free when it was reserved, and others may reserve it, too.
            io::ErrorKind::AddrInUse => CliError::refused(format_args!(
                "cannot listen where it was told ({error}); choose another --channel for a primary, another \
                 --listen for a member"
            )),
            _ => CliError::failed(format_args!(
                "the member failed on this host ({error}); its peer goes on"
            )),
        }
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

impl From<ForkError> for CliError {
    fn from(error: ForkError) -> CliError {
        match error {
            ForkError::Follow(error) => error.into(),
            ForkError::Machine(error) => error.into(),
            error @ ForkError::Ends { .. } => CliError::refused(error),
        }
    }
}

impl From<DebugError> for CliError {
    fn from(error: DebugError) -> CliError {
        match error {
            DebugError::Machine(error) => error.into(),
            DebugError::Log(error) => error.into(),
            error @ DebugError::NoWayIn => CliError::refused(error),
            error @ (DebugError::Cpu(_) | DebugError::Connection(_)) => CliError::failed(error),
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

impl From<Halt> for CliError {
    fn from(halt: Halt) -> CliError {
        let status = match &halt {
            Halt::Protocol(reason) => match reason {
                HaltReason::NoRight(_) | HaltReason::NotArmed(_) => Status::Failed,
                HaltReason::Refused(_) | HaltReason::NotFree(_) => Status::Refused,
                HaltReason::Diverged { .. } => Status::Diverged,
                HaltReason::LostArbitration { .. } => Status::OtherSideLive,
            },
            Halt::Machine(_) | Halt::CutOff | Halt::CutOffOpen | Halt::NotClosed { .. } => {
                Status::Failed
            }
        };
        CliError::with(status, halt)
    }
}

impl From<StillOpen> for CliError {
    fn from(error: StillOpen) -> CliError {
        CliError::failed(error)
    }
}

impl From<AskError> for CliError {
    fn from(error: AskError) -> CliError {
        let status = match &error {
            AskError::Nobody(..) | AskError::Refused(..) => Status::Refused,
            AskError::Failed(..) => Status::Failed,
        };
        CliError::with(status, error)
    }
}

impl From<StatusOfError> for CliError {
    fn from(error: StatusOfError) -> CliError {
        match error {
            StatusOfError::Directory(e) => CliError::refused(format_args!(
                "cannot look for members on this host ({e}); run this as the user who started them"
            )),
            StatusOfError::Answer(_) => CliError::refused(format_args!(
                "{error}; look with the version of lockstep that runs there"
            )),
        }
    }
}

impl From<DrillError> for CliError {
    fn from(error: DrillError) -> CliError {
        let status = match &error {
            DrillError::Output(_) => Status::Failed,
            DrillError::UnknownScenario { .. }
            | DrillError::NoKvm
            | DrillError::KvmDenied(_)
            | DrillError::Network(_)
            | DrillError::Host(_)
            | DrillError::ReportDir { .. }
            | DrillError::Signals(_)
            | DrillError::Guest(_)
            | DrillError::OwnGuest(_)
            | DrillError::Busy(_) => Status::Refused,
        };
        CliError::with(status, error)
    }
}

impl From<ArbiterError> for CliError {
    fn from(error: ArbiterError) -> CliError {
        CliError::refused(error)
    }
}

impl From<Unreachable> for CliError {
    fn from(error: Unreachable) -> CliError {
        CliError::refused(error)
    }
}

impl From<AccessError> for CliError {
    fn from(error: AccessError) -> CliError {
        CliError::refused(error)
    }
}

impl From<NotRestored> for CliError {
    fn from(error: NotRestored) -> CliError {
        CliError::refused(error)
    }
}

impl From<TapError> for CliError {
    fn from(error: TapError) -> CliError {
        CliError::refused(error)
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

#[cfg(test)]
mod tests {
    use super::*;
    use ft_protocol::Loss;
    use ft_protocol::arbiter::MemberId;
    use ft_protocol::log::Position;

    /// As `docs/operations.md` lists them.
    #[test]
    fn a_member_that_halts_ends_with_the_status_of_its_reason() {
        let (at, what) = (Position::START, "RIP differs".to_owned());
        let (generation, by) = (1, MemberId(2));
        for (halt, wanted) in [
            (HaltReason::LostArbitration { generation, by }.into(), 4),
            (HaltReason::Diverged { at, what }.into(), 3),
            (HaltReason::Refused("another host".into()).into(), 2),
            (HaltReason::NoRight("not a member".into()).into(), 1),
            (HaltReason::NotArmed(Loss::Left).into(), 1),
            (Halt::CutOff, 1),
            (Halt::CutOffOpen, 1),
        ] {
            let sentence = halt.to_string();
            let error = CliError::from(halt);
            assert_eq!(error.status as u8, wanted, "{sentence}");
            assert_eq!(error.message, sentence);
        }
    }
}
