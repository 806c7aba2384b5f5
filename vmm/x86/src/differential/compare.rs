//! What differs between two processors' registers, and cases in words.

use super::generate::Case;
use super::native::{self, Registers};
use super::operand::names;
use super::x87;
use iced_x86::{Formatter, Instruction, NasmFormatter};
use std::fmt::Write;

/// What differs, in words. Empty: nothing.
pub type Differences = Vec<String>;

/// Flags that are compared: the status flags, DF, NT and ID.
pub const FLAGS: u64 = 0x20_4cd5;

/// What is compared of an FXSAVE area, and where it lies there. Of the last instruction's and operand's
/// addresses only as many bytes as this CPU's linear addresses have: the host's may have more.
#[rustfmt::skip]
const FLOATING_POINT: [(&str, usize, usize); 31] = [
    ("FCW", 0, 2), ("FSW", 2, 2), ("FTW", 4, 1), ("MXCSR", 24, 4),
    ("FOP", 6, 2), ("FIP", 8, 6), ("FDP", 16, 6),
    ("ST0", 32, 10), ("ST1", 48, 10), ("ST2", 64, 10), ("ST3", 80, 10),
    ("ST4", 96, 10), ("ST5", 112, 10), ("ST6", 128, 10), ("ST7", 144, 10),
    ("XMM0", 160, 16), ("XMM1", 176, 16), ("XMM2", 192, 16), ("XMM3", 208, 16),
    ("XMM4", 224, 16), ("XMM5", 240, 16), ("XMM6", 256, 16), ("XMM7", 272, 16),
    ("XMM8", 288, 16), ("XMM9", 304, 16), ("XMM10", 320, 16), ("XMM11", 336, 16),
    ("XMM12", 352, 16), ("XMM13", 368, 16), ("XMM14", 384, 16), ("XMM15", 400, 16),
];

/// What the last x87 instruction left, which not all vendors' processors keep alike.
const POINTERS: [&str; 3] = ["FOP", "FIP", "FDP"];

/// Is all the same that is compared? Without looking closer.
fn same(ours: &Registers, theirs: &Registers, masked: bool) -> bool {
    let (a, b) = (&ours.fx.0, &theirs.fx.0);
    ours.r == theirs.r
        && (ours.rflags ^ theirs.rflags) & FLAGS == 0
        && (ours.rip, ours.trap) == (theirs.rip, theirs.trap)
        && same_trap(ours, theirs)
        && a[..5] == b[..5]
        && (masked || a[6..14] == b[6..14] && a[16..22] == b[16..22])
        && a[24..28] == b[24..28]
        && a[32..416] == b[32..416]
}

/// Of the same vector: are error code and CR2 the same?
fn same_trap(ours: &Registers, theirs: &Registers) -> bool {
    match ours.trap {
        native::NO_TRAP => true,
        14 => (ours.code, ours.cr2) == (theirs.code, theirs.cr2),
        _ => ours.code == theirs.code,
    }
}

/// Compares registers. `masked`: without what vendors do in different ways.
pub fn registers_differ(ours: &Registers, theirs: &Registers, masked: bool) -> Differences {
    let mut differences = Vec::new();
    if same(ours, theirs, masked) {
        return differences;
    }
    let mut note = |name: &dyn std::fmt::Debug, ours: u64, theirs: u64| {
        if ours != theirs {
            differences.push(format!("{name:?}: host {ours:#x}, here {theirs:#x}"));
        }
    };
    for (number, name) in names().iter().enumerate() {
        note(name, ours.r[number], theirs.r[number]);
    }
    note(&"RFLAGS", ours.rflags & FLAGS, theirs.rflags & FLAGS);
    note(&"RIP", ours.rip, theirs.rip);
    note(&"vector", ours.trap, theirs.trap);
    for (name, at, len) in FLOATING_POINT {
        if masked && POINTERS.contains(&name) {
            continue;
        }
        let number = |registers: &Registers| {
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(&registers.fx.0[at..at + len]);
            u128::from_le_bytes(bytes)
        };
        let (ours, theirs) = (number(ours), number(theirs));
        note(&name, ours as u64, theirs as u64);
        note(&name, (ours >> 64) as u64, (theirs >> 64) as u64);
    }
    if ours.trap == theirs.trap && ours.trap != native::NO_TRAP {
        let kernel_half = ours.trap == 14 && ours.cr2 >= (1 << 47) - 4096;
        // The kernel hides from a process what is mapped beyond the process's last page.
        let hidden = u64::from(kernel_half);
        note(&"error code", ours.code | hidden, theirs.code | hidden);
        if ours.trap == 14 {
            note(&"CR2", ours.cr2, theirs.cr2);
        }
    }
    differences
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    NasmFormatter::new().format(instruction, &mut text);
    format!("{text} ({:?})", instruction.code())
}

/// A case and what differs, in words.
pub fn report(case: &Case, differences: &Differences, seed: u64) -> String {
    let mut report = format!("LOCKSTEP_SEED={seed:#x}, {:?}:\n", case.mode);
    for instruction in &case.code {
        let _ = writeln!(report, "    {}", text(instruction));
    }
    for (name, value) in names().iter().zip(case.r) {
        let _ = write!(report, "{name:?}={value:#x} ");
    }
    let _ = writeln!(report, "RFLAGS={:#x}", case.rflags);
    let named = |name: &str| {
        let registers = case.code.iter().flat_map(|instruction| {
            (0..instruction.op_count()).map(|index| instruction.op_register(index))
        });
        let mut all = registers.map(|register| format!("{register:?}"));
        name == "MXCSR" || all.any(|register| register == name)
    };
    for (name, at, len) in FLOATING_POINT.into_iter().filter(|(name, ..)| named(name)) {
        let bytes = case.fx.0[at..at + len].iter().rev();
        let bytes: String = bytes.map(|b| format!("{b:02x}")).collect();
        let _ = write!(report, "{name}={bytes} ");
    }
    report.push('\n');
    let _ = writeln!(report, "{}", x87::text(&case.fx.0));
    for difference in differences {
        let _ = writeln!(report, "  {difference}");
    }
    report
}
