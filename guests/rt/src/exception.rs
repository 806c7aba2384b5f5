//! Reports a CPU exception, which ends the guest.

use core::fmt::Write;

use crate::cpu;
use crate::uart::Uart;

/// Exit status of a guest that met an exception, minus the vector.
const EXCEPTION_STATUS: u32 = 128;

/// The exception, as exception_common recorded it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Record {
    vector: u64,
    error_code: u64,
    rip: u64,
    rsp: u64,
    cr2: u64,
}

unsafe extern "C" {
    static exception_record: Record;
}

/// Called by interrupts.s at CPL 3, on a separate stack, at most once.
#[unsafe(no_mangle)]
extern "C" fn guest_rt_exception() -> ! {
    // SAFETY: exception_common has filled it and never writes it again.
    let record = unsafe { (&raw const exception_record).read_volatile() };
    let _ = writeln!(
        Uart,
        "guest: exception {} ({}), error code {:#x}, RIP {:#x}, RSP {:#x}, CR2 {:#x}",
        record.vector,
        name(record.vector),
        record.error_code,
        record.rip,
        record.rsp,
        record.cr2
    );
    cpu::exit(EXCEPTION_STATUS + record.vector as u32)
}

/// Mnemonics of Intel SDM 3A, table 7-1.
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE, division",
        1 => "#DB, debug",
        4 => "#OF, overflow",
        5 => "#BR, bound",
        6 => "#UD, invalid opcode",
        7 => "#NM, no floating point",
        8 => "#DF, double fault",
        10 => "#TS, invalid TSS",
        11 => "#NP, segment not present",
        12 => "#SS, stack segment",
        13 => "#GP, general protection",
        14 => "#PF, page fault",
        16 => "#MF, x87",
        17 => "#AC, alignment",
        19 => "#XM, SIMD floating point",
        _ => "unnamed",
    }
}
