//! x87 and SSE registers, and whether the guest may use them.

use crate::exception::{NM, UD};
use crate::op::Done;
use crate::state::Cpu;

/// CR0.EM and CR0.TS.
const EM: u64 = 1 << 2;
const TS: u64 = 1 << 3;
/// CR4.OSFXSR.
const OSFXSR: u64 = 1 << 9;

/// The host's modes are not known yet: no quick way may be taken.
const UNKNOWN: u32 = 3 << 13;

/// x87 and SSE state.
#[derive(Clone, Copy, Debug)]
pub struct Fpu {
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// The x87 registers by their place, not by the top of the stack: 80 bits each.
    pub st: [u128; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word, with the top of the stack.
    pub fsw: u16,
    /// A bit for each register, by its place, that is not empty.
    pub full: u8,
    /// The last instruction's opcode.
    pub opcode: u16,
    /// The last instruction's address.
    pub ip: u64,
    /// The last operand's address.
    pub dp: u64,
    /// The host's modes, in MXCSR's places. They are no part of the state: they decide how a result is computed,
    /// not what it is.
    pub host_modes: u32,
}

/// After a reset.
impl Default for Fpu {
    fn default() -> Fpu {
        Fpu {
            xmm: [0; 16],
            mxcsr: 0x1f80,
            st: [0; 8],
            fcw: 0x37f,
            fsw: 0,
            full: 0,
            opcode: 0,
            ip: 0,
            dp: 0,
            host_modes: UNKNOWN,
        }
    }
}

impl Fpu {
    /// Where the register that is `index` below the top of the stack lies.
    pub fn place(&self, index: u8) -> usize {
        usize::from(((self.fsw >> 11) as u8 + index) & 7)
    }

    /// As FXSAVE in 64-bit mode lays it out, up to the end of XMM15.
    pub fn fxsave(&self) -> [u8; 416] {
        let mut area = [0; 416];
        let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.fcw.to_le_bytes());
        put(2, &self.fsw.to_le_bytes());
        put(4, &[self.full]);
        put(6, &self.opcode.to_le_bytes());
        put(8, &self.ip.to_le_bytes());
        put(16, &self.dp.to_le_bytes());
        put(24, &self.mxcsr.to_le_bytes());
        for index in 0..8 {
            let register = self.st[self.place(index)].to_le_bytes();
            put(32 + 16 * usize::from(index), &register[..10]);
        }
        for (index, register) in self.xmm.iter().enumerate() {
            put(160 + 16 * index, &register.to_le_bytes());
        }
        area
    }

    /// From such an area.
    pub fn from_fxsave(area: &[u8; 416]) -> Fpu {
        let word = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
        let long = |at: usize| u64::from_le_bytes(area[at..at + 8].try_into().expect("8 bytes"));
        let wide = |at: usize| u128::from_le_bytes(area[at..at + 16].try_into().expect("16 bytes"));
        let mut fpu = Fpu {
            xmm: std::array::from_fn(|index| wide(160 + 16 * index)),
            mxcsr: long(24) as u32,
            st: [0; 8],
            fcw: word(0),
            fsw: word(2),
            full: area[4],
            opcode: word(6),
            ip: long(8),
            dp: long(16),
            host_modes: UNKNOWN,
        };
        for index in 0..8 {
            let value = wide(32 + 16 * usize::from(index)) & ((1 << 80) - 1);
            fpu.st[fpu.place(index)] = value;
        }
        fpu
    }

    /// As registers that were loaded become: bits that do not exist are clear, or set, and ES and B of FSW
    /// say whether an exception waits that is not masked.
    pub fn consistent(self) -> Fpu {
        let fcw = self.fcw & 0x1f3f | 0x40;
        let waits = match self.fsw & !fcw & 0x3f {
            0 => 0,
            _ => 0x8080,
        };
        let fsw = self.fsw & !0x8080 | waits;
        // Linear addresses of this processor have 48 bits.
        let canonical = |address: u64| ((address << 16) as i64 >> 16) as u64;
        let opcode = self.opcode & 0x7ff;
        Fpu {
            fcw,
            fsw,
            opcode,
            ip: canonical(self.ip),
            dp: canonical(self.dp),
            ..self
        }
    }
}

impl Cpu {
    /// Refuses SSE instructions where the guest has not turned them on, or another task's registers are
    /// there.
    #[inline(always)]
    pub fn may_use_sse(&mut self) -> Done {
        let (cr0, cr4) = (self.control.cr0, self.control.cr4);
        if cr0 & (EM | TS) == 0 && cr4 & OSFXSR != 0 {
            return Ok(());
        }
        match cr0 & EM != 0 || cr4 & OSFXSR == 0 {
            true => self.except(UD),
            false => self.except(NM),
        }
    }

    /// The same for x87.
    #[inline(always)]
    pub fn may_use_x87(&mut self) -> Done {
        match self.control.cr0 & (EM | TS) {
            0 => Ok(()),
            _ => self.except(NM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_the_same_after_the_way_there_and_back() {
        let mut area: [u8; 416] = std::array::from_fn(|n| n as u8 ^ 0x5a);
        // What is reserved, or the host's.
        area[5] = 0;
        area[28..32].fill(0);
        for register in 0..8 {
            area[32 + 16 * register + 10..48 + 16 * register].fill(0);
        }
        assert_eq!(Fpu::from_fxsave(&area).fxsave(), area);
    }
}
