//! The errors of KVM, as sentences for the user.

use lockstep_vcpu::CpuError;
use std::io;

/// `/dev/kvm` cannot be opened.
pub fn no_kvm(e: kvm_ioctls::Error) -> CpuError {
    let e = io::Error::from_raw_os_error(e.errno());
    CpuError::Unavailable(format!(
        "cannot open /dev/kvm ({e}); load its module and give this user access to the device, or use --cpu soft"
    ))
}

/// This host's KVM lacks a capability.
pub fn lacks(what: &str) -> CpuError {
    CpuError::Unavailable(format!("this host's KVM lacks {what}; use a newer kernel"))
}

/// An ioctl failed.
pub fn ioctl(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> CpuError {
    move |e| failed(call, &io::Error::from_raw_os_error(e.errno()))
}

/// A call failed with this error.
pub fn failed(call: &str, e: &io::Error) -> CpuError {
    CpuError::Host(format!("KVM refused {call} ({e})"))
}

/// KVM does not accept the state's value of this MSR.
pub fn msr_refused(index: u32) -> CpuError {
    CpuError::State(format!(
        "this host's KVM does not take MSR {index:#x} of the machine's state; use a host of the same kind"
    ))
}
