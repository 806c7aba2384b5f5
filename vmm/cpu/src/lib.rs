//! KVM: everything that asks the kernel for a virtual CPU, and nothing else.

pub mod dirty;
pub mod host;
pub mod pulse;
pub mod state;
pub mod vcpu;

pub use dirty::{DirtyPages, DirtyReader};
pub use pulse::{Pulse, PulseWatch};
pub use state::CpuState;
pub use vcpu::{Exit, Run, Vcpu};

use thiserror::Error;

/// What can go wrong with KVM.
#[derive(Debug, Error)]
pub enum CpuError {
    /// There is no usable KVM.
    #[error(
        "cannot open /dev/kvm ({0}); Lockstep needs KVM: load its module and give this user access to the device"
    )]
    NoKvm(std::io::Error),
    /// KVM is there and lacks something.
    #[error("this host's KVM lacks {0}; use a newer kernel")]
    Lacks(&'static str),
    /// An ioctl failed.
    #[error("KVM refused {call} ({errno})")]
    Ioctl {
        /// Which one.
        call: &'static str,
        /// Its error.
        errno: std::io::Error,
    },
    /// A state has an MSR that this host does not take.
    #[error(
        "this host's KVM does not take MSR {index:#x} of the machine's state; use a host of the same kind"
    )]
    MsrRefused {
        /// Its number.
        index: u32,
    },
    /// This host keeps an MSR that a state lacks.
    #[error(
        "the machine's state lacks MSR {index:#x}, which this host's KVM keeps; use a host of the same kind"
    )]
    MsrMissing {
        /// Its number.
        index: u32,
    },
    /// KVM cannot run what the guest does.
    #[error("KVM cannot continue the guest at {rip:#x}: {what}")]
    Guest {
        /// Where.
        rip: u64,
        /// KVM's exit.
        what: String,
    },
}

impl CpuError {
    fn ioctl(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> CpuError {
        move |e| CpuError::Ioctl {
            call,
            errno: std::io::Error::from_raw_os_error(e.errno()),
        }
    }
}
