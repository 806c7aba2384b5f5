//! Converts the neutral state of a CPU from and to what KVM has.

use crate::error::{ioctl, msr_refused};
use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_PAYLOAD, KVM_VCPUEVENT_VALID_SHADOW, Msrs,
    kvm_debugregs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events,
    kvm_xcr, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use lockstep_vcpu::state::{
    Attributes, Counters, Debug, Events, FPU_WORDS, Fpu, MSRS, Registers, Segment, System,
};
use lockstep_vcpu::{CpuError, CpuState};

/// Where XSTATE_BV lies in the XSAVE area, in 32-bit words (SDM vol. 1, 13.4.2).
const XSTATE_BV: usize = 128;
/// XSTATE_BV of an area that holds x87 and SSE state.
const X87_AND_SSE: u32 = 3;

/// Reads the state of the vCPU `fd`. `kept` lists the MSRs that this host's KVM keeps.
pub fn save(fd: &VcpuFd, kept: &[u32]) -> Result<CpuState, CpuError> {
    let registers = fd.get_regs().map_err(ioctl("KVM_GET_REGS"))?;
    let sregs = fd.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
    // KVM_GET_FPU would give stale bytes for parts that the CPU left out as they are in their initial
    // state; KVM_GET_XSAVE fills those in. KVM_SET_FPU does not mark x87 and SSE state as present in
    // XSTATE_BV.
    let xsave = fd.get_xsave().map_err(ioctl("KVM_GET_XSAVE"))?;
    let xcrs = fd.get_xcrs().map_err(ioctl("KVM_GET_XCRS"))?;
    let events = fd.get_vcpu_events().map_err(ioctl("KVM_GET_VCPU_EVENTS"))?;
    let debug = fd.get_debug_regs().map_err(ioctl("KVM_GET_DEBUGREGS"))?;
    let mut msrs = MSRS.map(|(_, reset)| reset);
    for (value, (index, _)) in msrs.iter_mut().zip(MSRS) {
        if kept.contains(&index) {
            *value = read_msr(fd, index)?.unwrap_or(*value);
        }
    }
    let xcr0 = xcrs.xcrs[..(xcrs.nr_xcrs as usize).min(xcrs.xcrs.len())]
        .iter()
        .find(|xcr| xcr.xcr == 0);
    Ok(CpuState {
        registers: from_kvm_regs(&registers),
        system: from_kvm_sregs(&sregs),
        fpu: Fpu::from_fxsave(&xsave.region),
        xcr0: xcr0.map_or(1, |xcr| xcr.value),
        msrs,
        events: from_kvm_events(&events),
        debug: Debug {
            addresses: debug.db,
            dr6: debug.dr6,
            dr7: debug.dr7,
        },
        counters: Counters::default(),
    })
}

/// Puts a state into the vCPU `fd`. `kept` lists the MSRs that this host's KVM keeps. The events under
/// way are set after the registers, as setting registers cancels them.
pub fn restore(state: &CpuState, fd: &VcpuFd, kept: &[u32]) -> Result<(), CpuError> {
    let mut sregs = fd.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
    to_kvm_sregs(&state.system, &mut sregs);
    fd.set_sregs(&sregs).map_err(ioctl("KVM_SET_SREGS"))?;
    fd.set_regs(&to_kvm_regs(&state.registers))
        .map_err(ioctl("KVM_SET_REGS"))?;
    restore_xcr0(state, fd)?;
    let debug = &state.debug;
    fd.set_debug_regs(&kvm_debugregs {
        db: debug.addresses,
        dr6: debug.dr6,
        dr7: debug.dr7,
        ..Default::default()
    })
    .map_err(ioctl("KVM_SET_DEBUGREGS"))?;
    for (&value, (index, reset)) in state.msrs.iter().zip(MSRS) {
        match kept.contains(&index) {
            true => write_msr(fd, index, value)?,
            false if value == reset => {}
            false => return Err(msr_refused(index)),
        }
    }
    fd.set_vcpu_events(&to_kvm_events(&state.events))
        .map_err(ioctl("KVM_SET_VCPU_EVENTS"))?;
    // SAFETY: KVM reads more than a `kvm_xsave` only in a process that asked for dynamically enabled
    // features, which this one never does.
    unsafe { fd.set_xsave(&to_kvm_xsave(&state.fpu)) }.map_err(ioctl("KVM_SET_XSAVE"))
}

