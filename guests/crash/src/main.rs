//! Ends with a CPU exception: a read of page 0, which is not mapped. The runtime reports it and exits
//! with status 142, which is 128 plus the vector of #PF.
#![no_std]
#![no_main]

use core::arch::asm;

guest_rt::entry!(main);

fn main() -> u32 {
    guest_rt::println!("crash: reading address 8");
    let value: u64;
    // SAFETY: never returns: the page fault ends the guest.
    unsafe {
        asm!("mov {value}, qword ptr [{address:r}]", value = out(reg) value, address = in(reg) 8)
    };
    guest_rt::println!("crash: read {value}, where nothing should be mapped");
    1
}
