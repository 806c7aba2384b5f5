//! System instructions: control and debug registers, MSRs, descriptor tables, interrupts on and off.

use crate::cpuid;
use crate::exception::{Exception, GP0, UD, vector};
use crate::flags::{IF, IOPL};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Dst, Mem, Target, Value, by_target, by_wide_size};
use crate::paging::{PHYSICAL_BITS, canonical};
use crate::stack::supervisor;
use crate::state::{Cpu, gpr, mask, seg};
use crate::tlb::PAGE_MASK;
use lockstep_vcpu::Exit;
use lockstep_vcpu::state::MSRS;

/// Bits of CR0.
mod cr0 {
    pub const PE: u64 = 1;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const WP: u64 = 1 << 16;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
    /// PE MP EM TS ET NE WP AM NW CD PG.
    pub const KNOWN: u64 = 0xe005_003f;
}

/// Bits of CR4.
mod cr4 {
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PAE: u64 = 1 << 5;
    /// TSD DE PSE PAE PGE OSFXSR OSXMMEXCPT.
    pub const KNOWN: u64 = TSD | DE | 1 << 4 | PAE | 1 << 7 | 1 << 9 | 1 << 10;
}

/// SCE, LME, LMA, NXE.
const EFER_KNOWN: u64 = 1 | EFER_LME | EFER_LMA | EFER_NXE;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

impl Cpu {
    fn set_cr0(&mut self, value: u64) -> Done {
        let bad = value >> 32 != 0
            || value & cr0::NW != 0 && value & cr0::CD == 0
            || value & cr0::PE == 0
            || value & cr0::PG == 0;
        if bad {
            // Paging cannot be turned off in 64-bit mode. In compatibility mode it could, which is not done here.
            return self.except(GP0);
        }
        let new = value & cr0::KNOWN | cr0::ET;
        let old = std::mem::replace(&mut self.control.cr0, new);
        if (old ^ new) & cr0::WP != 0 {
            self.memory.flush();
        }
        Ok(())
    }

    fn set_cr3(&mut self, value: u64) -> Done {
        if value >> PHYSICAL_BITS != 0 {
            return self.except(GP0);
        }
        let old = std::mem::replace(&mut self.control.cr3, value);
        if (old ^ value) & PAGE_MASK == 0 {
            return Ok(());
        }
        match self.memory.keeps_upper_half(old, value) {
            true => {
                self.memory.tlb.clear_lower();
                self.memory.switched.get_or_insert(old);
            }
            false => self.memory.flush(),
        }
        Ok(())
    }

    fn set_cr4(&mut self, value: u64) -> Done {
        if value & !cr4::KNOWN != 0 || value & cr4::PAE == 0 {
            return self.except(GP0);
        }
        self.control.cr4 = value;
        Ok(())
    }

    fn set_cr8(&mut self, value: u64) -> Done {
        if value & !15 != 0 {
            return self.except(GP0);
        }
        self.control.cr8 = value;
        Ok(())
    }

    fn set_efer(&mut self, value: u64) -> Done {
        let changed = value ^ self.control.efer;
        if value & !EFER_KNOWN != 0 || changed & EFER_LME != 0 {
            return self.except(GP0);
        }
        self.control.efer = value & !EFER_LMA | self.control.efer & EFER_LMA;
        if changed & EFER_NXE != 0 {
            self.memory.flush();
        }
        Ok(())
    }
}

fn read_control(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = match op.src {
        0 => cpu.control.cr0,
        2 => cpu.control.cr2,
        3 => cpu.control.cr3,
        4 => cpu.control.cr4,
        8 => cpu.control.cr8,
        _ => return cpu.except(UD),
    };
    supervisor(cpu)?;
    cpu.r[usize::from(op.dst & 15)] = value;
    Ok(Flow::Next)
}

