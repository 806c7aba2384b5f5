//! One virtual CPU: entering the guest, leaving it, and handing it an interrupt.

use super::state::FLAGS_MASK;
use super::{CpuError, CpuState, DirtyPages};
use crate::memory::{Ram, tables};
use ft_protocol::log::Check;
use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_interrupt, kvm_regs, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuExit, VcpuFd};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

mod request {
    use kvm_bindings::{KVMIO, kvm_interrupt};
    vmm_sys_util::ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
}

/// The three pages that VT-x needs for its own TSS; out of the way of RAM and devices.
const KVM_TSS_ADDRESS: usize = 0xfffb_d000;

/// An exit that the guest caused. These, and only these, are counted as positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// OUT.
    PioOut {
        /// I/O port.
        port: u16,
        /// The value, little-endian.
        data: [u8; 4],
        /// Its length: 1, 2 or 4 bytes.
        len: usize,
    },
    /// IN; [`Vcpu::answer`] gives the value.
    PioIn {
        /// I/O port.
        port: u16,
        /// Length, bytes.
        len: usize,
    },
    /// A write outside RAM.
    MmioWrite {
        /// Guest-physical address.
        addr: u64,
        /// The bytes.
        data: [u8; 8],
        /// How many, up to 8.
        len: usize,
    },
    /// A read outside RAM; [`Vcpu::answer`] gives the value.
    MmioRead {
        /// Guest-physical address.
        addr: u64,
        /// Length, bytes.
        len: usize,
    },
    /// HLT.
    Hlt,
    /// The guest became interruptible after a window was asked for.
    Window,
    /// Triple fault.
    Shutdown,
}

/// How KVM_RUN came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// By the guest's doing.
    Exit(Exit),
    /// By a signal or a kick: no position, nothing changed.
    Kicked,
}

/// When RIP passes an OUT. KVM's instruction emulator moves it before the exit, what KVM does for the
/// OUT that SVM or VT-x intercepts moves it when the guest is entered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutPassed {
    /// Not measured yet.
    Unknown,
    AtExit,
    AtEntry,
}

/// A VM with one virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    // Declared before the RAM, so that the guest is gone before its memory is.
    fd: VcpuFd,
    dirty: DirtyPages,
    msrs: Vec<u32>,
    out_passed: OutPassed,
    /// Held for KVM, which has its address.
    _ram: Ram,
}

impl Vcpu {
    /// Makes a VM whose memory is `ram`, with one CPU in the state that `lockstep_abi` describes.
    pub fn new(ram: Ram, entry: u64) -> Result<Vcpu, CpuError> {
        let mut vcpu = Vcpu::create(ram)?;
        vcpu.reset(entry)?;
        Ok(vcpu)
    }

    /// Makes a VM whose memory is `ram`, with one CPU in this state.
    pub fn restore(ram: Ram, state: &CpuState) -> Result<Vcpu, CpuError> {
        let mut vcpu = Vcpu::create(ram)?;
        state.restore(&vcpu.fd, &vcpu.msrs)?;
        // SAFETY: KVM reads more than a `kvm_xsave` only in a process that asked for dynamically enabled
        // features, which this one never does.
        unsafe { vcpu.fd.set_xsave(&state.xsave()) }.map_err(CpuError::ioctl("KVM_SET_XSAVE"))?;
        vcpu.fd.sync_regs_mut().regs = state.registers();
        // With the interrupt controller in user space, KVM_RUN takes CR8 from here.
        let sregs = vcpu.fd.get_sregs();
        vcpu.fd.get_kvm_run().cr8 = sregs.map_err(CpuError::ioctl("KVM_GET_SREGS"))?.cr8;
        // Nothing is pending: this only has KVM fill what it tells with an exit.
        match vcpu.settle()? {
            Run::Kicked => Ok(vcpu),
            Run::Exit(exit) => Err(vcpu.guest_error(format!("{exit:?} before anything ran"))),
        }
    }

