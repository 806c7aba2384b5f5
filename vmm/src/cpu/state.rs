//! The vCPU's state, as far as a replay must reproduce it.

use super::CpuError;
use kvm_bindings::{Msrs, kvm_dtable, kvm_msr_entry, kvm_segment};
use kvm_ioctls::{Kvm, VcpuFd};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Architectural MSRs that a guest's execution may depend on (SDM vol. 4). Left out on purpose: the
/// TSC, which runs on, and KVM's paravirtual ones, which are not part of the machine.
const ARCHITECTURAL_MSRS: [u32; 13] = [
    0x174,       // IA32_SYSENTER_CS
    0x175,       // IA32_SYSENTER_ESP
    0x176,       // IA32_SYSENTER_EIP
    0x277,       // IA32_PAT
    0x2ff,       // IA32_MTRR_DEF_TYPE
    0xc000_0081, // IA32_STAR
    0xc000_0082, // IA32_LSTAR
    0xc000_0083, // IA32_CSTAR
    0xc000_0084, // IA32_FMASK
    0xc000_0100, // IA32_FS_BASE
    0xc000_0101, // IA32_GS_BASE
    0xc000_0102, // IA32_KERNEL_GS_BASE
    0xc000_0103, // IA32_TSC_AUX
];

/// Those of them that this host's KVM keeps.
pub(super) fn digest_msrs(kvm: &Kvm) -> Result<Vec<u32>, CpuError> {
    let kept = kvm
        .get_msr_index_list()
        .map_err(CpuError::ioctl("KVM_GET_MSR_INDEX_LIST"))?;
    let kept = kept.as_slice();
    Ok(ARCHITECTURAL_MSRS
        .into_iter()
        .filter(|msr| kept.contains(msr))
        .collect())
}

/// A vCPU's state as words, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuState {
    words: Vec<u64>,
}

impl CpuState {
    pub(super) fn save(fd: &VcpuFd, msrs: &[u32], flags: u64) -> Result<CpuState, CpuError> {
        let mut words = Vec::with_capacity(256);
        let r = fd.get_regs().map_err(CpuError::ioctl("KVM_GET_REGS"))?;
        words.extend([
            r.rax,
            r.rbx,
            r.rcx,
            r.rdx,
            r.rsi,
            r.rdi,
            r.rsp,
            r.rbp,
            r.r8,
            r.r9,
            r.r10,
            r.r11,
            r.r12,
            r.r13,
            r.r14,
            r.r15,
            r.rip,
            r.rflags & flags,
        ]);
        let s = fd.get_sregs().map_err(CpuError::ioctl("KVM_GET_SREGS"))?;
        for segment in [s.cs, s.ds, s.es, s.fs, s.gs, s.ss, s.tr, s.ldt] {
            words.extend(segment_words(&segment));
        }
        for table in [s.gdt, s.idt] {
            words.extend(table_words(&table));
        }
        words.extend([s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer]);
        words.extend(s.interrupt_bitmap);
        words.extend(fpu_words(fd)?);
        words.extend(event_words(fd)?);
        let d = fd
            .get_debug_regs()
            .map_err(CpuError::ioctl("KVM_GET_DEBUGREGS"))?;
        words.extend(d.db);
        words.extend([d.dr6, d.dr7]);
        words.extend(msr_words(fd, msrs)?);
        Ok(CpuState { words })
    }

    /// xxh3-64 of the whole.
    pub fn digest(&self) -> u64 {
        let bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        xxh3_64(&bytes)
    }
}

/// What the SDM leaves undefined in an unusable segment stays out.
fn segment_words(s: &kvm_segment) -> [u64; 3] {
    if s.unusable != 0 {
        return [s.base, u64::from(s.selector), u64::MAX];
    }
    let attributes = [s.type_, s.present, s.dpl, s.db, s.s, s.l, s.g, 0];
    let packed = u64::from_le_bytes(attributes);
    [
        s.base,
        u64::from(s.limit) << 16 | u64::from(s.selector),
        packed,
    ]
}

fn table_words(t: &kvm_dtable) -> [u64; 2] {
    [t.base, u64::from(t.limit)]
}

/// Words of the legacy area (SDM vol. 1, 10.5.1) that hold x87 and SSE state: without MXCSR_MASK, which
/// is the host's, and without what is reserved.
const FPU_WORDS: [Range<usize>; 2] = [0..7, 8..104];

/// x87 and SSE state; guests run with XSAVE off, so there is no more of it. KVM_GET_XSAVE fills in what
/// the CPU's initial-state optimisation left out, where KVM_GET_FPU would give stale bytes.
fn fpu_words(fd: &VcpuFd) -> Result<Vec<u64>, CpuError> {
    let xsave = fd.get_xsave().map_err(CpuError::ioctl("KVM_GET_XSAVE"))?;
    let words = FPU_WORDS.into_iter().flat_map(|part| &xsave.region[part]);
    Ok(words.map(|word| u64::from(*word)).collect())
}

/// What is under way. The number of an event that is not is a leftover of whatever was before.
fn event_words(fd: &VcpuFd) -> Result<[u64; 4], CpuError> {
    let e = fd
        .get_vcpu_events()
        .map_err(CpuError::ioctl("KVM_GET_VCPU_EVENTS"))?;
    let byte = u64::from;
    let exception = match e.exception.injected != 0 || e.exception.pending != 0 {
        true => [
            byte(e.exception.injected) << 16
                | byte(e.exception.pending) << 8
                | byte(e.exception.nr),
            u64::from(e.exception.error_code),
        ],
        false => [0, 0],
    };
    let interrupt = match e.interrupt.injected {
        0 => 0,
        injected => byte(injected) << 8 | byte(e.interrupt.nr),
    };
    Ok([
        exception[0],
        exception[1],
        interrupt << 8 | byte(e.interrupt.shadow),
        byte(e.nmi.injected) << 16 | byte(e.nmi.pending) << 8 | byte(e.nmi.masked),
    ])
}

fn msr_words(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<u64>, CpuError> {
    let mut words = Vec::with_capacity(2 * indices.len());
    for &index in indices {
        let entry = kvm_msr_entry {
            index,
            ..Default::default()
        };
        let mut msr = Msrs::from_entries(&[entry]).expect("one entry fits");
        let read = fd
            .get_msrs(&mut msr)
            .map_err(CpuError::ioctl("KVM_GET_MSRS"))?;
        words.extend([u64::from(index), read as u64, msr.as_slice()[0].data]);
    }
    Ok(words)
}