fn write_control(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    if !matches!(op.dst, 0 | 2 | 3 | 4 | 8) {
        return cpu.except(UD);
    }
    supervisor(cpu)?;
    let value = cpu.r[usize::from(op.src & 15)];
    match op.dst {
        0 => cpu.set_cr0(value)?,
        2 => cpu.control.cr2 = value,
        3 => cpu.set_cr3(value)?,
        4 => cpu.set_cr4(value)?,
        _ => cpu.set_cr8(value)?,
    }
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// Where DR`number` is kept. DR4 and DR5 are other names of DR6 and DR7, or nothing.
fn debug_slot(cpu: &mut Cpu, number: u8) -> Done<usize> {
    let extended = cpu.control.cr4 & cr4::DE != 0;
    match number {
        0..=3 => Ok(usize::from(number)),
        4 | 5 if !extended => Ok(usize::from(number)),
        6 | 7 => Ok(usize::from(number - 2)),
        _ => cpu.except(UD),
    }
}

/// DR7.GD: the debug registers are guarded. In DR6 it is the reason, BD.
pub const GENERAL_DETECT: u64 = 1 << 13;

/// Refuses to read or write debug registers that are guarded.
fn unguarded(cpu: &mut Cpu) -> Done {
    match cpu.debug[5] & GENERAL_DETECT {
        0 => Ok(()),
        _ => cpu.except(Exception {
            detail: Some(GENERAL_DETECT),
            ..Exception::fault(vector::DB)
        }),
    }
}

fn read_debug(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let slot = debug_slot(cpu, op.src)?;
    supervisor(cpu)?;
    unguarded(cpu)?;
    cpu.r[usize::from(op.dst & 15)] = cpu.debug[slot];
    Ok(Flow::Next)
}

/// Breakpoints are kept, and not looked for.
fn write_debug(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let slot = debug_slot(cpu, op.dst)?;
    supervisor(cpu)?;
    unguarded(cpu)?;
    let value = cpu.r[usize::from(op.src & 15)];
    if slot > 3 && value >> 32 != 0 {
        return cpu.except(GP0);
    }
    cpu.debug[slot] = match slot {
        4 => value & 0xe00f | 0xffff_0ff0,
        5 => value & 0xffff_2bff | 0x400,
        _ => value,
    };
    Ok(Flow::Next)
}

/// MOV from and to control and debug registers.
pub fn mov_control(form: &Form) -> Handler {
    let (first, second) = (
        form.instruction.op0_register(),
        form.instruction.op1_register(),
    );
    match (first.is_cr(), second.is_cr(), first.is_dr()) {
        (true, _, _) => write_control,
        (_, true, _) => read_control,
        (_, _, true) => write_debug,
        (_, _, false) => read_debug,
    }
}

/// Where an MSR is kept in [`Cpu::msrs`].
pub fn msr_slot(index: u32) -> Option<usize> {
    MSRS.iter().position(|(known, _)| *known == index)
}

const TSC: u32 = 0x10;
const TSC_ADJUST: u32 = 0x3b;
/// IA32_BIOS_SIGN_ID: there is no microcode, whose revision would be here.
const MICROCODE: u32 = 0x8b;
/// IA32_PLATFORM_ID: Linux's microcode driver reads it on a processor of this family.
const PLATFORM_ID: u32 = 0x17;
const ARCH_CAPABILITIES: u32 = 0x10a;
/// Nothing is executed on speculation, so that none of the leaks is there for which kernels do extra work at each
/// system call and interrupt: RDCL, what VM entries leave in L1, SSB, MDS, what changed page sizes leave, TAA,
/// SBDR and SSDP, FBSDP, PSDP, BHI, PBRSB, GDS, RFDS and ITS.
const LEAKS_NOTHING: u64 = 1 << 62 | 0x0d10_e179;
const MISC_ENABLE: u32 = 0x1a0;
/// Strings are fast. The other features are not there.
const MISC: u64 = 1;
const PAT: u32 = 0x277;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const EFER: u32 = 0xc000_0080;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;

fn read_msr(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    let index = mask::<4>(cpu.r[gpr::CX]) as u32;
    let value = match (index, msr_slot(index)) {
        (TSC, _) => {
            cpu.alone()?;
            cpu.tsc()
        }
        (TSC_ADJUST, _) => cpu.tsc_adjust,
        (MISC_ENABLE, _) => MISC,
        (MICROCODE | PLATFORM_ID, _) => 0,
        (ARCH_CAPABILITIES, _) => LEAKS_NOTHING,
        (EFER, _) => cpu.control.efer,
        (FS_BASE, _) => cpu.segments[usize::from(seg::FS)].base,
        (GS_BASE, _) => cpu.segments[usize::from(seg::GS)].base,
        // CPUID does not tell of MTRRs.
        (MTRR_DEF_TYPE, _) | (_, None) => return cpu.except(GP0),
        (_, Some(slot)) => cpu.msrs[slot],
    };
    cpu.r[gpr::AX] = mask::<4>(value);
    cpu.r[gpr::DX] = value >> 32;
    Ok(Flow::Next)
}

/// Those that hold an address.
fn holds_address(index: u32) -> bool {
    matches!(
        index,
        0x175 | 0x176 | 0xc000_0082 | 0xc000_0083 | FS_BASE..=0xc000_0102
    )
}

fn sound_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

fn write_msr(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    let index = mask::<4>(cpu.r[gpr::CX]) as u32;
    let value = mask::<4>(cpu.r[gpr::DX]) << 32 | mask::<4>(cpu.r[gpr::AX]);
    if holds_address(index) && !canonical(value) || index == PAT && !sound_pat(value) {
        return cpu.except(GP0);
    }
    match (index, msr_slot(index)) {
        (TSC, _) => {
            cpu.alone()?;
            cpu.set_tsc(value);
        }
        (TSC_ADJUST, _) => cpu.adjust_tsc(value.wrapping_sub(cpu.tsc_adjust)),
        // Nothing there can be turned on or off.
        (MISC_ENABLE | MICROCODE, _) => {}
        (EFER, _) => cpu.set_efer(value)?,
        (FS_BASE, _) => cpu.segments[usize::from(seg::FS)].base = value,
        (GS_BASE, _) => cpu.segments[usize::from(seg::GS)].base = value,
        (MTRR_DEF_TYPE, _) | (_, None) => return cpu.except(GP0),
        (_, Some(slot)) => cpu.msrs[slot] = value,
    }
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// RDMSR.
pub fn rdmsr(_: &Form) -> Handler {
    read_msr
}

/// WRMSR.
pub fn wrmsr(_: &Form) -> Handler {
    write_msr
}

fn read_tsc(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    if cpu.control.cr4 & cr4::TSD != 0 && cpu.cpl != 0 {
        return cpu.except(GP0);
    }
    // Exact to the instruction: a block's steps are paid when it is entered.
    cpu.alone()?;
    let value = cpu.tsc();
    cpu.r[gpr::AX] = mask::<4>(value);
    cpu.r[gpr::DX] = value >> 32;
    Ok(Flow::Next)
}

/// RDTSC.
pub fn rdtsc(_: &Form) -> Handler {
    read_tsc
}

fn read_counter(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    cpu.except(GP0)
}

/// RDPMC: there are no counters.
pub fn rdpmc(_: &Form) -> Handler {
    read_counter
}

fn identify(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let [a, b, c, d] = cpuid::leaf(mask::<4>(cpu.r[gpr::AX]) as u32);
    let registers = [gpr::AX, gpr::BX, gpr::CX, gpr::DX];
    for (register, value) in registers.into_iter().zip([a, b, c, d]) {
        cpu.r[register] = u64::from(value);
    }
    Ok(Flow::Next)
}

/// CPUID.
pub fn cpuid(_: &Form) -> Handler {
    identify
}

/// Loads the GDT's or the IDT's register.
fn load_table<const TABLE: usize>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    let mut bytes = [0; 10];
    let len = 2 + usize::from(cpu.width());
    let address = cpu.address(op);
    cpu.load_bytes(address, &mut bytes[..len])?;
    let limit = u16::from_le_bytes([bytes[0], bytes[1]]);
    let base = u64::from_le_bytes(bytes[2..].try_into().expect("8 bytes"));
    if !canonical(base) {
        return cpu.except(GP0);
    }
    cpu.tables[TABLE] = (base, limit);
    Ok(Flow::Next)
}

/// LGDT.
pub fn lgdt(_: &Form) -> Handler {
    load_table::<0>
}

/// LIDT.
pub fn lidt(_: &Form) -> Handler {
    load_table::<1>
}

fn store_table<const TABLE: usize>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let (base, limit) = cpu.tables[TABLE];
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&limit.to_le_bytes());
    bytes[2..].copy_from_slice(&base.to_le_bytes());
    let len = 2 + usize::from(cpu.width());
    let address = cpu.address(op);
    cpu.store_bytes(address, &bytes[..len])?;
    Ok(Flow::Next)
}

