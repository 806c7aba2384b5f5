//! The guest's register stack and status word, and how every x87 instruction begins and ends.

use crate::exception::{Exception, vector};
use crate::fpu::Fpu;
use crate::op::{Done, Op};
use crate::state::{Cpu, Stop};

/// Bits of the status word.
pub mod fsw {
    /// Invalid operation.
    pub const IE: u16 = 1;
    /// The exceptions that come before an operation: invalid, denormal operand, division by zero.
    pub const BEFORE: u16 = 7;
    /// Overflow and underflow.
    pub const RANGE: u16 = 0x18;
    /// Underflow.
    pub const UE: u16 = 0x10;
    /// Overflow.
    pub const OE: u16 = 8;
    /// Inexact.
    pub const PE: u16 = 0x20;
    /// All exceptions.
    pub const EXCEPTIONS: u16 = 0x3f;
    /// The stack overflowed or underflowed.
    pub const SF: u16 = 0x40;
    /// An exception that is not masked is pending.
    pub const ES: u16 = 0x80;
    /// Condition codes.
    pub const C0: u16 = 0x100;
    /// Rounded up; the stack overflowed.
    pub const C1: u16 = 0x200;
    /// Condition codes.
    pub const C2: u16 = 0x400;
    /// Condition codes.
    pub const C3: u16 = 0x4000;
    /// All of them.
    pub const CODES: u16 = C0 | C1 | C2 | C3;
    /// The top of the stack.
    pub const TOP: u16 = 0x3800;
    /// The same as ES.
    pub const B: u16 = 0x8000;
    /// A register was needed that is empty.
    pub const UNDERFLOW: u16 = IE | SF;
    /// A register was needed empty that is full.
    pub const OVERFLOW: u16 = IE | SF | C1;
}
use fsw::{B, C1, ES, EXCEPTIONS, TOP};

/// What an invalid operation gives.
pub const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;
/// CR0.NE.
const NE: u64 = 1 << 5;
/// The bits of the control word that can be set, and the one that always is.
const CONTROL: u16 = 0x1f3f;
const CONTROL_SET: u16 = 0x40;

impl Fpu {
    /// What is in ST(`index`), empty or not.
    pub fn value(&self, index: u8) -> u128 {
        self.st[self.place(index)]
    }

    /// Is ST(`index`) empty?
    pub fn is_empty(&self, index: u8) -> bool {
        self.full >> self.place(index) & 1 == 0
    }

    /// Fills ST(`index`).
    pub fn set(&mut self, index: u8, value: u128) {
        let place = self.place(index);
        self.st[place] = value;
        self.full |= 1 << place;
    }

    /// Empties ST(`index`).
    pub fn free(&mut self, index: u8) {
        self.full &= !(1 << self.place(index));
    }

    /// Moves the top by so many registers, upwards.
    pub fn turn(&mut self, by: u8) {
        let top = ((self.fsw >> 11) as u8 + by) & 7;
        self.fsw = self.fsw & !TOP | u16::from(top) << 11;
    }

    /// A new ST(0).
    pub fn push(&mut self, value: u128) {
        self.turn(7);
        self.set(0, value);
    }

    /// Empties ST(0) and makes ST(1) the top.
    pub fn pop(&mut self) {
        self.free(0);
        self.turn(1);
    }

    /// Sets the control word. Exceptions that came before may be pending by it.
    pub fn set_control(&mut self, value: u16) {
        self.fcw = value & CONTROL | CONTROL_SET;
        self.summarise();
    }

    /// ES and B follow from exceptions and masks.
    pub fn summarise(&mut self) {
        self.fsw &= !(ES | B);
        if self.fsw & !self.fcw & EXCEPTIONS != 0 {
            self.fsw |= ES | B;
        }
    }
}

impl Cpu {
    /// Begins an x87 instruction that waits for exceptions of those before.
    #[inline(always)]
    pub fn begin_x87(&mut self) -> Done {
        self.may_use_x87()?;
        self.take_pending()
    }

    /// Raises the exception that an earlier instruction left pending.
    #[inline(always)]
    pub fn take_pending(&mut self) -> Done {
        match self.fpu.fsw & ES {
            0 => Ok(()),
            _ => self.raise_pending(),
        }
    }

    #[cold]
    fn raise_pending(&mut self) -> Done {
        match self.control.cr0 & NE {
            // It would freeze until interrupt 13 comes, by a wire that this machine does not have.
            0 => self.raise(Stop::Unsupported("an x87 exception with CR0.NE clear")),
            _ => self.except(Exception::fault(vector::MF)),
        }
    }

    /// Ends an x87 instruction that raised what `raised` says, and takes over the condition codes `codes`
    /// from there. Is its result wanted? `before`: exceptions that leave operands and stack as they were
    /// if they are not masked.
    pub fn end_x87(&mut self, op: &Op, raised: u16, codes: u16, before: u16) -> bool {
        let fpu = &mut self.fpu;
        fpu.ip = op.rip();
        let taken = codes | fsw::SF | EXCEPTIONS;
        fpu.fsw = fpu.fsw & !codes | raised & taken;
        let unmasked = raised & !fpu.fcw & EXCEPTIONS;
        if unmasked != 0 {
            self.note_exception(op);
        }
        unmasked & before == 0
    }

    /// The same for what computes on registers.
    pub fn end_arithmetic(&mut self, op: &Op, raised: u16) -> bool {
        self.end_x87(op, raised, C1, fsw::BEFORE)
    }

    #[cold]
    fn note_exception(&mut self, op: &Op) {
        self.fpu.fsw |= ES | B;
        self.fpu.opcode = self.opcode(op).unwrap_or(0);
        // Its second byte names a register, or an operand in memory.
        if self.fpu.opcode & 0xff < 0xc0 {
            self.fpu.dp = self.offset(op);
        }
    }

    /// The lower bits of the instruction's first byte after the prefixes, and its second byte. Decoding
    /// did not keep them.
    fn opcode(&mut self, op: &Op) -> Option<u16> {
        let mut bytes = [0u8; 16];
        for (n, byte) in bytes[..usize::from(op.len)].iter_mut().enumerate() {
            let address = op.rip().wrapping_add(n as u64);
            let physical = self.fetch(address).ok()??;
            *byte = self.memory.ram.load::<u8>(physical);
        }
        let first = bytes.iter().position(|byte| byte & 0xf8 == 0xd8)?;
        let second = *bytes.get(first + 1)?;
        Some(u16::from(bytes[first] & 7) << 8 | u16::from(second))
    }
}
