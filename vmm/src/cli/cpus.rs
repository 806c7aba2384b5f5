//! The CPU backends of this program.

use ft_protocol::log::CpuKind;
use lockstep_kvm::Kvm;
use lockstep_vcpu::CpuBackend;

/// The backend for CPUs of this kind.
pub fn cpus(kind: CpuKind) -> &'static dyn CpuBackend {
    match kind {
        CpuKind::Kvm => &Kvm,
    }
}
