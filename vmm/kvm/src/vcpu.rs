//! One virtual CPU on KVM: entering the guest, leaving it, and handing it an interrupt.

use crate::error::{failed, ioctl, lacks, no_kvm};
use crate::{DirtyLog, state};
use ft_protocol::log::Check;
use kvm_bindings::{
    KVM_CAP_EXCEPTION_PAYLOAD, KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_enable_cap,
    kvm_interrupt, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuExit, VcpuFd};
use lockstep_memory::Ram;
use lockstep_vcpu::state::MSRS;
use lockstep_vcpu::{CpuError, CpuState, DirtyPages, Exit, Run, Until, Vcpu};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

mod request {
    use kvm_bindings::{KVMIO, kvm_interrupt};
    vmm_sys_util::ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
}

/// The memory slot that holds all of RAM.
pub const SLOT: u32 = 0;
/// The three pages that VT-x needs for its own TSS; out of the way of RAM and devices.
const KVM_TSS_ADDRESS: usize = 0xfffb_d000;

/// When KVM moves RIP past an OUT. KVM's instruction emulator moves it before the exit. For an OUT that
/// SVM or VT-x intercepts, KVM moves it when the guest is entered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutPassed {
    /// Not measured yet.
    Unknown,
    AtExit,
    AtEntry,
}

/// An OUT to this port moves RIP before the exit on every KVM, for the sake of old firmware
/// (KVM_X86_QUIRK_OUT_7E_INC_RIP).
const EARLY_PORT: u16 = 0x7e;

/// A VM with one virtual CPU.
#[derive(Debug)]
pub struct KvmVcpu {
    // Declared, and so dropped, before the RAM: the VM must be gone before its memory is.
    fd: VcpuFd,
    dirty: DirtyPages,
    /// The MSRs of [`MSRS`] that this host's KVM keeps.
    kept_msrs: Vec<u32>,
    out_passed: OutPassed,
    /// Keeps the memory mapped, as KVM uses its address.
    _ram: Ram,
}

impl KvmVcpu {
    /// Makes a VM whose memory is `ram`, with one CPU in this state.
    pub fn new(ram: Ram, state: &CpuState) -> Result<KvmVcpu, CpuError> {
        let mut vcpu = KvmVcpu::create(ram)?;
        state::restore(state, &vcpu.fd, &vcpu.kept_msrs)?;
        vcpu.fd.sync_regs_mut().regs = state::to_kvm_regs(&state.registers);
        // With the interrupt controller in user space, KVM_RUN takes CR8 from here.
        let sregs = vcpu.fd.get_sregs();
        vcpu.fd.get_kvm_run().cr8 = sregs.map_err(ioctl("KVM_GET_SREGS"))?.cr8;
        // Nothing is pending, so the guest does not run; but KVM fills in the registers and flags that
        // it hands over with every exit.
        match vcpu.settle()? {
            Run::Kicked => Ok(vcpu),
            Run::Exit(exit) => Err(vcpu.guest_error(format!("{exit:?} before anything ran"))),
        }
    }

