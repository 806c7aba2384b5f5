//! How the vCPU came to a position, and whether the guest waits there.

use bincode::{Decode, Encode};
use ft_protocol::log::Check;
use lockstep_vcpu::Vcpu;

/// What the guest waits for, if it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Waiting {
    No,
    /// HLT with interrupts on.
    Halted,
    /// OUT to the idle port.
    Idle {
        seen: u32,
    },
}

impl Waiting {
    /// The kind of wait, and what the guest has seen, as words for the digest.
    pub(crate) fn words(self) -> [u64; 2] {
        match self {
            Waiting::No => [0, 0],
            Waiting::Halted => [1, 0],
            Waiting::Idle { seen } => [2, u64::from(seen)],
        }
    }
}

/// What is reported of the vCPU at a position. Completing its instruction later changes RIP on some
/// hosts and may end an interrupt shadow. The report does not change, so that everyone who compares
/// sees the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Arrival {
    pub(crate) check: Check,
    /// Would the vCPU take an interrupt now?
    pub(crate) ready: bool,
    /// The vCPU's digest on arrival, if its instruction was completed since.
    pub(crate) digest: Option<u64>,
}

impl Arrival {
    pub(crate) fn of(cpu: &mut dyn Vcpu) -> Arrival {
        Arrival {
            check: cpu.check(),
            ready: cpu.ready(),
            digest: None,
        }
    }
}