/// SGDT.
pub fn sgdt(_: &Form) -> Handler {
    store_table::<0>
}

/// SIDT.
pub fn sidt(_: &Form) -> Handler {
    store_table::<1>
}

fn store_status<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = cpu.control.cr0;
    D::write::<S>(cpu, op, value)?;
    Ok(Flow::Next)
}

/// SMSW.
pub fn smsw(form: &Form) -> Handler {
    match form.memory() {
        true => store_status::<2, Mem>,
        false => by_wide_size!(form.size(), S => store_status::<S, Dst>),
    }
}

/// PE cannot be cleared so.
fn load_status<D: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    let value = D::read::<2>(cpu, op)? & 15;
    let old = cpu.control.cr0;
    cpu.set_cr0(old & !14 | value)?;
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// LMSW.
pub fn lmsw(form: &Form) -> Handler {
    by_target!(form.memory(), D => load_status::<D>)
}

fn clear_task_switched(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    cpu.control.cr0 &= !cr0::TS;
    Ok(Flow::Next)
}

/// CLTS.
pub fn clts(_: &Form) -> Handler {
    clear_task_switched
}

/// Refuses those below the I/O privilege level.
fn io_privilege(cpu: &mut Cpu) -> Done {
    match u64::from(cpu.cpl) <= (cpu.system_flags & IOPL) >> 12 {
        true => Ok(()),
        false => cpu.except(GP0),
    }
}

