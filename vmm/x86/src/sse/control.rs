//! MXCSR, and saving and loading all of x87, MMX and SSE.

use crate::exception::GP0;
use crate::form::Form;
use crate::fpu::Fpu;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Mem, Target, Value};
use crate::paging::{Access, canonical};
use crate::state::{Cpu, Mode, Stop};

/// The bits of MXCSR that exist.
const MXCSR_MASK: u32 = 0xffff;
/// CR4.OSFXSR.
const OSFXSR: u64 = 1 << 9;
/// Bytes of the area; what lies behind [`USED`] is not touched.
const AREA: usize = 512;
/// Bytes up to the end of XMM15.
const USED: usize = 416;
/// Where MXCSR, its mask and XMM registers lie in the area.
const MXCSR: usize = 24;
const MASK: usize = 28;
const XMM: usize = 160;
/// The end of XMM7.
const XMM8: usize = XMM + 8 * 16;

/// LDMXCSR.
pub fn ldmxcsr(_: &Form) -> Handler {
    |cpu, op| {
        cpu.may_use_sse()?;
        let value = Mem::read::<4>(cpu, op)? as u32;
        if value & !MXCSR_MASK != 0 {
            return cpu.except(GP0);
        }
        cpu.fpu.mxcsr = value;
        Ok(Flow::Next)
    }
}

/// STMXCSR.
pub fn stmxcsr(_: &Form) -> Handler {
    |cpu, op| {
        cpu.may_use_sse()?;
        let value = u64::from(cpu.fpu.mxcsr);
        Mem::write::<4>(cpu, op, value)?;
        Ok(Flow::Next)
    }
}

/// How much of the area there is: without CR4.OSFXSR no SSE state, outside 64-bit mode half the registers.
fn used(cpu: &Cpu) -> usize {
    match (cpu.control.cr4 & OSFXSR, cpu.mode) {
        (0, _) => XMM,
        (_, Mode::Long) => USED,
        (_, Mode::Compat32) => XMM8,
    }
}

/// Where the area lies, once it is known that all of it can be reached.
fn area(cpu: &mut Cpu, op: &Op, access: Access) -> Done<u64> {
    cpu.may_use_x87()?;
    let address = cpu.address(op);
    if !canonical(address) {
        return cpu.raise(Stop::NotCanonical);
    }
    cpu.aligned(address)?;
    // Intel's processors look at the last byte first.
    let last = cpu.address_behind(op, AREA as u64 - 1);
    cpu.span(last, 1, access)?;
    cpu.span(address, AREA, access)?;
    Ok(address)
}

/// `WIDE`: with addresses of 64 bits.
fn save<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let address = area(cpu, op, Access::Write)?;
    let mut data = cpu.fpu.fxsave();
    data[MASK..MASK + 4].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    if !WIDE {
        // FCS and FDS.
        data[12..16].fill(0);
        data[20..24].fill(0);
    }
    let used = used(cpu);
    if used == XMM {
        // What was there stays.
        cpu.load_bytes(address + MXCSR as u64, &mut data[MXCSR..MXCSR + 8])?;
    }
    cpu.store_bytes(address, &data[..used])?;
    Ok(Flow::Next)
}

fn restore<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let address = area(cpu, op, Access::Read)?;
    let mut data = cpu.fpu.fxsave();
    let used = used(cpu);
    let kept: [u8; 4] = data[MXCSR..MXCSR + 4].try_into().expect("4 bytes");
    cpu.load_bytes(address, &mut data[..used])?;
    if used == XMM {
        data[MXCSR..MXCSR + 4].copy_from_slice(&kept);
    }
    if !WIDE {
        data[12..16].fill(0);
        data[20..24].fill(0);
    }
    let fpu = Fpu::from_fxsave(&data);
    if fpu.mxcsr & !MXCSR_MASK != 0 {
        return cpu.except(GP0);
    }
    cpu.fpu = Fpu {
        host_modes: cpu.fpu.host_modes,
        ..fpu.consistent()
    };
    Ok(Flow::Next)
}

/// FXSAVE.
pub fn fxsave(_: &Form) -> Handler {
    save::<false>
}

/// FXSAVE64.
pub fn fxsave64(_: &Form) -> Handler {
    save::<true>
}

/// FXRSTOR.
pub fn fxrstor(_: &Form) -> Handler {
    restore::<false>
}

/// FXRSTOR64.
pub fn fxrstor64(_: &Form) -> Handler {
    restore::<true>
}
