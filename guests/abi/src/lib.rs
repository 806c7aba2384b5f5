//! What a Lockstep machine gives its guest: ports, interrupt lines, addresses, and the two pages that
//! the machine and the guest share.
//!
//! The VMM and the guests' runtime both build on this crate, so that they cannot differ.
//! `docs/machine.md` describes the same in prose.
//!
//! # Entry
//!
//! A guest is a static x86-64 ELF file whose segments lie in `IMAGE_BASE..` (2 MiB and up). The
//! VMM enters it at `e_entry` in long mode, CPL 0, interrupts off, with paging on:
//!
//! - `rdi` = [`BOOT_INFO`], `rsp` = [`BOOT_STACK_TOP`]; all other general registers are 0.
//! - RAM is mapped one to one. Below 2 MiB: [`BOOT_INFO`] read-only and [`CLOCK_PAGE`] read-write
//!   for CPL 3, the rest (page tables, boot stack) for CPL 0 alone, page 0 not at all. The image
//!   has the rights of its ELF segments; the rest of RAM is read-write and not executable. No
//!   page is both writable and executable. All accessed and dirty bits are set beforehand.
//! - [`MMIO_BASE`]`..+`[`MMIO_LEN`] is mapped read-write and uncached.
//! - The VMM's GDT has the selectors in [`selector`]. The guest must load its own IDT and TSS; for the
//!   TSS's descriptor it needs its own GDT.
//! - CR4.OSFXSR and CR4.OSXMMEXCPT are set, XSAVE is not enabled: SSE2 works, AVX does not.
#![no_std]
#![warn(missing_docs)]

/// I/O ports.
pub mod port {
    /// 16550 UART, eight registers. IRQ [`super::irq::COM1`].
    pub const COM1: u16 = 0x3f8;
    /// Master 8259: command, data.
    pub const PIC1: u16 = 0x20;
    /// Slave 8259: command, data.
    pub const PIC2: u16 = 0xa0;
    /// 8254: three counters and the control word. Counter 0 drives [`super::irq::PIT`].
    pub const PIT: u16 = 0x40;
    /// `OUT dx, eax`: the guest has nothing to do. `eax` is the low half of
    /// [`super::ClockPage::activity`] as the guest last read it. The machine stops the vCPU until the
    /// count differs from `eax`, guest time reaches `wake_at_ns`, or an interrupt can be delivered. So
    /// an input that arrives between reading the count and idling still wakes the guest.
    pub const IDLE: u16 = 0xe0;
    /// `OUT imm8, al`: [`super::ClockPage::edges_left`] has reached 0. The machine adds a quantum
    /// ([`super::BootInfo::quantum`]) to it; the value of `al` is ignored. This exit gives the machine
    /// a position inside a computation.
    pub const QUANTUM: u16 = 0xe4;
    /// `OUT dx, eax`: the guest ends; `eax` is its exit status.
    pub const EXIT: u16 = 0xf4;

    // What only a machine for Linux has.

    /// 8042: data. The command port is [`KEYBOARD_COMMAND`].
    pub const KEYBOARD: u16 = 0x60;
    /// Gate and output of the 8254's counter 2.
    pub const SPEAKER: u16 = 0x61;
    /// 8042: command and status.
    pub const KEYBOARD_COMMAND: u16 = 0x64;
    /// The battery-backed clock: index, data.
    pub const CMOS: u16 = 0x70;
    /// Edge or level, a bit for each line of the 8259 pair: two bytes, which are only kept.
    pub const TRIGGERS: u16 = 0x4d0;
    /// ACPI's fixed hardware, [`POWER_LEN`] ports: what follows is relative to it.
    pub const POWER: u16 = 0x600;
    /// PM1a event block: status and enable, two bytes each.
    pub const POWER_EVENTS: u16 = 0;
    /// PM1a control block: two bytes.
    pub const POWER_CONTROL: u16 = 4;
    /// The power management timer: four bytes.
    pub const POWER_TIMER: u16 = 8;
    /// Reset register: one byte.
    pub const POWER_RESET: u16 = 12;
    /// Ports of ACPI's fixed hardware.
    pub const POWER_LEN: u16 = 13;
    /// What is written to [`POWER_RESET`] to reset the machine.
    pub const RESET_VALUE: u8 = 1;
}

/// Lines of the 8259 pair.
pub mod irq {
    /// Counter 0 of the 8254.
    pub const PIT: u8 = 0;
    /// The 16550.
    pub const COM1: u8 = 4;
    /// virtio-net.
    pub const NET: u8 = 5;
    /// virtio-rng.
    pub const RNG: u8 = 9;
    /// virtio-console.
    pub const CONSOLE: u8 = 10;
    /// ACPI's events, of which there are none. Only in a machine for Linux.
    pub const POWER: u8 = 11;
}

