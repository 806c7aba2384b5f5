//! Which CPU runs which machine.

use crate::{CpuBackend, CpuError};
use ft_protocol::log::Counts;

/// The CPU backends that a program uses, by what positions count.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// For guests that count their own branch edges, and for those that count nothing.
    pub branch_edges: &'static dyn CpuBackend,
    /// For all others, if they are to run.
    pub instructions: Option<&'static dyn CpuBackend>,
}

impl Cpus {
    /// The backend for machines that count this.
    pub fn of(&self, counts: Counts) -> Result<&'static dyn CpuBackend, CpuError> {
        match counts {
            Counts::BranchEdges => Ok(self.branch_edges),
            Counts::Instructions => self.instructions.ok_or_else(|| {
                CpuError::Unavailable(
                    "the machine counts instructions, which KVM does not: use --cpu soft or auto"
                        .into(),
                )
            }),
        }
    }
}
