//! Multiplication and division.
//!
//! After a multiplication SF, ZF, AF and PF are undefined: SF and PF are the lower half's, ZF and AF clear.
//! After a division all flags are undefined: they stay.

use crate::exception::DE;
use crate::flags::Flags;
use crate::form::Form;
use crate::op::{Done, Flow, HIGH, Handler, Op};
use crate::operand::{Dst, Mem, Src, Target, Value, by_size, by_target, by_wide_size};
use crate::state::{Cpu, extend, gpr, mask};

const AX: u8 = gpr::AX as u8;
const DX: u8 = gpr::DX as u8;
/// AH.
const AH: u8 = AX | HIGH;

/// The register that holds the upper half of a product or a dividend, for operands of `S` bytes.
const fn upper(size: u8) -> u8 {
    if size == 1 { AH } else { DX }
}

fn mul<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let b = D::read::<S>(cpu, op)?;
    let product = u128::from(cpu.get::<S>(AX)) * u128::from(b);
    let (low, high) = (
        mask::<S>(product as u64),
        mask::<S>((product >> (8 * u32::from(S))) as u64),
    );
    cpu.set::<S>(AX, low);
    cpu.set::<S>(upper(S), high);
    cpu.flags = Flags::of_product::<S>(low, high != 0);
    Ok(Flow::Next)
}

/// MUL.
pub fn pick_mul(form: &Form) -> Handler {
    by_size!(form.size(), S => by_target!(form.memory(), D => mul::<S, D>))
}

/// The product of two signed numbers, and whether it has more than `S` bytes.
fn signed_product<const S: u8>(a: u64, b: u64) -> (i128, bool) {
    let product = i128::from(extend::<S>(a) as i64) * i128::from(extend::<S>(b) as i64);
    let low = extend::<S>(mask::<S>(product as u64)) as i64;
    (product, i128::from(low) != product)
}

fn imul_wide<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let b = D::read::<S>(cpu, op)?;
    let (product, overflow) = signed_product::<S>(cpu.get::<S>(AX), b);
    let low = mask::<S>(product as u64);
    cpu.set::<S>(AX, low);
    cpu.set::<S>(upper(S), mask::<S>((product >> (8 * u32::from(S))) as u64));
    cpu.flags = Flags::of_product::<S>(low, overflow);
    Ok(Flow::Next)
}

fn imul<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let b = R::read::<S>(cpu, op)?;
    let (product, overflow) = signed_product::<S>(Dst::read::<S>(cpu, op)?, b);
    let low = mask::<S>(product as u64);
    cpu.set::<S>(op.dst, low);
    cpu.flags = Flags::of_product::<S>(low, overflow);
    Ok(Flow::Next)
}

fn imul_by_immediate<const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let a = R::read::<S>(cpu, op)?;
    let (product, overflow) = signed_product::<S>(a, mask::<S>(op.imm));
    let low = mask::<S>(product as u64);
    cpu.set::<S>(op.dst, low);
    cpu.flags = Flags::of_product::<S>(low, overflow);
    Ok(Flow::Next)
}

/// IMUL.
pub fn pick_imul(form: &Form) -> Handler {
    match (form.operands(), form.memory()) {
        (1, memory) => by_size!(form.size(), S => by_target!(memory, D => imul_wide::<S, D>)),
        (2, false) => by_wide_size!(form.size(), S => imul::<S, Src>),
        (2, true) => by_wide_size!(form.size(), S => imul::<S, Mem>),
        (_, false) => by_wide_size!(form.size(), S => imul_by_immediate::<S, Src>),
        (_, true) => by_wide_size!(form.size(), S => imul_by_immediate::<S, Mem>),
    }
}

fn div<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let divisor = u128::from(D::read::<S>(cpu, op)?);
    let high = u128::from(cpu.get::<S>(upper(S)));
    let dividend = high << (8 * u32::from(S)) | u128::from(cpu.get::<S>(AX));
    // The quotient fits if and only if the dividend's upper half is smaller than the divisor.
    if high >= divisor {
        return cpu.except(DE);
    }
    let (quotient, rest) = match u64::try_from(dividend) {
        Ok(small) => (small / divisor as u64, small % divisor as u64),
        Err(_) => ((dividend / divisor) as u64, (dividend % divisor) as u64),
    };
    cpu.set::<S>(AX, quotient);
    cpu.set::<S>(upper(S), rest);
    Ok(Flow::Next)
}

/// DIV.
pub fn pick_div(form: &Form) -> Handler {
    by_size!(form.size(), S => by_target!(form.memory(), D => div::<S, D>))
}

fn idiv<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let divisor = i128::from(extend::<S>(D::read::<S>(cpu, op)?) as i64);
    let high = i128::from(extend::<S>(cpu.get::<S>(upper(S))) as i64);
    let dividend = high << (8 * u32::from(S)) | i128::from(cpu.get::<S>(AX));
    // None: by zero, or the least number by -1.
    let Some(quotient) = dividend.checked_div(divisor) else {
        return cpu.except(DE);
    };
    if i128::from(extend::<S>(mask::<S>(quotient as u64)) as i64) != quotient {
        return cpu.except(DE);
    }
    let rest = dividend % divisor;
    cpu.set::<S>(AX, mask::<S>(quotient as u64));
    cpu.set::<S>(upper(S), mask::<S>(rest as u64));
    Ok(Flow::Next)
}

/// IDIV.
pub fn pick_idiv(form: &Form) -> Handler {
    by_size!(form.size(), S => by_target!(form.memory(), D => idiv::<S, D>))
}