    fn create(ram: Ram) -> Result<KvmVcpu, CpuError> {
        let kvm = Kvm::new().map_err(no_kvm)?;
        if !kvm.check_extension(Cap::SyncRegs) {
            return Err(lacks("KVM_CAP_SYNC_REGS"));
        }
        if kvm.check_extension_raw(KVM_CAP_EXCEPTION_PAYLOAD.into()) <= 0 {
            return Err(lacks("KVM_CAP_EXCEPTION_PAYLOAD"));
        }
        let vm = kvm.create_vm().map_err(ioctl("KVM_CREATE_VM"))?;
        // Without this capability KVM does not distinguish a pending exception from one that is being
        // delivered, and a pending exception cannot be restored as it was.
        vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_EXCEPTION_PAYLOAD,
            args: [1, 0, 0, 0],
            ..Default::default()
        })
        .map_err(ioctl("KVM_ENABLE_CAP"))?;
        vm.set_tss_address(KVM_TSS_ADDRESS)
            .map_err(ioctl("KVM_SET_TSS_ADDR"))?;
        let region = kvm_userspace_memory_region {
            slot: SLOT,
            flags: KVM_MEM_LOG_DIRTY_PAGES,
            guest_phys_addr: 0,
            memory_size: ram.len() as u64,
            userspace_addr: ram.host_address(),
        };
        // SAFETY: the region is the whole of `ram`, which lives at least as long as the VM: both are
        // fields of the value returned and of its `DirtyLog`, and the VM is dropped first.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        let mut fd = vm.create_vcpu(0).map_err(ioctl("KVM_CREATE_VCPU"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(ioctl("KVM_GET_SUPPORTED_CPUID"))?;
        fd.set_cpuid2(&cpuid).map_err(ioctl("KVM_SET_CPUID2"))?;
        fd.set_sync_valid_reg(SyncReg::Register);
        fd.set_sync_valid_reg(SyncReg::VcpuEvents);
        let vm = Arc::new(vm);
        let log = DirtyLog {
            vm,
            ram: ram.clone(),
        };
        Ok(KvmVcpu {
            fd,
            dirty: DirtyPages::new(Arc::new(log), ram.clone()),
            kept_msrs: kept_msrs(&kvm)?,
            out_passed: OutPassed::Unknown,
            _ram: ram,
        })
    }

    /// Moves RIP past the OUT that exited, so that the vCPU's state there is the same on every kind of
    /// KVM. The vCPU's first OUT shows whether this KVM needs that; an OUT to [`EARLY_PORT`] does not
    /// show it.
    fn pass_out(&mut self, port: u16) -> Result<(), CpuError> {
        if self.out_passed == OutPassed::AtExit {
            return Ok(());
        }
        let rip = self.fd.sync_regs().regs.rip;
        match self.settle()? {
            Run::Kicked => {}
            Run::Exit(exit) => return Err(self.guest_error(format!("{exit:?} within an OUT"))),
        }
        if self.out_passed == OutPassed::Unknown && port != EARLY_PORT {
            self.out_passed = match self.fd.sync_regs().regs.rip == rip {
                true => OutPassed::AtExit,
                false => OutPassed::AtEntry,
            };
        }
        Ok(())
    }

    /// Does this port I/O exit stand for more than one access (string I/O)?
    fn repeats(&mut self) -> bool {
        // SAFETY: the caller has seen a port I/O exit, for which the kernel fills this field.
        unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io.count != 1 }
    }

    fn guest_error(&mut self, what: String) -> CpuError {
        CpuError::Guest {
            rip: self.fd.sync_regs().regs.rip,
            what,
        }
    }

    /// Was an interrupt handed over earlier that was not taken yet?
    fn interrupt_queued(&mut self) -> bool {
        self.fd.sync_regs().events.interrupt.injected != 0
    }
}