    fn create(ram: Ram) -> Result<Vcpu, CpuError> {
        let kvm = Kvm::new()
            .map_err(|e| CpuError::NoKvm(std::io::Error::from_raw_os_error(e.errno())))?;
        if !kvm.check_extension(Cap::SyncRegs) {
            return Err(CpuError::Lacks("KVM_CAP_SYNC_REGS"));
        }
        let vm = kvm.create_vm().map_err(CpuError::ioctl("KVM_CREATE_VM"))?;
        vm.set_tss_address(KVM_TSS_ADDRESS)
            .map_err(CpuError::ioctl("KVM_SET_TSS_ADDR"))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: KVM_MEM_LOG_DIRTY_PAGES,
            guest_phys_addr: 0,
            memory_size: ram.len() as u64,
            userspace_addr: ram.host_address(),
        };
        // SAFETY: the region is the whole of `ram`, which lives at least as long as the VM: both are
        // fields of the value returned and of its `DirtyPages`, and the VM is dropped first.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(CpuError::ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        let mut fd = vm
            .create_vcpu(0)
            .map_err(CpuError::ioctl("KVM_CREATE_VCPU"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(CpuError::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
        fd.set_cpuid2(&cpuid)
            .map_err(CpuError::ioctl("KVM_SET_CPUID2"))?;
        fd.set_sync_valid_reg(SyncReg::Register);
        fd.set_sync_valid_reg(SyncReg::VcpuEvents);
        Ok(Vcpu {
            fd,
            dirty: DirtyPages::new(Arc::new(vm), ram.clone()),
            msrs: super::state::kept_msrs(&kvm)?,
            out_passed: OutPassed::Unknown,
            _ram: ram,
        })
    }

    /// Long mode, CPL 0, interrupts off, paging by [`tables`].
    fn reset(&mut self, entry: u64) -> Result<(), CpuError> {
        let mut sregs = self
            .fd
            .get_sregs()
            .map_err(CpuError::ioctl("KVM_GET_SREGS"))?;
        let code = kvm_segment {
            limit: 0xffff_ffff,
            selector: lockstep_abi::selector::KERNEL_CODE,
            type_: 11,
            present: 1,
            s: 1,
            l: 1,
            g: 1,
            ..Default::default()
        };
        let data = kvm_segment {
            selector: lockstep_abi::selector::KERNEL_DATA,
            type_: 3,
            l: 0,
            db: 1,
            ..code
        };
        sregs.cs = code;
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            base: 0x2000,
            limit: 0x67,
            selector: tables::TSS_SELECTOR,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        sregs.gdt.base = tables::GDT;
        sregs.gdt.limit = tables::GDT_LIMIT;
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        sregs.cr3 = tables::PML4;
        // PE MP ET NE WP AM PG; PAE OSFXSR OSXMMEXCPT; LME LMA NXE (SDM vol. 3, 2.5 and 2.2.1).
        sregs.cr0 = 0x8005_0033;
        sregs.cr4 = 0x620;
        sregs.efer = 0xd00;
        self.fd
            .set_sregs(&sregs)
            .map_err(CpuError::ioctl("KVM_SET_SREGS"))?;
        let regs = kvm_regs {
            rip: entry,
            rsp: lockstep_abi::BOOT_STACK_TOP,
            rdi: lockstep_abi::BOOT_INFO,
            rflags: 2,
            ..Default::default()
        };
        self.fd
            .set_regs(&regs)
            .map_err(CpuError::ioctl("KVM_SET_REGS"))?;
        // The copy in the shared page is filled by KVM_RUN only; before the first one it is this.
        self.fd.sync_regs_mut().regs = regs;
        Ok(())
    }

    /// Runs the guest until it exits or somebody kicks the thread.
    pub fn run(&mut self) -> Result<Run, CpuError> {
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
            Ok(VcpuExit::IrqWindowOpen) => Exit::Window,
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::Intr) => return Ok(Run::Kicked),
            Err(e) if e.errno() == libc::EINTR => return Ok(Run::Kicked),
            Ok(other) => {
                let what = format!("{other:?}");
                return Err(self.guest_error(what));
            }
            Err(e) => return Err(CpuError::ioctl("KVM_RUN")(e)),
        };
        if matches!(exit, Exit::PioOut { .. } | Exit::PioIn { .. }) && self.repeats() {
            // The loader refuses it; code that it could not see may still hold it.
            return Err(self.guest_error("string I/O".into()));
        }
        if matches!(exit, Exit::PioOut { .. }) {
            self.pass_out()?;
        }
        Ok(Run::Exit(exit))
    }

