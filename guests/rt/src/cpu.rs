//! The instructions that Rust has no words for: port I/O, halt, and the two ports that leave.
//!
//! Every one of these is an exit to the VMM: some 25 µs on a KVM that emulates, 1 µs elsewhere.
//! `cli` and `sti` are not here, because they fault at CPL 3 on some hosts: mask a line at the
//! 8259 pair ([`crate::irq::mask`]) instead.
//!
//! Each begins with a comparison of a register with itself, which defines every flag. Most code leaves
//! some undefined (a shift OF and AF, a division all), and there each kind of CPU has its own. An exit
//! shows them: in the log, and in what an interrupt pushes.

use core::arch::asm;

use lockstep_abi::port;

/// `OUT dx, al`.
pub fn out8(port: u16, value: u8) {
    // SAFETY: the machine's ports reach no memory of the guest's: a device touches only the rings
    // that its driver gave it. The same goes for the functions below.
    unsafe { asm!("cmp al, al", "out dx, al", in("dx") port, in("al") value, options(nostack)) }
}

/// `OUT dx, eax`.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as in `out8`.
    unsafe { asm!("cmp al, al", "out dx, eax", in("dx") port, in("eax") value, options(nostack)) }
}

/// `IN al, dx`.
pub fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as in `out8`.
    unsafe { asm!("cmp dl, dl", "in al, dx", in("dx") port, out("al") value, options(nostack)) }
    value
}

/// Halts until an interrupt has been handled.
///
/// An interrupt that was handled between a check and the halt does not end it: where that can
/// happen, use [`crate::clock::idle`], which loses no wake-up.
pub fn halt() {
    // SAFETY: vector 3 is a gate of DPL 3 whose handler is `sti; hlt; iretq`: it changes nothing.
    unsafe { asm!("cmp al, al", "int3") }
}

/// Leaves through the exit port.
pub(crate) fn exit(status: u32) -> ! {
    loop {
        out32(port::EXIT, status);
    }
}
