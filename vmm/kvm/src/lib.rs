//! The CPU backend on KVM. No other crate asks the kernel for a virtual CPU.

mod error;
mod host;
mod state;
mod vcpu;

use ft_protocol::log::CpuKind;
use kvm_ioctls::VmFd;
use lockstep_memory::Ram;
use lockstep_vcpu::{CpuBackend, CpuError, CpuState, DirtySource, Vcpu};
use std::sync::Arc;

/// The backend.
#[derive(Clone, Copy, Debug)]
pub struct Kvm;

impl CpuBackend for Kvm {
    fn kind(&self) -> CpuKind {
        CpuKind::Kvm
    }

    fn available(&self) -> Result<(), CpuError> {
        let opened = kvm_ioctls::Kvm::new();
        opened.map(drop).map_err(error::no_kvm)
    }

    fn cpu(&self, ram: Ram, state: &CpuState) -> Result<Box<dyn Vcpu>, CpuError> {
        Ok(Box::new(vcpu::KvmVcpu::new(ram, state)?))
    }

    fn host_cpu(&self) -> String {
        host::cpu_name()
    }
}

/// KVM's dirty log of the one memory slot.
#[derive(Debug)]
struct DirtyLog {
    // Declared, and so dropped, before the RAM that KVM has mapped.
    vm: Arc<VmFd>,
    ram: Ram,
}

impl DirtySource for DirtyLog {
    /// KVM write-protects the pages that it reports before it returns.
    fn take(&self) -> Result<Vec<u64>, CpuError> {
        let log = self.vm.get_dirty_log(vcpu::SLOT, self.ram.len());
        log.map_err(error::ioctl("KVM_GET_DIRTY_LOG"))
    }
}

#[cfg(test)]
mod dirty_tests;
#[cfg(test)]
mod tests;
