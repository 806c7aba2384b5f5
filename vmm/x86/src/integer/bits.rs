//! Single bits: testing, finding, and the order of bytes.

use crate::flags::Flags;
use crate::form::Form;
use crate::memory::Place;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Dst, Imm, Mem, Shape, Src, Target, Value, by_wide_size};
use crate::state::{Cpu, extend};

/// What happens to the bit that was tested.
pub trait BitOp {
    /// Does it change?
    const WRITES: bool = true;
    /// The number with that bit changed.
    fn apply(value: u64, bit: u64) -> u64;
}

/// BT.
#[derive(Debug)]
pub struct Bt;
/// BTS.
#[derive(Debug)]
pub struct Bts;
/// BTR.
#[derive(Debug)]
pub struct Btr;
/// BTC.
#[derive(Debug)]
pub struct Btc;

impl BitOp for Bt {
    const WRITES: bool = false;
    #[inline(always)]
    fn apply(value: u64, _: u64) -> u64 {
        value
    }
}

impl BitOp for Bts {
    #[inline(always)]
    fn apply(value: u64, bit: u64) -> u64 {
        value | bit
    }
}

impl BitOp for Btr {
    #[inline(always)]
    fn apply(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}

impl BitOp for Btc {
    #[inline(always)]
    fn apply(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

/// Only CF changes; the manual leaves OF, SF, AF and PF undefined.
fn bit<K: BitOp, const S: u8, D: Target, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let bit = 1 << (R::read::<S>(cpu, op)? & (8 * u64::from(S) - 1));
    let value = if K::WRITES {
        let place = D::open::<S>(cpu, op)?;
        let value = D::peek::<S>(cpu, place);
        D::poke::<S>(cpu, place, K::apply(value, bit));
        value
    } else {
        D::read::<S>(cpu, op)?
    };
    cpu.flags = cpu.flags.with_carry(value & bit != 0);
    Ok(Flow::Next)
}

/// With memory and a register, the bit may lie anywhere around the operand.
fn far_bit<K: BitOp, const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let offset = extend::<S>(Src::read::<S>(cpu, op)?) as i64;
    let words = offset >> (3 + S.trailing_zeros());
    let moved = Op {
        disp: op.disp.wrapping_add((words * i64::from(S)) as u64),
        ..*op
    };
    let address = cpu.address(&moved);
    let bit = 1 << (offset as u64 & (8 * u64::from(S) - 1));
    let value = if K::WRITES {
        let place: Place = cpu.open::<S>(address)?;
        let value = cpu.peek::<S>(place);
        cpu.poke::<S>(place, K::apply(value, bit));
        value
    } else {
        cpu.load::<S>(address)?
    };
    cpu.flags = cpu.flags.with_carry(value & bit != 0);
    Ok(Flow::Next)
}

/// The handler of BT and its like.
pub fn pick<K: BitOp>(form: &Form) -> Handler {
    match form.shape() {
        Shape::MemReg => by_wide_size!(form.size(), S => far_bit::<K, S>),
        Shape::MemImm => by_wide_size!(form.size(), S => bit::<K, S, Mem, Imm>),
        Shape::RegImm => by_wide_size!(form.size(), S => bit::<K, S, Dst, Imm>),
        Shape::RegReg => by_wide_size!(form.size(), S => bit::<K, S, Dst, Src>),
        Shape::RegMem => unreachable!("BT has no such form"),
    }
}

/// From which end a bit is looked for.
pub trait Scan {
    /// Its number, in a number of `S` bytes that is not zero.
    fn find(value: u64) -> u32;
}

/// BSF.
#[derive(Debug)]
pub struct Bsf;
/// BSR.
#[derive(Debug)]
pub struct Bsr;

impl Scan for Bsf {
    #[inline(always)]
    fn find(value: u64) -> u32 {
        value.trailing_zeros()
    }
}

impl Scan for Bsr {
    #[inline(always)]
    fn find(value: u64) -> u32 {
        63 - value.leading_zeros()
    }
}

/// If the source is zero, the destination stays, all of it. The manual defines ZF alone: here PF is the
/// result's and the others are clear, as on Intel's processors.
fn scan<K: Scan, const S: u8, R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = R::read::<S>(cpu, op)?;
    let found = (value != 0).then(|| K::find(value));
    if let Some(number) = found {
        cpu.set::<S>(op.dst, u64::from(number));
    }
    cpu.flags = Flags::of_scan(found);
    Ok(Flow::Next)
}

/// The handler of BSF or BSR.
pub fn pick_scan<K: Scan>(form: &Form) -> Handler {
    match form.memory() {
        false => by_wide_size!(form.size(), S => scan::<K, S, Src>),
        true => by_wide_size!(form.size(), S => scan::<K, S, Mem>),
    }
}

/// With 16 bits the manual leaves the result undefined: it is zero.
fn swap_bytes<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let value = cpu.get::<S>(op.dst);
    let swapped = match S {
        8 => value.swap_bytes(),
        4 => u64::from((value as u32).swap_bytes()),
        _ => 0,
    };
    cpu.set::<S>(op.dst, swapped);
    Ok(Flow::Next)
}

/// BSWAP.
pub fn bswap(form: &Form) -> Handler {
    by_wide_size!(form.size(), S => swap_bytes::<S>)
}
