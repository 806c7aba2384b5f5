//! Decimal arithmetic, and what else only 32-bit code has.
//!
//! Flags that the manual leaves undefined: after AAD all are those of its sum of bytes; after the others OF is
//! clear, and SF, ZF and PF are those of AL.

use crate::exception::{DE, Exception, vector};
use crate::flags::{AF, CF, Flags, OF, STATUS, ZF};
use crate::form::Form;
use crate::op::{Done, Flow, HIGH, Handler, Op};
use crate::operand::{Dst, Src, Target, Value, by_target, by_wide_size};
use crate::state::{Cpu, extend, gpr, mask};

const AL: u8 = gpr::AX as u8;
const AH: u8 = AL | HIGH;

/// The flags of AL, with these on top.
fn flags_of_al(cpu: &mut Cpu, carry: bool, half: bool) {
    let status = Flags::of_logic::<1>(cpu.get::<1>(AL)).status();
    let carry = if carry { CF } else { 0 };
    let half = if half { AF } else { 0 };
    cpu.flags = Flags::from_status(status | carry | half);
}

/// AAA adds, AAS subtracts.
fn adjust_unpacked<const ADDS: bool>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let adjusts = cpu.get::<1>(AL) & 15 > 9 || cpu.flags.half();
    if adjusts {
        let ax = cpu.get::<2>(AL);
        let ax = match ADDS {
            true => ax.wrapping_add(0x106),
            false => ax.wrapping_sub(6).wrapping_sub(0x100),
        };
        cpu.set::<2>(AL, mask::<2>(ax));
    }
    let al = cpu.get::<1>(AL);
    cpu.set::<1>(AL, al & 15);
    flags_of_al(cpu, adjusts, adjusts);
    Ok(Flow::Next)
}

/// AAA.
pub fn aaa(_: &Form) -> Handler {
    adjust_unpacked::<true>
}

/// AAS.
pub fn aas(_: &Form) -> Handler {
    adjust_unpacked::<false>
}

/// DAA adds, DAS subtracts.
fn adjust_packed<const ADDS: bool>(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let (old, carry) = (cpu.get::<1>(AL), cpu.flags.carry());
    let half = old & 15 > 9 || cpu.flags.half();
    let high = old > 0x99 || carry;
    let by = if half { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let new = match ADDS {
        true => old.wrapping_add(by),
        false => old.wrapping_sub(by),
    };
    cpu.set::<1>(AL, mask::<1>(new));
    // A borrow of the lower digit's correction stays.
    let borrowed = !ADDS && half && old < 6;
    flags_of_al(cpu, high || borrowed, half);
    Ok(Flow::Next)
}

/// DAA.
pub fn daa(_: &Form) -> Handler {
    adjust_packed::<true>
}

/// DAS.
pub fn das(_: &Form) -> Handler {
    adjust_packed::<false>
}

fn split(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let base = op.imm & 0xff;
    let al = cpu.get::<1>(AL);
    if base == 0 {
        return cpu.except(DE);
    }
    cpu.set::<1>(AH, al / base);
    cpu.set::<1>(AL, al % base);
    flags_of_al(cpu, false, false);
    Ok(Flow::Next)
}

/// AAM.
pub fn aam(_: &Form) -> Handler {
    split
}

fn join(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let base = op.imm & 0xff;
    let (al, tens) = (cpu.get::<1>(AL), mask::<1>(cpu.get::<1>(AH) * base));
    let sum = mask::<1>(al + tens);
    cpu.set::<2>(AL, sum);
    cpu.flags = Flags::of_sum::<1>(al, tens, sum);
    Ok(Flow::Next)
}

/// AAD.
pub fn aad(_: &Form) -> Handler {
    join
}

fn set_al_on_carry(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    let value = if cpu.flags.carry() { 0xff } else { 0 };
    cpu.set::<1>(AL, value);
    Ok(Flow::Next)
}

/// SALC.
pub fn salc(_: &Form) -> Handler {
    set_al_on_carry
}

fn overflow_trap(cpu: &mut Cpu, _: &Op) -> Done<Flow> {
    match cpu.flags.status() & OF {
        0 => Ok(Flow::Next),
        _ => cpu.except(Exception::software(vector::OF)),
    }
}

/// INTO.
pub fn into(_: &Form) -> Handler {
    overflow_trap
}

/// #BR.
const OUT_OF_BOUNDS: Exception = Exception::fault(5);

fn check_bounds<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let address = cpu.address(op);
    let signed = |value: u64| extend::<S>(value) as i64;
    let index = signed(Dst::read::<S>(cpu, op)?);
    let low = cpu.load::<S>(address)?;
    if index < signed(low) {
        return cpu.except(OUT_OF_BOUNDS);
    }
    let high = cpu.load::<S>(address.wrapping_add(u64::from(S)))?;
    match index > signed(high) {
        false => Ok(Flow::Next),
        true => cpu.except(OUT_OF_BOUNDS),
    }
}

/// BOUND.
pub fn bound(form: &Form) -> Handler {
    by_wide_size!(form.size(), S => check_bounds::<S>)
}

fn raise_privilege_field<D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let (selector, least) = (D::read::<2>(cpu, op)?, Src::read::<2>(cpu, op)? & 3);
    let raised = selector & 3 < least;
    if raised {
        D::write::<2>(cpu, op, selector & !3 | least)?;
    }
    let zero = if raised { ZF } else { 0 };
    cpu.flags = Flags::from_status(cpu.flags.status() & (STATUS ^ ZF) | zero);
    Ok(Flow::Next)
}

/// ARPL.
pub fn arpl(form: &Form) -> Handler {
    by_target!(form.memory(), D => raise_privilege_field::<D>)
}
