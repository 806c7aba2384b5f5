//! Instructions that look at descriptors, load those of the system, or store selectors.

use crate::exception::{GP0, vector};
use crate::flags::{Flags, ZF};
use crate::form::Form;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Dst, Mem, Src, Target, Value, by_target, by_wide_size};
use crate::paging::canonical;
use crate::segments::{Descriptor, null_segment};
use crate::stack::supervisor;
use crate::state::{Cpu, seg};

/// May the current privilege see this descriptor with this selector?
fn visible(cpu: &Cpu, descriptor: &Descriptor) -> bool {
    descriptor.conforms() || descriptor.dpl() >= cpu.cpl.max(descriptor.rpl())
}

fn set_zero(cpu: &mut Cpu, zero: bool) {
    let zero = if zero { ZF } else { 0 };
    cpu.flags = Flags::from_status(cpu.flags.status() & !ZF | zero);
}

/// The descriptor, unless the selector is null, outside its table, or not to be seen.
fn seen<R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Option<Descriptor>> {
    let selector = R::read::<2>(cpu, op)? as u16;
    if selector & !3 == 0 {
        return Ok(None);
    }
    let descriptor = cpu.descriptor(selector)?;
    Ok(descriptor.filter(|d| visible(cpu, d)))
}

/// System types that LAR tells of; LSL tells of those among them that have a limit.
const LAR_TYPES: u32 = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
const LSL_TYPES: u32 = 1 << 2 | 1 << 9 | 1 << 11;

fn of_type(descriptor: &Descriptor, system: u32) -> bool {
    descriptor.kind() & 0x10 != 0 || system >> descriptor.kind() & 1 != 0
}

fn access_rights<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let found = seen::<R>(cpu, op)?.filter(|d| of_type(d, LAR_TYPES));
    if let Some(descriptor) = found {
        cpu.set::<S>(op.dst, descriptor.low >> 32 & 0x00ff_ff00);
    }
    set_zero(cpu, found.is_some());
    Ok(Flow::Next)
}

/// LAR.
pub fn lar(form: &Form) -> Handler {
    match form.memory() {
        true => by_wide_size!(form.size(), S => access_rights::<S, Mem>),
        false => by_wide_size!(form.size(), S => access_rights::<S, Src>),
    }
}

fn segment_limit<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let found = seen::<R>(cpu, op)?.filter(|d| of_type(d, LSL_TYPES));
    if let Some(descriptor) = found {
        cpu.set::<S>(op.dst, u64::from(descriptor.limit()));
    }
    set_zero(cpu, found.is_some());
    Ok(Flow::Next)
}

/// LSL.
pub fn lsl(form: &Form) -> Handler {
    match form.memory() {
        true => by_wide_size!(form.size(), S => segment_limit::<S, Mem>),
        false => by_wide_size!(form.size(), S => segment_limit::<S, Src>),
    }
}

fn verify<const WRITE: bool, D: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let found = seen::<D>(cpu, op)?;
    let allowed = match WRITE {
        true => found.is_some_and(|d| d.is_writable()),
        false => found.is_some_and(|d| d.is_readable()),
    };
    set_zero(cpu, allowed);
    Ok(Flow::Next)
}

/// VERR.
pub fn verr(form: &Form) -> Handler {
    by_target!(form.memory(), D => verify::<false, D>)
}

/// VERW.
pub fn verw(form: &Form) -> Handler {
    by_target!(form.memory(), D => verify::<true, D>)
}

const TYPE_LDT: u8 = 2;
const TYPE_TSS: u8 = 9;
const BUSY: u8 = 2;

fn load_ldt<D: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    let selector = D::read::<2>(cpu, op)? as u16;
    if selector & !3 == 0 {
        cpu.segments[usize::from(seg::LDT)] = null_segment(selector);
        return Ok(Flow::Next);
    }
    let descriptor = system_descriptor(cpu, selector, TYPE_LDT)?;
    cpu.segments[usize::from(seg::LDT)] = descriptor.segment();
    Ok(Flow::Next)
}

fn system_descriptor(cpu: &mut Cpu, selector: u16, kind: u8) -> Done<Descriptor> {
    let global = selector & 4 == 0;
    let descriptor = cpu.needed_descriptor(selector, vector::GP)?;
    if !global || descriptor.kind() != kind {
        return cpu.except(descriptor.fault(vector::GP));
    }
    if !descriptor.present() {
        return cpu.except(descriptor.fault(vector::NP));
    }
    if !canonical(descriptor.segment().base) {
        return cpu.except(descriptor.fault(vector::GP));
    }
    Ok(descriptor)
}

/// LLDT.
pub fn lldt(form: &Form) -> Handler {
    by_target!(form.memory(), D => load_ldt::<D>)
}

fn load_task<D: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    supervisor(cpu)?;
    let selector = D::read::<2>(cpu, op)? as u16;
    if selector & !3 == 0 {
        return cpu.except(GP0);
    }
    let mut descriptor = system_descriptor(cpu, selector, TYPE_TSS)?;
    cpu.mark_descriptor(&mut descriptor, BUSY)?;
    cpu.segments[usize::from(seg::TR)] = descriptor.segment();
    Ok(Flow::Next)
}

/// LTR.
pub fn ltr(form: &Form) -> Handler {
    by_target!(form.memory(), D => load_task::<D>)
}

fn store_selector<const S: u8, const SEGMENT: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let selector = u64::from(cpu.segments[usize::from(SEGMENT)].selector);
    D::write::<S>(cpu, op, selector)?;
    Ok(Flow::Next)
}

/// SLDT.
pub fn sldt(form: &Form) -> Handler {
    match form.memory() {
        true => store_selector::<2, { seg::LDT }, Mem>,
        false => by_wide_size!(form.size(), S => store_selector::<S, { seg::LDT }, Dst>),
    }
}

/// STR.
pub fn str(form: &Form) -> Handler {
    match form.memory() {
        true => store_selector::<2, { seg::TR }, Mem>,
        false => by_wide_size!(form.size(), S => store_selector::<S, { seg::TR }, Dst>),
    }
}