impl KvmVcpu {
    /// Enters the guest until it exits or the thread gets a signal.
    fn enter(&mut self) -> Result<Run, CpuError> {
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, bytes)) if bytes.len() <= 4 => {
                let mut data = [0; 4];
                data[..bytes.len()].copy_from_slice(bytes);
                Exit::PioOut {
                    port,
                    data,
                    len: bytes.len(),
                }
            }
            Ok(VcpuExit::IoIn(port, bytes)) if bytes.len() <= 4 => Exit::PioIn {
                port,
                len: bytes.len(),
            },
            Ok(VcpuExit::MmioWrite(addr, bytes)) => {
                let mut data = [0; 8];
                data[..bytes.len()].copy_from_slice(bytes);
                Exit::MmioWrite {
                    addr,
                    data,
                    len: bytes.len(),
                }
            }
            Ok(VcpuExit::MmioRead(addr, bytes)) => Exit::MmioRead {
                addr,
                len: bytes.len(),
            },
            Ok(VcpuExit::Hlt) => Exit::Hlt,
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::Intr) => return Ok(Run::Kicked),
            Err(e) if e.errno() == libc::EINTR => return Ok(Run::Kicked),
            Ok(other) => {
                let what = format!("{other:?}");
                return Err(self.guest_error(what));
            }
            Err(e) => return Err(ioctl("KVM_RUN")(e)),
        };
        if matches!(exit, Exit::PioOut { .. } | Exit::PioIn { .. }) && self.repeats() {
            // The loader refuses string I/O, but it does not see code that the guest makes at run time.
            return Err(self.guest_error("string I/O".into()));
        }
        if let Exit::PioOut { port, .. } = exit {
            self.pass_out(port)?;
        }
        Ok(Run::Exit(exit))
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, until: Until) -> Result<Run, CpuError> {
        assert_eq!(until, Until::GUEST, "KVM does not count instructions");
        self.enter()
    }

    fn steps(&self) -> u64 {
        0
    }

    fn pass(&mut self, _: u64) {}

    fn heed(&mut self, _: Arc<AtomicBool>) {}

    fn answer(&mut self, data: &[u8]) {
        let run = self.fd.get_kvm_run();
        match run.exit_reason {
            kvm_bindings::KVM_EXIT_IO => {
                // SAFETY: the exit reason, set by the kernel, says which union field is valid.
                let io = unsafe { run.__bindgen_anon_1.io };
                assert!(data.len() == usize::from(io.size) && io.count == 1);
                let page = std::ptr::from_mut(run).cast::<u8>();
                // SAFETY: the kernel put `data_offset` inside the mapped kvm_run area, with room
                // for `size` bytes there, and `data` is no longer than that.
                unsafe {
                    let target = page.add(io.data_offset as usize);
                    std::ptr::copy_nonoverlapping(data.as_ptr(), target, data.len());
                }
            }
            kvm_bindings::KVM_EXIT_MMIO => {
                // SAFETY: the exit reason, set by the kernel, says which union field is valid.
                let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
                assert!(data.len() == mmio.len as usize && mmio.is_write == 0);
                mmio.data[..data.len()].copy_from_slice(data);
            }
            other => panic!("nobody asked: exit reason {other}"),
        }
    }

    fn ready(&mut self) -> bool {
        let run = self.fd.get_kvm_run();
        run.ready_for_interrupt_injection != 0 && run.if_flag != 0
    }

    fn interrupts_enabled(&mut self) -> bool {
        self.fd.get_kvm_run().if_flag != 0
    }

    fn deliver(&mut self, vector: u8) -> Result<(), CpuError> {
        assert!(
            !self.interrupt_queued(),
            "KVM says ready while an interrupt is still queued"
        );
        let irq = kvm_interrupt {
            irq: u32::from(vector),
        };
        // SAFETY: the descriptor is a vCPU's, and the kernel reads one kvm_interrupt.
        let done = unsafe {
            vmm_sys_util::ioctl::ioctl_with_ref(
                &self.fd.as_raw_fd(),
                request::KVM_INTERRUPT(),
                &irq,
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(failed("KVM_INTERRUPT", &std::io::Error::last_os_error())),
        }
    }

    fn exception_due(&mut self) -> bool {
        let exception = self.fd.sync_regs().events.exception;
        exception.pending != 0 || exception.injected != 0
    }

    fn check(&self) -> Check {
        state::from_kvm_regs(&self.fd.sync_regs().regs).check()
    }

    fn settle(&mut self) -> Result<Run, CpuError> {
        self.fd.set_kvm_immediate_exit(1);
        let run = self.enter();
        self.fd.set_kvm_immediate_exit(0);
        run
    }

    fn dirty_pages(&self) -> &DirtyPages {
        &self.dirty
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        state::save(&self.fd, &self.kept_msrs)
    }
}

/// The MSRs of [`MSRS`] that this host's KVM keeps.
fn kept_msrs(kvm: &Kvm) -> Result<Vec<u32>, CpuError> {
    let kept = kvm
        .get_msr_index_list()
        .map_err(ioctl("KVM_GET_MSR_INDEX_LIST"))?;
    let kept = kept.as_slice();
    let indices = MSRS.into_iter().map(|(index, _)| index);
    Ok(indices.filter(|msr| kept.contains(msr)).collect())
}