/// Selectors in the GDT that the VMM provides at entry.
pub mod selector {
    /// CPL 0 code, 64 bit.
    pub const KERNEL_CODE: u16 = 0x08;
    /// CPL 0 data.
    pub const KERNEL_DATA: u16 = 0x10;
}

/// Guest-physical address of the [`BootInfo`] page.
pub const BOOT_INFO: u64 = 0x6000;
/// Top of the 4 KiB stack on which the guest starts.
pub const BOOT_STACK_TOP: u64 = 0x8000;
/// Guest-physical address of the [`ClockPage`].
pub const CLOCK_PAGE: u64 = 0x8000;
/// Lowest address of a guest's image.
pub const IMAGE_BASE: u64 = 0x20_0000;
/// Address of the first virtio-mmio window; window `n` is at `MMIO_BASE + n * MMIO_STRIDE`.
pub const MMIO_BASE: u64 = 0xd000_0000;
/// Distance between two virtio-mmio windows, bytes.
pub const MMIO_STRIDE: u64 = 0x1000;
/// Size of the address range for devices, bytes (one 2 MiB page).
pub const MMIO_LEN: u64 = 0x20_0000;
/// Window of virtio-net. Without a network there is no device, and the magic value reads as 0.
pub const MMIO_NET: u64 = MMIO_BASE;
/// Window of virtio-console.
pub const MMIO_CONSOLE: u64 = MMIO_BASE + MMIO_STRIDE;
/// Window of virtio-rng.
pub const MMIO_RNG: u64 = MMIO_BASE + 3 * MMIO_STRIDE;
/// The HPET's window, in a machine for Linux: where PCs have it.
pub const MMIO_HPET: u64 = 0xfed0_0000;
/// RAM must end here or below: the addresses from here on are kept for devices.
pub const RAM_MAX: u64 = 0xc000_0000;

/// [`BootInfo::magic`]: `LOCKSTEP`.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"LOCKSTEP");
/// [`BootInfo::version`] of this crate.
pub const ABI_VERSION: u32 = 2;

/// What the machine tells the guest once, before its first instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`].
    pub version: u32,
    /// 1 if there is a virtio-net device, else 0.
    pub has_net: u32,
    /// Size of RAM, bytes; it begins at address 0.
    pub ram_bytes: u64,
    /// First byte after the image, page-aligned: the guest's heap may begin here.
    pub free_start: u64,
    /// A random number, chosen for this machine, the same on primary and backup.
    pub seed: u64,
    /// Wall clock at boot, nanoseconds since 1970; add [`ClockPage::now_ns`].
    pub wall_ns: u64,
    /// Branch edges from one exit at [`port::QUANTUM`] to the next; 0 if the machine does not count
    /// edges.
    pub quantum: u64,
    /// IPv4 address.
    pub ip: [u8; 4],
    /// IPv4 gateway, zero if none.
    pub gateway: [u8; 4],
    /// Length of the IPv4 prefix, bits.
    pub prefix_len: u8,
    /// MAC address.
    pub mac: [u8; 6],
    /// 1 if the machine makes exits inside computation by itself, so that interrupts come there although no
    /// edge is counted and [`BootInfo::quantum`] is 0.
    pub preempts: u8,
}

impl BootInfo {
    /// Do interrupts come to a program that only computes?
    pub fn interrupts_computing(&self) -> bool {
        self.quantum != 0 || self.preempts != 0
    }
}

/// The paravirtual clock. The machine writes it at positions; the guest reads it without an exit.
///
/// `wake_at_ns` is written by the guest alone, `edges_left` by both.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockPage {
    /// Guest time since boot, nanoseconds. It never goes back, and changes at positions only.
    pub now_ns: u64,
    /// Counts what the machine delivered: frames, console input, timer expiries.
    pub activity: u64,
    /// Written by the guest: an idle wait ends when `now_ns` reaches it. `u64::MAX`: time does not end
    /// the wait.
    pub wake_at_ns: u64,
    /// The software instruction counter: branch edges until the next exit at [`port::QUANTUM`], as an
    /// `i64`. The guest's instrumentation subtracts 1 per edge and makes the exit when the result is 0
    /// or less. So on a machine that adds nothing, every further edge makes an exit. The machine sets
    /// it before entry, to `i64::MAX` if it does not count. From its value at a position follows how
    /// many edges were passed before. Precompiled library code and assembly are not counted.
    pub edges_left: u64,
}
