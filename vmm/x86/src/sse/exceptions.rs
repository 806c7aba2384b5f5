//! The guest's MXCSR: flags, and exceptions that are not masked.

use super::host::{FLAGS, MASKS};
use super::unbounded::FTZ;
use crate::exception::{Exception, UD, vector};
use crate::op::Done;
use crate::state::Cpu;

/// Invalid operation, denormal operand, division by zero: known before the operation.
const BEFORE: u32 = 0b111;
/// Overflow, underflow, precision.
const OE: u32 = 1 << 3;
const UE: u32 = 1 << 4;
const PE: u32 = 1 << 5;
/// The bits that mask exceptions lie so much higher than their flags.
const TO_MASK: u32 = 7;
/// CR4.OSXMMEXCPT.
const OSXMMEXCPT: u64 = 1 << 10;

impl Cpu {
    /// Runs an operation under the guest's MXCSR, which notes its exceptions, and raises those that are not
    /// masked. `run` is given an MXCSR and gives back the flags besides the result.
    ///
    /// `inexact` says what becomes of PE where overflow or underflow is not masked and happens: it is given
    /// an MXCSR, and the flags of the exceptions that are not masked.
    #[inline(always)]
    pub fn floating<T>(
        &mut self,
        run: impl Fn(u32) -> (T, u32),
        inexact: impl Fn((u32, u32)) -> u32,
    ) -> Done<T> {
        let mxcsr = self.fpu.mxcsr;
        if mxcsr & MASKS == MASKS {
            let (value, flags) = run(mxcsr & !FLAGS);
            self.fpu.mxcsr = mxcsr | flags;
            return Ok(value);
        }
        let unmasked = !(mxcsr >> TO_MASK) & FLAGS;
        let mut quiet = mxcsr & !FLAGS | MASKS;
        let mut tiny = 0;
        if unmasked & UE != 0 {
            // Not masked, underflow is any tiny result, also an exact one, and FTZ does nothing. FTZ is what
            // tells of all tiny results.
            tiny = run(quiet | FTZ).1 & UE;
            quiet &= !FTZ;
        }
        let (value, mut flags) = run(quiet);
        flags |= tiny;
        if flags & unmasked & (OE | UE) != 0 {
            flags = flags & !PE | inexact((quiet, unmasked));
        }
        self.note(flags, unmasked)?;
        Ok(value)
    }

    /// The same for operations whose results are never too large or too small.
    #[inline(always)]
    pub fn floating_within<T>(&mut self, run: impl Fn(u32) -> (T, u32)) -> Done<T> {
        self.floating(run, |_| unreachable!("no such exception"))
    }

    /// Notes exceptions, and raises those that are not masked. Those that are known before the operation
    /// come first, in all parts of a register.
    #[inline(never)]
    fn note(&mut self, flags: u32, unmasked: u32) -> Done {
        let raised = match flags & BEFORE & unmasked {
            0 => flags,
            _ => flags & BEFORE,
        };
        self.fpu.mxcsr |= raised;
        if raised & unmasked == 0 {
            return Ok(());
        }
        match self.control.cr4 & OSXMMEXCPT {
            0 => self.except(UD),
            _ => self.except(Exception::fault(vector::XM)),
        }
    }
}