fn clear_interrupt(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    io_privilege(cpu)?;
    cpu.system_flags &= !IF;
    Ok(Flow::Next)
}

/// CLI.
pub fn cli(_: &Form) -> Handler {
    clear_interrupt
}

fn set_interrupt(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    io_privilege(cpu)?;
    cpu.shadow |= cpu.system_flags & IF == 0;
    cpu.system_flags |= IF;
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// STI.
pub fn sti(_: &Form) -> Handler {
    set_interrupt
}

fn halt(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    cpu.alone()?;
    cpu.tell(Exit::Hlt);
    Ok(Flow::Next)
}

/// HLT.
pub fn hlt(_: &Form) -> Handler {
    halt
}

fn nothing_privileged(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    Ok(Flow::Next)
}

/// INVD and WBINVD: there is no cache. INVLPG: no translation is older than the tables.
pub fn privileged_nop(_: &Form) -> Handler {
    nothing_privileged
}

impl Cpu {
    /// The time-stamp counter: a nanosecond of guest time for each step, and what passed between steps. Exact where
    /// an instruction runs alone.
    pub fn tsc(&self) -> u64 {
        self.steps().wrapping_add(self.tsc_offset)
    }

    fn set_tsc(&mut self, value: u64) {
        self.adjust_tsc(value.wrapping_sub(self.tsc()));
    }

    /// The guest sets its counter so much ahead.
    fn adjust_tsc(&mut self, by: u64) {
        self.tsc_offset = self.tsc_offset.wrapping_add(by);
        self.tsc_adjust = self.tsc_adjust.wrapping_add(by);
    }
}
