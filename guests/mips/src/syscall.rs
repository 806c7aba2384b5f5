//! A loop of calls from CPL 3 to CPL 0 and back.

use core::arch::{asm, global_asm};

/// Calls made.
const CALLS: u64 = 2_000_000;
/// The gate of the runtime's 48 that no interrupt has.
const VECTOR: usize = 47;

// What a call does at CPL 0: it adds 1.
global_asm!("call_stub: inc rax", "iretq");

unsafe extern "C" {
    static mut idt: [u64; 96];
    fn call_stub();
}

/// Makes it a gate of DPL 3 (Intel SDM vol. 3, 7.14.1).
pub fn install() {
    // SAFETY: no interrupt has this vector, and nobody else writes the table after boot.
    unsafe {
        let stub = call_stub as *const () as u64;
        let gate = stub & 0xffff | 8 << 16 | 0xee00 << 32 | (stub >> 16 & 0xffff) << 48;
        (&raw mut idt).cast::<u64>().add(2 * VECTOR).write(gate);
        (&raw mut idt)
            .cast::<u64>()
            .add(2 * VECTOR + 1)
            .write(stub >> 32);
    }
}

/// The kernel.
pub fn calls() -> u64 {
    let mut made = 0u64;
    while made < CALLS {
        // SAFETY: the stub changes RAX alone.
        unsafe { asm!("int {vector}", vector = const VECTOR, inout("rax") made) }
    }
    made
}
