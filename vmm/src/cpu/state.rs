//! The vCPU's state: taken, put into another vCPU, and digested.

use super::CpuError;
use bincode::{Decode, Encode};
use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, Msrs, kvm_debugregs, kvm_dtable,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Architectural MSRs that a guest's execution may depend on (SDM vol. 4). Left out on purpose: the
/// TSC, which runs on; KVM's paravirtual ones, which are not part of the machine; and TSC_AUX, which not
/// every KVM keeps and no allowed instruction reads.
const ARCHITECTURAL_MSRS: [u32; 12] = [
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
];

/// rflags bits left out of checks and digests: IOPL reads back differently on different kinds of
/// KVM, and RF depends on whether a pending instruction was completed.
pub(super) const FLAGS_MASK: u64 = !(0x3000 | 1 << 16);

/// Those of the architectural MSRs that this host's KVM keeps.
pub(super) fn kept_msrs(kvm: &Kvm) -> Result<Vec<u32>, CpuError> {
    let kept = kvm
        .get_msr_index_list()
        .map_err(CpuError::ioctl("KVM_GET_MSR_INDEX_LIST"))?;
    let kept = kept.as_slice();
    Ok(ARCHITECTURAL_MSRS
        .into_iter()
        .filter(|msr| kept.contains(msr))
        .collect())
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    /// Type, present, DPL, D/B, S, L, G, AVL, and whether it is unusable.
    attributes: [u8; 9],
}

impl Segment {
    fn save(s: &kvm_segment) -> Segment {
        Segment {
            base: s.base,
            limit: s.limit,
            selector: s.selector,
            attributes: [
                s.type_, s.present, s.dpl, s.db, s.s, s.l, s.g, s.avl, s.unusable,
            ],
        }
    }

    fn restore(&self) -> kvm_segment {
        let [type_, present, dpl, db, s, l, g, avl, unusable] = self.attributes;
        kvm_segment {
            base: self.base,
            limit: self.limit,
            selector: self.selector,
            type_,
            present,
            dpl,
            db,
            s,
            l,
            g,
            avl,
            unusable,
            padding: 0,
        }
    }

    /// What the SDM leaves undefined in an unusable segment stays out. One that is not present is unusable,
    /// although not every KVM says so of a null SS at CPL 0.
    fn words(&self) -> [u64; 3] {
        let [type_, present, dpl, db, s, l, g, _, unusable] = self.attributes;
        if unusable != 0 || present == 0 {
            return [self.base, u64::from(self.selector), u64::MAX];
        }
        let packed = u64::from_le_bytes([type_, present, dpl, db, s, l, g, 0]);
        let limit = u64::from(self.limit) << 16;
        [self.base, limit | u64::from(self.selector), packed]
    }
}

/// What KVM_GET_SREGS gives.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct System {
    /// CS, DS, ES, FS, GS, SS, TR, LDT.
    segments: [Segment; 8],
    /// GDT and IDT: base and limit.
    tables: [(u64, u16); 2],
    /// CR0, CR2, CR3, CR4, CR8, EFER.
    control: [u64; 6],
    apic_base: u64,
    interrupt_bitmap: [u64; 4],
}

impl System {
    fn save(s: &kvm_sregs) -> System {
        System {
            segments: [s.cs, s.ds, s.es, s.fs, s.gs, s.ss, s.tr, s.ldt].map(|s| Segment::save(&s)),
            tables: [s.gdt, s.idt].map(|t| (t.base, t.limit)),
            control: [s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer],
            apic_base: s.apic_base,
            interrupt_bitmap: s.interrupt_bitmap,
        }
    }

    fn restore(&self) -> kvm_sregs {
        let [cs, ds, es, fs, gs, ss, tr, ldt] = self.segments.map(|s| s.restore());
        let [gdt, idt] = self.tables.map(|(base, limit)| kvm_dtable {
            base,
            limit,
            ..Default::default()
        });
        let [cr0, cr2, cr3, cr4, cr8, efer] = self.control;
        kvm_sregs {
            cs,
            ds,
            es,
            fs,
            gs,
            ss,
            tr,
            ldt,
            gdt,
            idt,
            cr0,
            cr2,
            cr3,
            cr4,
            cr8,
            efer,
            apic_base: self.apic_base,
            interrupt_bitmap: self.interrupt_bitmap,
        }
    }

