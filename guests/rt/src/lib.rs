//! The runtime of Lockstep's guests: what a program needs on a machine without an operating system, and
//! only what a replay can repeat.
//!
//! A program is a `no_std`, `no_main` crate that uses [`entry!`]:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! guest_rt::entry!(main);
//!
//! fn main() -> u32 {
//!     guest_rt::println!("hello");
//!     0
//! }
//! ```
//!
//! `main` runs at CPL 3 with interrupts enabled, every line masked at the 8259 pair, a heap in all RAM
//! after the image, and a working console. Its result is the guest's exit status. A panic is printed
//! and exits with [`PANIC_STATUS`]. A CPU exception is reported and exits with 128 plus its vector.
//! Both use the 16550; all other output goes through virtio-console.
//!
//! Every branch edge of compiled code is counted ([`edges`]), so that a guest that only computes still
//! makes an exit per quantum and takes its interrupts there.
//!
//! Time and randomness come from the machine ([`clock`], [`boot_info`]). An instruction that the VMM
//! cannot control (RDTSC, RDRAND, CPUID, string I/O, …) is not allowed in a guest: the loader refuses
//! an image with one.
#![no_std]

extern crate alloc;

pub mod clock;
pub mod console;
pub mod cpu;
pub mod edges;
mod exception;
mod heap;
pub mod irq;
pub mod mmio;
pub mod pit;
mod single;
pub mod uart;
pub mod virtio;

use core::arch::global_asm;
use core::fmt::Write;
use core::panic::PanicInfo;

pub use heap::heap_bytes;
pub use lockstep_abi as abi;

global_asm!(include_str!("boot.s"));
global_asm!(include_str!("edges.s"));
global_asm!(include_str!("interrupts.s"));
global_asm!(include_str!("mem.s"));

/// Exit status of a guest that panicked.
pub const PANIC_STATUS: u32 = 101;
/// Exit status of a guest that cannot start on this machine: no [`abi::BOOT_MAGIC`], a different
/// [`abi::ABI_VERSION`], or no RAM for a heap.
pub const BOOT_STATUS: u32 = 102;

/// Defines the program's main function: `fn() -> u32`, which returns the exit status.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() -> u32 {
            let main: fn() -> u32 = $main;
            main()
        }
    };
}

/// Prints to the console. A line is sent when it is complete.
#[macro_export]
macro_rules! print {
    ($($part:tt)*) => { $crate::console::print(format_args!($($part)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($part:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($part)*))) };
}

unsafe extern "C" {
    /// Defined in the program by [`entry!`].
    safe fn guest_main() -> u32;
}

/// What the machine told the guest at boot.
pub fn boot_info() -> &'static abi::BootInfo {
    // SAFETY: the machine has filled the page before the first instruction and maps it read-only.
    // Nothing writes to it afterwards, and every bit pattern is a valid BootInfo.
    unsafe { &*(abi::BOOT_INFO as *const abi::BootInfo) }
}

/// Ends the guest with `status`, after the text that was not sent yet.
pub fn exit(status: u32) -> ! {
    console::flush();
    cpu::exit(status)
}

/// Called by boot.s at CPL 3, once.
#[unsafe(no_mangle)]
extern "C" fn guest_rt_entry() -> ! {
    let boot = boot_info();
    if boot.magic != abi::BOOT_MAGIC || boot.version != abi::ABI_VERSION {
        let _ = writeln!(
            uart::Uart,
            "guest: built for version {} of the machine, which says it is version {} (magic {:#x}): build both from one tree",
            abi::ABI_VERSION,
            boot.version,
            boot.magic
        );
        cpu::exit(BOOT_STATUS);
    }
    if !heap::init(boot) {
        let _ = writeln!(
            uart::Uart,
            "guest: {} bytes of RAM leave no room for a heap behind the image, which ends at {:#x}: give the machine more memory",
            boot.ram_bytes,
            boot.free_start
        );
        cpu::exit(BOOT_STATUS);
    }
    clock::init();
    irq::init();
    console::init();
    exit(guest_main())
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    console::flush();
    let _ = writeln!(uart::Uart, "guest: {info}");
    cpu::exit(PANIC_STATUS)
}

/// The precompiled core and alloc refer to this symbol. No code unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    cpu::exit(PANIC_STATUS)
}