/// General registers, from KVM's.
pub fn from_kvm_regs(r: &kvm_regs) -> Registers {
    Registers {
        general: [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.rflags,
    }
}

/// General registers, as KVM takes them.
pub fn to_kvm_regs(registers: &Registers) -> kvm_regs {
    let [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, rest @ ..] = registers.general;
    let [r8, r9, r10, r11, r12, r13, r14, r15] = rest;
    let (rip, rflags) = (registers.rip, registers.rflags);
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

fn from_kvm_segment(s: &kvm_segment) -> Segment {
    Segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        attributes: Attributes {
            type_: s.type_,
            present: s.present,
            dpl: s.dpl,
            db: s.db,
            s: s.s,
            l: s.l,
            g: s.g,
            avl: s.avl,
            unusable: s.unusable,
        },
    }
}

fn to_kvm_segment(segment: &Segment) -> kvm_segment {
    let a = &segment.attributes;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: a.type_,
        present: a.present,
        dpl: a.dpl,
        db: a.db,
        s: a.s,
        l: a.l,
        g: a.g,
        avl: a.avl,
        unusable: a.unusable,
        padding: 0,
    }
}

fn from_kvm_sregs(s: &kvm_sregs) -> System {
    System {
        segments: [s.cs, s.ds, s.es, s.fs, s.gs, s.ss, s.tr, s.ldt].map(|s| from_kvm_segment(&s)),
        tables: [s.gdt, s.idt].map(|t| (t.base, t.limit)),
        control: [s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer],
    }
}

/// `apic_base` keeps KVM's value, as the machine has no APIC. `interrupt_bitmap` stays empty, as an
/// interrupt under way is set with the events.
fn to_kvm_sregs(system: &System, sregs: &mut kvm_sregs) {
    let [cs, ds, es, fs, gs, ss, tr, ldt] = system.segments.map(|s| to_kvm_segment(&s));
    let [gdt, idt] = system.tables.map(|(base, limit)| kvm_dtable {
        base,
        limit,
        ..Default::default()
    });
    let [cr0, cr2, cr3, cr4, cr8, efer] = system.control;
    *sregs = kvm_sregs {
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
        apic_base: sregs.apic_base,
        interrupt_bitmap: [0; 4],
    };
}

fn to_kvm_xsave(fpu: &Fpu) -> kvm_xsave {
    let mut xsave = kvm_xsave::default();
    xsave.region[..FPU_WORDS].copy_from_slice(fpu.fxsave());
    xsave.region[XSTATE_BV] = X87_AND_SSE;
    xsave
}

fn from_kvm_events(e: &kvm_vcpu_events) -> Events {
    let (x, i, n) = (&e.exception, &e.interrupt, &e.nmi);
    Events {
        exception: [x.injected, x.pending, x.nr, x.has_error_code],
        error_code: x.error_code,
        payload: (e.exception_has_payload != 0).then_some(e.exception_payload),
        interrupt: [i.injected, i.nr, i.soft, i.shadow],
        nmi: [n.injected, n.pending, n.masked],
    }
}

fn to_kvm_events(events: &Events) -> kvm_vcpu_events {
    let mut e = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING
            | KVM_VCPUEVENT_VALID_SHADOW
            | KVM_VCPUEVENT_VALID_PAYLOAD,
        exception_has_payload: u8::from(events.payload.is_some()),
        exception_payload: events.payload.unwrap_or(0),
        ..Default::default()
    };
    let x = &mut e.exception;
    [x.injected, x.pending, x.nr, x.has_error_code] = events.exception;
    x.error_code = events.error_code;
    let i = &mut e.interrupt;
    [i.injected, i.nr, i.soft, i.shadow] = events.interrupt;
    [e.nmi.injected, e.nmi.pending, e.nmi.masked] = events.nmi;
    e
}

/// Sets XCR0. A host without XSAVE does not have this register: there, its value after a reset needs no
/// setting, and KVM refuses others.
fn restore_xcr0(state: &CpuState, fd: &VcpuFd) -> Result<(), CpuError> {
    let there = fd.get_xcrs().map_err(ioctl("KVM_GET_XCRS"))?;
    if there.nr_xcrs == 0 && state.xcr0 == 1 {
        return Ok(());
    }
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0] = kvm_xcr {
        xcr: 0,
        value: state.xcr0,
        ..Default::default()
    };
    fd.set_xcrs(&xcrs).map_err(ioctl("KVM_SET_XCRS"))
}

fn write_msr(fd: &VcpuFd, index: u32, data: u64) -> Result<(), CpuError> {
    let entry = kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let msr = Msrs::from_entries(&[entry]).expect("one entry fits");
    match fd.set_msrs(&msr).map_err(ioctl("KVM_SET_MSRS"))? {
        1 => Ok(()),
        _ => Err(msr_refused(index)),
    }
}

/// `None` if KVM does not give this MSR.
fn read_msr(fd: &VcpuFd, index: u32) -> Result<Option<u64>, CpuError> {
    let entry = kvm_msr_entry {
        index,
        ..Default::default()
    };
    let mut msr = Msrs::from_entries(&[entry]).expect("one entry fits");
    let read = fd.get_msrs(&mut msr).map_err(ioctl("KVM_GET_MSRS"))?;
    Ok((read == 1).then(|| msr.as_slice()[0].data))
}
