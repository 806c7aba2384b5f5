//! Kernels of one kind of work each, for the machine to time: how many instructions a second its CPU executes.
//!
//! It prints when a kernel begins and when it has ended, with what it computed. `lockstep bench cpu` takes the
//! time at both lines, and the count of instructions. It is built without a count of branch edges.
#![no_std]
#![no_main]

extern crate alloc;

mod kernels;
mod sha256;
mod syscall;

use guest_rt::{boot_info, println};

guest_rt::entry!(main);

fn main() -> u32 {
    for (name, kernel) in kernels::KERNELS {
        run(name, kernel);
    }
    // Not every KVM takes INT from CPL 3; a machine that counts instructions does.
    if boot_info().preempts != 0 {
        syscall::install();
        run("syscalls", syscall::calls);
    }
    println!("mips: done");
    0
}

fn run(name: &str, kernel: fn() -> u64) {
    println!("mips: {name} begins");
    let value = kernel();
    println!("mips: {name} gives {value:016x}");
}
