//! x87 and SSE registers.

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
        }
    }
}

impl Fpu {
    /// Where the register that is `index` below the top of the stack lies.
    pub fn place(&self, index: u8) -> usize {
        usize::from((self.fsw >> 11) as u8 + index & 7)
    }
}
