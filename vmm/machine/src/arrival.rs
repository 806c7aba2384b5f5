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
    /// What it is, and what the guest has seen.
    pub(crate) fn words(self) -> [u64; 2] {
        match self {
            Waiting::No => [0, 0],
            Waiting::Halted => [1, 0],
            Waiting::Idle { seen } => [2, u64::from(seen)],
        }
    }
}

/// What is told of the vCPU at a position. Finishing its instruction changes RIP on some hosts and may
/// end an interrupt's shadow; what is told stays, so that all who follow are told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Arrival {
    pub(crate) check: Check,
    /// Would it take an interrupt?
    pub(crate) ready: bool,
    /// Its digest, if its instruction was finished since.
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
