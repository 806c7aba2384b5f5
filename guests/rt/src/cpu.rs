//! Instructions that Rust cannot express: port I/O, halt, and the exit port.
//!
//! Each of them makes an exit to the VMM, which takes about 25 µs on a KVM that emulates instructions
//! and about 1 µs elsewhere. `cli` and `sti` are missing, because they fault at CPL 3 on some hosts:
//! mask a line at the 8259 pair ([`crate::irq::mask`]) instead.
//!
//! Each begins with a comparison of a register with itself, which defines all flags. Most instructions
//! leave some flags undefined (a shift leaves OF and AF, a division all), and then their values depend
//! on the kind of CPU. An exit makes them visible: in the log, and on the stack of an interrupt
//! handler.

use core::arch::asm;

use lockstep_abi::port;

/// `OUT dx, al`.
pub fn out8(port: u16, value: u8) {
    // SAFETY: the machine's ports do not access the guest's memory, except for the rings that a driver
    // gave to its device. The same is true for the functions below.
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
/// An interrupt that was handled between a check and the halt does not end the halt. Where that can
/// happen, use [`crate::clock::idle`], which does not lose wake-ups.
pub fn halt() {
    // SAFETY: vector 3 has a gate of DPL 3 with the handler `sti; hlt; iretq`, which changes nothing.
    unsafe { asm!("cmp al, al", "int3") }
}

/// Ends the guest through the exit port.
pub(crate) fn exit(status: u32) -> ! {
    loop {
        out32(port::EXIT, status);
    }
}
