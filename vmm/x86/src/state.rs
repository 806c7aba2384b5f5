//! The processor: its registers, and how they are read and written.

use crate::exception::Exception;
use crate::flags::Flags;
use crate::fpu::Fpu;
use crate::io::Io;
use crate::memory::Memory;
use crate::op::{Done, HIGH, Raised};
use crate::probe::Probe;
use lockstep_memory::Ram;
use lockstep_vcpu::state::{MSRS, Segment};

/// Numbers of general registers, as instructions encode them.
pub mod gpr {
    /// RAX.
    pub const AX: usize = 0;
    /// RCX.
    pub const CX: usize = 1;
    /// RDX.
    pub const DX: usize = 2;
    /// RBX.
    pub const BX: usize = 3;
    /// RSP.
    pub const SP: usize = 4;
    /// RBP.
    pub const BP: usize = 5;
    /// RSI.
    pub const SI: usize = 6;
    /// RDI.
    pub const DI: usize = 7;
}

/// Numbers of segment registers, as instructions encode them; the last two are not so encoded.
pub mod seg {
    /// ES.
    pub const ES: u8 = 0;
    /// CS.
    pub const CS: u8 = 1;
    /// SS.
    pub const SS: u8 = 2;
    /// DS.
    pub const DS: u8 = 3;
    /// FS.
    pub const FS: u8 = 4;
    /// GS.
    pub const GS: u8 = 5;
    /// The task register.
    pub const TR: u8 = 6;
    /// The local descriptor table.
    pub const LDT: u8 = 7;
}

/// What instructions mean: it is part of a block's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 64-bit mode.
    Long,
    /// Compatibility mode with a 32-bit code segment.
    Compat32,
}

/// Why an instruction did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It did.
    None,
    /// An exception, to be delivered to the guest.
    Exception(Exception),
    /// The memory operand's address is not canonical: #GP or #SS, which the operand says.
    NotCanonical,
    /// It reaches a device, or writes to code: to be run again, alone.
    Alone,
    /// It waits for the answer to a port or MMIO read.
    Asks,
    /// It did not begin: there is a breakpoint.
    Breakpoint,
    /// The guest did what this CPU does not do.
    Unsupported(&'static str),
}

/// Control registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the manual's")]
pub struct Control {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
}

/// The processor.
#[derive(Debug)]
pub struct Cpu {
    /// The 16 general registers; then one that is always zero, and room that makes indexing cheap.
    pub r: [u64; 32],
    /// The status flags, as the last instruction left them.
    pub flags: Flags,
    /// The flags of RFLAGS that are not status flags.
    pub system_flags: u64,
    /// RIP, between two blocks.
    pub rip: u64,
    /// Steps left.
    pub budget: u64,
    /// Steps made since the beginning, less those that [`Cpu::budget`] still holds.
    pub granted: u64,
    /// What the time-stamp counter is ahead of the steps.
    pub tsc_offset: u64,
    /// The part of it that the guest made (IA32_TSC_ADJUST).
    pub tsc_adjust: u64,
    /// Why the last instruction did not complete.
    pub stop: Stop,
    /// What instructions mean now.
    pub mode: Mode,
    /// Current privilege level.
    pub cpl: u8,
    /// Memory, and the way to it.
    pub memory: Memory,
    /// Control registers.
    pub control: Control,
    /// Segment registers by [`seg`].
    pub segments: [Segment; 8],
    /// GDT and IDT: base and limit.
    pub tables: [(u64, u16); 2],
    /// Values of [`MSRS`].
    pub msrs: [u64; MSRS.len()],
    /// DR0 to DR3, DR6, DR7.
    pub debug: [u64; 6],
    /// x87 and SSE.
    pub fpu: Fpu,
    /// Interrupts wait for one more instruction, after STI or MOV SS.
    pub shadow: bool,
    /// What goes to devices and comes from them.
    pub io: Io,
    /// What a debugger wants.
    pub probe: Probe,
}

impl Cpu {
    /// A CPU on this memory, with everything zero.
    pub fn new(ram: Ram) -> Cpu {
        Cpu {
            r: [0; 32],
            flags: Flags::default(),
            system_flags: 0,
            rip: 0,
            budget: 0,
            granted: 0,
            tsc_offset: 0,
            tsc_adjust: 0,
            stop: Stop::None,
            mode: Mode::Long,
            cpl: 0,
            memory: Memory::new(ram),
            control: Control::default(),
            segments: [Segment::default(); 8],
            tables: [(0, 0); 2],
            msrs: MSRS.map(|(_, value)| value),
            debug: [0; 6],
            fpu: Fpu::default(),
            shadow: false,
            io: Io::default(),
            probe: Probe::default(),
        }
    }

    /// Steps made so far. Exact between two runs.
    pub fn steps(&self) -> u64 {
        self.granted - self.budget
    }

    /// Records why the instruction does not complete.
    #[cold]
    pub fn raise<T>(&mut self, stop: Stop) -> Done<T> {
        self.stop = stop;
        Err(Raised)
    }

    /// Raises an exception.
    pub fn except<T>(&mut self, exception: Exception) -> Done<T> {
        self.raise(Stop::Exception(exception))
    }

    /// Reads a register operand of `S` bytes.
    #[inline(always)]
    pub fn get<const S: u8>(&self, register: u8) -> u64 {
        let value = self.r[usize::from(register & 31)];
        match S {
            // AH and its like are the second byte.
            1 => value >> (register >> 2 & 8) & 0xff,
            _ => mask::<S>(value),
        }
    }

    /// Writes one: 4 bytes clear the upper half, fewer leave the rest.
    #[inline(always)]
    pub fn set<const S: u8>(&mut self, register: u8, value: u64) {
        let slot = &mut self.r[usize::from(register & 15)];
        *slot = match S {
            1 => {
                let shift = register >> 2 & (HIGH >> 2);
                *slot & !(0xff << shift) | (value & 0xff) << shift
            }
            2 => *slot & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }

    /// Bytes of a stack slot, an address and a near pointer.
    pub fn width(&self) -> u8 {
        match self.mode {
            Mode::Long => 8,
            Mode::Compat32 => 4,
        }
    }
}

/// The lowest `S` bytes.
#[inline(always)]
pub fn mask<const S: u8>(value: u64) -> u64 {
    match S {
        1 => value & 0xff,
        2 => value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

/// The lowest `S` bytes, extended by their sign.
#[inline(always)]
pub fn extend<const S: u8>(value: u64) -> u64 {
    match S {
        1 => value as i8 as u64,
        2 => value as i16 as u64,
        4 => value as i32 as u64,
        _ => value,
    }
}