    fn words(&self, words: &mut Vec<u64>) {
        for segment in &self.segments {
            words.extend(segment.words());
        }
        for (base, limit) in self.tables {
            words.extend([base, u64::from(limit)]);
        }
        words.extend(self.control);
        words.extend(self.interrupt_bitmap);
    }
}

/// 32-bit words of the legacy XSAVE area (SDM vol. 1, 10.5.1) up to the end of XMM15.
const LEGACY_WORDS: usize = 104;
/// Those that hold x87 and SSE state: without MXCSR_MASK, which is the host's.
const FPU_WORDS: [Range<usize>; 2] = [0..7, 8..LEGACY_WORDS];
/// Where XSTATE_BV lies in the XSAVE area, in 32-bit words.
const XSTATE_BV: usize = 128;
/// XSTATE_BV of an area that holds x87 and SSE state.
const X87_AND_SSE: u32 = 3;

/// x87 and SSE state; guests run with XSAVE off, so there is no more of it. KVM_GET_XSAVE fills in what
/// the CPU's initial-state optimisation left out, where KVM_GET_FPU would give stale bytes; and
/// KVM_SET_FPU does not say that there is something to load.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Fpu([u32; LEGACY_WORDS]);

impl Fpu {
    fn save(xsave: &kvm_xsave) -> Fpu {
        let mut words = [0; LEGACY_WORDS];
        for part in FPU_WORDS {
            words[part.clone()].copy_from_slice(&xsave.region[part]);
        }
        Fpu(words)
    }

    fn restore(&self) -> kvm_xsave {
        let mut xsave = kvm_xsave::default();
        xsave.region[..LEGACY_WORDS].copy_from_slice(&self.0);
        xsave.region[XSTATE_BV] = X87_AND_SSE;
        xsave
    }

    fn words(&self, words: &mut Vec<u64>) {
        for part in FPU_WORDS {
            words.extend(self.0[part].iter().map(|word| u64::from(*word)));
        }
    }
}

/// What is under way in the CPU (KVM_GET_VCPU_EVENTS), without system management mode, which no guest
/// here can enter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Events {
    /// Injected, pending, number, has an error code.
    exception: [u8; 4],
    error_code: u32,
    /// Injected, number, by software, shadow.
    interrupt: [u8; 4],
    /// Injected, pending, masked.
    nmi: [u8; 3],
}

impl Events {
    fn save(e: &kvm_vcpu_events) -> Events {
        let (x, i, n) = (&e.exception, &e.interrupt, &e.nmi);
        Events {
            exception: [x.injected, x.pending, x.nr, x.has_error_code],
            error_code: x.error_code,
            interrupt: [i.injected, i.nr, i.soft, i.shadow],
            nmi: [n.injected, n.pending, n.masked],
        }
    }

    fn restore(&self) -> kvm_vcpu_events {
        let mut e = kvm_vcpu_events {
            flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
            ..Default::default()
        };
        let x = &mut e.exception;
        [x.injected, x.pending, x.nr, x.has_error_code] = self.exception;
        x.error_code = self.error_code;
        let i = &mut e.interrupt;
        [i.injected, i.nr, i.soft, i.shadow] = self.interrupt;
        [e.nmi.injected, e.nmi.pending, e.nmi.masked] = self.nmi;
        e
    }

    /// The number of an event that is not under way is a leftover of whatever was before.
    fn words(&self, words: &mut Vec<u64>) {
        let byte = u64::from;
        let [injected, pending, number, _] = self.exception;
        words.extend(match injected != 0 || pending != 0 {
            true => [
                byte(injected) << 16 | byte(pending) << 8 | byte(number),
                u64::from(self.error_code),
            ],
            false => [0, 0],
        });
        let [injected, number, _, shadow] = self.interrupt;
        let interrupt = match injected {
            0 => 0,
            injected => byte(injected) << 8 | byte(number),
        };
        words.push(interrupt << 8 | byte(shadow));
        let [injected, pending, masked] = self.nmi;
        words.push(byte(injected) << 16 | byte(pending) << 8 | byte(masked));
    }
}