    /// Has RIP pass the OUT that exited, so that the vCPU's state there is the same on every kind of KVM.
    /// The vCPU's first OUT shows whether this KVM needs that.
    fn pass_out(&mut self) -> Result<(), CpuError> {
        if self.out_passed == OutPassed::AtExit {
            return Ok(());
        }
        let rip = self.fd.sync_regs().regs.rip;
        match self.settle()? {
            Run::Kicked => {}
            Run::Exit(exit) => return Err(self.guest_error(format!("{exit:?} within an OUT"))),
        }
        if self.out_passed == OutPassed::Unknown {
            self.out_passed = match self.fd.sync_regs().regs.rip == rip {
                true => OutPassed::AtExit,
                false => OutPassed::AtEntry,
            };
        }
        Ok(())
    }

    /// Does the port I/O exit stand for more than one access?
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

    /// Gives the value of the IN or MMIO read that the last [`Vcpu::run`] returned.
    pub fn answer(&mut self, data: &[u8]) {
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

    /// Would an interrupt handed over now be taken before the next guest instruction?
    pub fn ready(&mut self) -> bool {
        let run = self.fd.get_kvm_run();
        run.ready_for_interrupt_injection != 0 && run.if_flag != 0
    }

    /// Are interrupts enabled (rflags.IF)?
    pub fn interrupts_enabled(&mut self) -> bool {
        self.fd.get_kvm_run().if_flag != 0
    }

    /// Is an interrupt handed over earlier still waiting to be taken?
    pub fn interrupt_queued(&mut self) -> bool {
        self.fd.sync_regs().events.interrupt.injected != 0
    }

    /// Hands over one interrupt, to be taken on the next [`Vcpu::run`].
    pub fn interrupt(&mut self, vector: u8) -> Result<(), CpuError> {
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
            _ => Err(CpuError::Ioctl {
                call: "KVM_INTERRUPT",
                errno: std::io::Error::last_os_error(),
            }),
        }
    }

    /// Asks, or stops asking, for [`Exit::Window`].
    pub fn request_window(&mut self, wanted: bool) {
        self.fd.get_kvm_run().request_interrupt_window = u8::from(wanted);
    }

    /// A cheap look at the registers.
    pub fn check(&self) -> Check {
        let r = self.fd.sync_regs().regs;
        let words = [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ];
        let mut bytes = [0; 17 * 8];
        for (chunk, word) in bytes
            .chunks_exact_mut(8)
            .zip(words.into_iter().chain([r.rflags & FLAGS_MASK]))
        {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Check {
            rip: r.rip,
            regs: xxh3_64(&bytes) as u32,
        }
    }

    /// Finishes the instruction that exited, as far as that takes no other exit: an IN's value reaches its
    /// register, and RIP passes the instruction. [`Run::Kicked`]: done, the guest has not run on.
    pub fn settle(&mut self) -> Result<Run, CpuError> {
        self.fd.set_kvm_immediate_exit(1);
        let run = self.run();
        self.fd.set_kvm_immediate_exit(0);
        run
    }

    /// Which pages were written, by the guest or by the VMM.
    pub fn dirty_pages(&self) -> &DirtyPages {
        &self.dirty
    }

    /// The state; complete once it is settled.
    pub fn save(&self) -> Result<CpuState, CpuError> {
        CpuState::save(&self.fd, &self.msrs)
    }
}
