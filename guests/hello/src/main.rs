//! The smallest guest: it prints a line and exits with status 0.
#![no_std]
#![no_main]

guest_rt::entry!(main);

fn main() -> u32 {
    guest_rt::println!("hello: from CPL 3");
    guest_rt::println!("hello: done");
    0
}