/// What KVM_GET_DEBUGREGS gives.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Debug {
    /// DR0 to DR3.
    addresses: [u64; 4],
    dr6: u64,
    dr7: u64,
    flags: u64,
}

/// A model-specific register; no value if KVM does not give it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Msr {
    index: u32,
    value: Option<u64>,
}

/// All of a vCPU's state that its guest's execution depends on.
///
/// Complete only when the instruction that exited is ([`super::Vcpu::settle`]).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CpuState {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15, RIP, RFLAGS.
    registers: [u64; 18],
    system: System,
    fpu: Fpu,
    /// Number and value; XCR0 is what a CPU after reset has, as guests cannot change it.
    xcrs: Vec<(u32, u64)>,
    msrs: Vec<Msr>,
    events: Events,
    debug: Debug,
    mp_state: u32,
}

impl CpuState {
    pub(super) fn save(fd: &VcpuFd, msrs: &[u32]) -> Result<CpuState, CpuError> {
        let r = fd.get_regs().map_err(CpuError::ioctl("KVM_GET_REGS"))?;
        let sregs = fd.get_sregs().map_err(CpuError::ioctl("KVM_GET_SREGS"))?;
        let xsave = fd.get_xsave().map_err(CpuError::ioctl("KVM_GET_XSAVE"))?;
        let xcrs = fd.get_xcrs().map_err(CpuError::ioctl("KVM_GET_XCRS"))?;
        let events = fd
            .get_vcpu_events()
            .map_err(CpuError::ioctl("KVM_GET_VCPU_EVENTS"))?;
        let d = fd
            .get_debug_regs()
            .map_err(CpuError::ioctl("KVM_GET_DEBUGREGS"))?;
        let mp = fd
            .get_mp_state()
            .map_err(CpuError::ioctl("KVM_GET_MP_STATE"))?;
        Ok(CpuState {
            registers: [
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp, r.r8, r.r9, r.r10, r.r11,
                r.r12, r.r13, r.r14, r.r15, r.rip, r.rflags,
            ],
            system: System::save(&sregs),
            fpu: Fpu::save(&xsave),
            xcrs: xcrs.xcrs[..(xcrs.nr_xcrs as usize).min(xcrs.xcrs.len())]
                .iter()
                .map(|xcr| (xcr.xcr, xcr.value))
                .collect(),
            msrs: msrs
                .iter()
                .map(|&index| read_msr(fd, index))
                .collect::<Result<_, _>>()?,
            events: Events::save(&events),
            debug: Debug {
                addresses: d.db,
                dr6: d.dr6,
                dr7: d.dr7,
                flags: d.flags,
            },
            mp_state: mp.mp_state,
        })
    }

    /// Puts it into `fd`, whose KVM keeps `kept`, save the x87 and SSE state. What is under way goes
    /// last: setting registers cancels it.
    pub(super) fn restore(&self, fd: &VcpuFd, kept: &[u32]) -> Result<(), CpuError> {
        fd.set_mp_state(kvm_mp_state {
            mp_state: self.mp_state,
        })
        .map_err(CpuError::ioctl("KVM_SET_MP_STATE"))?;
        fd.set_sregs(&self.system.restore())
            .map_err(CpuError::ioctl("KVM_SET_SREGS"))?;
        fd.set_regs(&self.registers())
            .map_err(CpuError::ioctl("KVM_SET_REGS"))?;
        self.restore_xcrs(fd)?;
        fd.set_debug_regs(&kvm_debugregs {
            db: self.debug.addresses,
            dr6: self.debug.dr6,
            dr7: self.debug.dr7,
            flags: self.debug.flags,
            ..Default::default()
        })
        .map_err(CpuError::ioctl("KVM_SET_DEBUGREGS"))?;
        self.restore_msrs(fd, kept)?;
        fd.set_vcpu_events(&self.events.restore())
            .map_err(CpuError::ioctl("KVM_SET_VCPU_EVENTS"))
    }

