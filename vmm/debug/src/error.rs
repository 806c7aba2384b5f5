//! Why a recording cannot be debugged.

use lockstep_machine::MachineError;
use lockstep_replay::FollowError;
use lockstep_vcpu::CpuError;
use std::io;
use thiserror::Error;

/// Why a recording cannot be debugged, or not any further.
#[derive(Debug, Error)]
pub enum DebugError {
    /// The machine cannot be made, or not be restored.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The CPU.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The log cannot be read at a place where it was read before.
    #[error("the log cannot be read again: {0}")]
    Log(#[from] FollowError),
    /// The CPU has no way in for a debugger.
    #[error("this kind of CPU cannot be debugged; use --cpu soft")]
    NoWayIn,
    /// There is no connection to gdb.
    #[error("cannot talk to gdb ({0}); start it again")]
    Connection(#[from] io::Error),
}