    /// The general registers, as KVM takes them.
    pub(super) fn registers(&self) -> kvm_regs {
        let [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, rest @ ..] = self.registers;
        let [r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags] = rest;
        kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            rflags,
        }
    }

    /// The x87 and SSE state, as KVM takes it.
    pub(super) fn xsave(&self) -> kvm_xsave {
        self.fpu.restore()
    }

    /// A host without XSAVE has none, and takes none.
    fn restore_xcrs(&self, fd: &VcpuFd) -> Result<(), CpuError> {
        let mut xcrs = kvm_xcrs::default();
        if self.xcrs.is_empty() {
            return Ok(());
        }
        if self.xcrs.len() > xcrs.xcrs.len() {
            let too_many = kvm_ioctls::Error::new(libc::EINVAL);
            return Err(CpuError::ioctl("KVM_SET_XCRS")(too_many));
        }
        xcrs.nr_xcrs = self.xcrs.len() as u32;
        for (to, &(xcr, value)) in xcrs.xcrs.iter_mut().zip(&self.xcrs) {
            (to.xcr, to.value) = (xcr, value);
        }
        fd.set_xcrs(&xcrs).map_err(CpuError::ioctl("KVM_SET_XCRS"))
    }

    fn restore_msrs(&self, fd: &VcpuFd, kept: &[u32]) -> Result<(), CpuError> {
        if let Some(index) = kept
            .iter()
            .find(|kept| self.msrs.iter().all(|msr| msr.index != **kept))
        {
            return Err(CpuError::MsrMissing { index: *index });
        }
        for &Msr { index, value } in &self.msrs {
            if !kept.contains(&index) {
                return Err(CpuError::MsrRefused { index });
            }
            let Some(data) = value else { continue };
            let entry = kvm_msr_entry {
                index,
                data,
                ..Default::default()
            };
            let msr = Msrs::from_entries(&[entry]).expect("one entry fits");
            let set = fd.set_msrs(&msr).map_err(CpuError::ioctl("KVM_SET_MSRS"))?;
            if set != 1 {
                return Err(CpuError::MsrRefused { index });
            }
        }
        Ok(())
    }

    /// Is an interrupt handed over that the guest has not taken yet?
    pub fn interrupt_queued(&self) -> bool {
        self.events.interrupt[0] != 0
    }

    /// xxh3-64 of the whole, less what no replay can reproduce.
    pub fn digest(&self) -> u64 {
        hash(self.parts().into_iter().flat_map(|(_, words)| words))
    }

    /// A digest of each part, by name.
    pub fn components(&self) -> Vec<(&'static str, u64)> {
        let parts = self.parts().into_iter();
        parts.map(|(name, words)| (name, hash(words))).collect()
    }

    /// The state as words. Their order is part of every digest in every log.
    fn parts(&self) -> [(&'static str, Vec<u64>); 6] {
        let mut registers = self.registers.to_vec();
        registers[17] &= FLAGS_MASK;
        let (mut system, mut fpu, mut events) = (Vec::new(), Vec::new(), Vec::new());
        self.system.words(&mut system);
        self.fpu.words(&mut fpu);
        self.events.words(&mut events);
        let mut debug = self.debug.addresses.to_vec();
        debug.extend([self.debug.dr6, self.debug.dr7]);
        let msrs = self.msrs.iter().flat_map(|msr| {
            let value = msr.value.unwrap_or(0);
            [u64::from(msr.index), u64::from(msr.value.is_some()), value]
        });
        [
            ("vCPU registers", registers),
            ("vCPU system registers", system),
            ("FPU", fpu),
            ("events", events),
            ("debug registers", debug),
            ("MSRs", msrs.collect()),
        ]
    }
}

fn read_msr(fd: &VcpuFd, index: u32) -> Result<Msr, CpuError> {
    let entry = kvm_msr_entry {
        index,
        ..Default::default()
    };
    let mut msr = Msrs::from_entries(&[entry]).expect("one entry fits");
    let read = fd
        .get_msrs(&mut msr)
        .map_err(CpuError::ioctl("KVM_GET_MSRS"))?;
    let value = (read == 1).then(|| msr.as_slice()[0].data);
    Ok(Msr { index, value })
}

fn hash(words: impl IntoIterator<Item = u64>) -> u64 {
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests;
