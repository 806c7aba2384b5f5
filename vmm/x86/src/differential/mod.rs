//! This CPU against the host's: random code, run on both, everything compared.
//!
//! Left out is what a process must not or cannot do: system calls and software interrupts, loading segment
//! registers, single steps and alignment checks (TF and AC), what tells of the host (CPUID, RDTSC and
//! descriptor tables), and what is computed in software (x87 functions, approximations of reciprocals).

pub mod generate;
pub mod native;
pub mod soft;
mod speed;
pub mod x87;

use crate::forms::{self, Meaning};
use generate::{Case, Generator, assemble, names};
use iced_x86::{Code, Formatter, Instruction, Mnemonic, NasmFormatter, OpCodeOperandKind as Kind};
use native::{Native, Registers};
use soft::Soft;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Where things lie, for both.
pub mod layout {
    use super::native::Area;

    /// Code.
    pub const CODE: Area = Area {
        at: 0x1000_0000,
        len: 0x2000,
        writable: true,
    };
    /// Data, with nothing before it.
    pub const DATA: Area = Area {
        at: 0x1100_0000,
        len: 0x2000,
        writable: true,
    };
    /// Data that may only be read, with nothing after it.
    pub const CONSTANT: Area = Area {
        at: 0x1100_2000,
        len: 0x1000,
        writable: false,
    };
    /// The stack.
    pub const STACK: Area = Area {
        at: 0x1200_0000,
        len: 0x2000,
        writable: true,
    };
    /// All of them, by the numbers that [`super::native::Native::bytes`] takes.
    pub const AREAS: [Area; 4] = [CODE, DATA, CONSTANT, STACK];
    /// Those that code writes to.
    pub const WRITTEN: [usize; 2] = [1, 3];
    /// Where the address lies that native code jumps to at its end.
    pub const WAY_OUT: u64 = CODE.at + CODE.len as u64 - 8;
}

/// What differs, in words. Empty: nothing.
type Differences = Vec<String>;

/// Flags that are compared: the status flags, DF, NT and ID.
const FLAGS: u64 = 0x20_4cd5;

/// What is compared of an FXSAVE area, and where it lies there.
#[rustfmt::skip]
const FLOATING_POINT: [(&str, usize, usize); 31] = [
    ("FCW", 0, 2), ("FSW", 2, 2), ("FTW", 4, 1), ("MXCSR", 24, 4),
    ("FOP", 6, 2), ("FIP", 8, 8), ("FDP", 16, 8),
    ("ST0", 32, 10), ("ST1", 48, 10), ("ST2", 64, 10), ("ST3", 80, 10),
    ("ST4", 96, 10), ("ST5", 112, 10), ("ST6", 128, 10), ("ST7", 144, 10),
    ("XMM0", 160, 16), ("XMM1", 176, 16), ("XMM2", 192, 16), ("XMM3", 208, 16),
    ("XMM4", 224, 16), ("XMM5", 240, 16), ("XMM6", 256, 16), ("XMM7", 272, 16),
    ("XMM8", 288, 16), ("XMM9", 304, 16), ("XMM10", 320, 16), ("XMM11", 336, 16),
    ("XMM12", 352, 16), ("XMM13", 368, 16), ("XMM14", 384, 16), ("XMM15", 400, 16),
];

/// Bytes of this CPU's linear addresses.
const LINEAR_BYTES: usize = 6;

/// Both processors, with the same memory.
struct Pair {
    native: Native,
    soft: Soft,
    /// What memory holds before each case, by area.
    before: Vec<Vec<u8>>,
}

impl Pair {
    fn new() -> Pair {
        let mut random = generate::Random(1);
        let mut native = Native::new(&layout::AREAS);
        let soft = Soft::new();
        let mut before = Vec::new();
        for (number, area) in layout::AREAS.iter().enumerate() {
            let mut bytes = vec![0xcc; area.len];
            if number > 0 {
                for chunk in bytes.chunks_mut(8) {
                    let value = match random.one_in(2) {
                        true => random.value(),
                        false => random.float_bits(),
                    };
                    chunk.copy_from_slice(&value.to_le_bytes());
                }
            }
            if number == 0 {
                let way_out = area.len - 8;
                bytes[way_out..].copy_from_slice(&Native::end().to_le_bytes());
            }
            soft.write(area.at, &bytes);
            native.bytes_mut(number).copy_from_slice(&bytes);
            before.push(bytes);
        }
        native.protect();
        Pair {
            native,
            soft,
            before,
        }
    }

    /// Runs code on both and compares. None: it does not come to an end.
    fn compare(&mut self, case: &Case) -> Option<(Differences, Registers)> {
        let code = assemble(&case.code, layout::CODE.at);
        self.load(&code.0);
        self.compare_loaded(case, &code)
    }

    /// Puts code into both memories.
    fn load(&mut self, bytes: &[u8]) {
        let code = soft::with_way_out(bytes);
        self.native.bytes_mut(0)[..code.len()].copy_from_slice(&code);
        self.soft.load(bytes);
    }

    /// The same for code that is loaded.
    fn compare_loaded(
        &mut self,
        case: &Case,
        (_, starts): &(Vec<u8>, Vec<u64>),
    ) -> Option<(Differences, Registers)> {
        let end = *starts.last().expect("an end");
        let mut before = Registers::NEW;
        (before.r, before.rflags, before.rip) = (case.r, case.rflags, layout::CODE.at);
        before.fx = case.fx;
        for area in layout::WRITTEN {
            self.native
                .bytes_mut(area)
                .copy_from_slice(&self.before[area]);
            self.soft.write(layout::AREAS[area].at, &self.before[area]);
        }
        let theirs = self.soft.run(&before, end)?;
        let mut ours = self.native.run(&before);
        if ours.trap == native::NO_TRAP {
            ours.rip = end;
        }
        let faulting = starts.iter().position(|start| *start == ours.rip);
        if let Some(instruction) = faulting.and_then(|index| case.code.get(index))
            && reaches_memory_from_mmx(instruction)
            && matches!(ours.trap, 12..=14)
        {
            // The host has made these MMX registers or not, by what fault it was and where the top was.
            for part in [2..5, 32..160] {
                ours.fx.0[part.clone()].copy_from_slice(&theirs.fx.0[part]);
            }
        }
        let mut differences = registers_differ(&ours, &theirs);
        for area in layout::WRITTEN {
            self.memory_differs(area, &mut differences);
        }
        Some((differences, theirs))
    }

    fn memory_differs(&mut self, area: usize, differences: &mut Differences) {
        let at = layout::AREAS[area].at;
        let theirs = self.soft.read(at, layout::AREAS[area].len);
        let ours = self.native.bytes(area);
        if ours == theirs {
            return;
        }
        let first = (0..ours.len()).find(|n| ours[*n] != theirs[*n]);
        let offset = first.expect("they are not equal");
        differences.push(format!(
            "memory at {:#x}: host {:02x}, here {:02x}",
            at + offset as u64,
            ours[offset],
            theirs[offset]
        ));
    }

    /// The one instruction that differs, if it does so alone, with what it began with.
    fn shrink(&mut self, case: &Case) -> Case {
        for len in 1..=case.code.len() {
            let prefix = Case {
                code: case.code[..len].to_vec(),
                ..case.clone()
            };
            let Some((differences, _)) = self.compare(&prefix) else {
                continue;
            };
            if differences.is_empty() {
                continue;
            }
            // From the registers that it began with, on memory as it was at first: most need no more.
            let mut start = prefix.clone();
            start.code.pop();
            let Some((_, registers)) = self.compare(&start) else {
                return prefix;
            };
            let alone = Case {
                code: vec![case.code[len - 1]],
                r: registers.r,
                rflags: registers.rflags & FLAGS | 0x202,
                fx: registers.fx,
            };
            return match self.compare(&alone) {
                Some((differences, _)) if !differences.is_empty() => alone,
                _ => prefix,
            };
        }
        case.clone()
    }
}

fn registers_differ(ours: &Registers, theirs: &Registers) -> Differences {
    let mut differences = Vec::new();
    let mut note = |name: &str, ours: u64, theirs: u64| {
        if ours != theirs {
            differences.push(format!("{name}: host {ours:#x}, here {theirs:#x}"));
        }
    };
    for (number, name) in names().iter().enumerate() {
        note(&format!("{name:?}"), ours.r[number], theirs.r[number]);
    }
    note("RFLAGS", ours.rflags & FLAGS, theirs.rflags & FLAGS);
    note("RIP", ours.rip, theirs.rip);
    note("vector", ours.trap, theirs.trap);
    for (name, at, len) in FLOATING_POINT {
        let number = |registers: &Registers| {
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(&registers.fx.0[at..at + len]);
            if matches!(name, "FIP" | "FDP") {
                // The host's linear addresses may have more bits.
                bytes[LINEAR_BYTES..].fill(0);
            }
            u128::from_le_bytes(bytes)
        };
        let (ours, theirs) = (number(ours), number(theirs));
        note(name, ours as u64, theirs as u64);
        note(name, (ours >> 64) as u64, (theirs >> 64) as u64);
    }
    if ours.trap == theirs.trap && ours.trap != native::NO_TRAP {
        let kernel_half = ours.trap == 14 && ours.cr2 >= (1 << 47) - 4096;
        // The kernel hides from a process what is mapped beyond the process's last page.
        let hidden = u64::from(kernel_half);
        note("error code", ours.code | hidden, theirs.code | hidden);
        if ours.trap == 14 {
            note("CR2", ours.cr2, theirs.cr2);
        }
    }
    differences
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    NasmFormatter::new().format(instruction, &mut text);
    format!("{text} ({:?})", instruction.code())
}

fn report(pair: &mut Pair, small: &Case, seed: u64) -> String {
    let mut report = format!("seed {seed:#x}:\n");
    for instruction in &small.code {
        let _ = writeln!(report, "    {}", text(instruction));
    }
    for (name, value) in names().iter().zip(small.r) {
        let _ = write!(report, "{name:?}={value:#x} ");
    }
    let _ = writeln!(report, "RFLAGS={:#x}", small.rflags);
    let named = |name: &str| {
        let registers = small.code.iter().flat_map(|instruction| {
            (0..instruction.op_count()).map(|index| instruction.op_register(index))
        });
        let mut all = registers.map(|register| format!("{register:?}"));
        name == "MXCSR" || all.any(|register| register == name)
    };
    for (name, at, len) in FLOATING_POINT.into_iter().filter(|(name, ..)| named(name)) {
        let bytes: String = small.fx.0[at..at + len]
            .iter()
            .rev()
            .map(|b| format!("{b:02x}"))
            .collect();
        let _ = write!(report, "{name}={bytes} ");
    }
    report.push('\n');
    let _ = writeln!(report, "{}", x87::text(&small.fx.0));
    let differences = pair.compare(small).map_or_else(Vec::new, |found| found.0);
    for difference in differences {
        let _ = writeln!(report, "  {difference}");
    }
    report
}

/// Forms that a process can run, and that this CPU does.
pub fn forms() -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            let real = info.is_instruction() && info.mode64();
            real && does(*code) && !left_out(*code)
        })
        .collect()
}

/// SSE and SSE2, and FXSAVE and FXRSTOR.
fn sse(code: Code) -> bool {
    use iced_x86::CpuidFeature as F;
    let features = code.cpuid_features();
    features
        .iter()
        .any(|feature| matches!(feature, F::SSE | F::SSE2 | F::FXSR))
}

/// Is one operand an MMX register and one memory?
fn reaches_memory_from_mmx(instruction: &Instruction) -> bool {
    let mut registers = (0..instruction.op_count()).map(|index| instruction.op_register(index));
    registers.any(|register| register.is_mm())
        && instruction.op_kinds().any(|kind| {
            matches!(
                kind,
                iced_x86::OpKind::Memory | iced_x86::OpKind::MemorySegRDI
            )
        })
}

/// x87 and MMX.
fn x87(code: Code) -> bool {
    use iced_x86::CpuidFeature as F;
    let features = code.cpuid_features();
    features
        .iter()
        .any(|feature| matches!(feature, F::FPU | F::FPU287 | F::FPU387 | F::MMX))
}

/// Is it done here?
fn does(code: Code) -> bool {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    matches!(forms::meaning(&instruction), Meaning::Does(_))
}

/// See the module's documentation.
#[rustfmt::skip]
fn left_out(code: Code) -> bool {
    use Mnemonic as M;
    let segment = ["_Sreg", "_FS", "_GS", "_SS", "_DS", "_ES", "_CS"];
    let name = format!("{code:?}");
    // Near branches of 16 bits are AMD's; here, as on Intel's, the prefix does nothing.
    if code.op_code().op_kinds().iter().any(|kind| matches!(kind, Kind::br16_1 | Kind::br16_2)) {
        return true;
    }
    match code.mnemonic() {
        M::Syscall | M::Int | M::Int1 | M::Retf | M::Iret | M::Iretd | M::Iretq | M::Sysret | M::Sysretq
        | M::Cpuid | M::Rdtsc | M::Rdpmc | M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw
        | M::Lar | M::Lsl | M::Verr | M::Verw | M::Lfs | M::Lgs | M::Lss | M::Ret => true,
        M::Mov | M::Push | M::Pop => segment.iter().any(|s| name.contains(s)),
        // Through a register or memory they go anywhere.
        M::Jmp | M::Call => !name.contains("_rel"),
        M::Ud0 | M::Ud1 => true,
        M::Rcpss | M::Rcpps | M::Rsqrtss | M::Rsqrtps => true,
        M::F2xm1 | M::Fcos | M::Fpatan | M::Fptan | M::Fsin | M::Fsincos | M::Fyl2x | M::Fyl2xp1 => true,
        _ => false,
    }
}

/// Each piece of code runs so often, each time with other registers.
const VARIANTS: u64 = 4;

/// What a campaign came to.
struct Campaign {
    /// Pieces of code, each with its registers.
    cases: u64,
    /// Instructions that this CPU ran, and the host's with it.
    steps: u64,
    /// What differed, by form.
    found: BTreeMap<String, String>,
    /// Forms that were reached.
    reached: Vec<Code>,
}

/// Compares until `until` says stop, or enough is found.
fn campaign(seed: u64, forms: &[Code], until: impl Fn(u64, Instant) -> bool) -> Campaign {
    let mut pair = Pair::new();
    let began = Instant::now();
    let mut found = BTreeMap::new();
    let mut reached = HashSet::new();
    let mut cases = 0;
    while !until(cases, began) && found.len() < 40 {
        let case_seed = seed.wrapping_add(cases);
        let mut generator = Generator::new(case_seed);
        let len = 10 + generator.random.below(21) as usize;
        let mut case = generator.case(forms, len);
        let code = assemble(&case.code, layout::CODE.at);
        pair.load(&code.0);
        for variant in 0..VARIANTS {
            if variant > 0 {
                generator.vary(&mut case);
            }
            cases += 1;
            let Some((differences, after)) = pair.compare_loaded(&case, &code) else {
                continue;
            };
            // Code goes forward only.
            let run = case.code.iter().zip(&code.1);
            let run = run.filter(|(_, start)| **start <= after.rip);
            reached.extend(run.map(|(instruction, _)| instruction.code()));
            if !differences.is_empty() {
                let small = pair.shrink(&case);
                let last = small.code.last().expect("an instruction").code();
                let report = report(&mut pair, &small, case_seed);
                found.entry(format!("{last:?}")).or_insert(report);
                pair.load(&code.0);
            }
        }
    }
    Campaign {
        cases,
        steps: pair.soft.steps(),
        found,
        reached: reached.into_iter().collect(),
    }
}

fn seed() -> u64 {
    match std::env::var("LOCKSTEP_SEED") {
        Ok(text) => {
            let digits = text.trim_start_matches("0x");
            u64::from_str_radix(digits, 16).expect("LOCKSTEP_SEED is a hexadecimal number")
        }
        Err(_) => 0x10c5,
    }
}

fn expect_no_difference(found: &BTreeMap<String, String>) {
    for report in found.values() {
        println!("{report}");
    }
    let names: Vec<&String> = found.keys().collect();
    assert!(found.is_empty(), "{} forms differ: {names:?}", found.len());
}

/// Runs a campaign, and expects that nothing differs.
fn expect_equal(forms: &[Code], until: impl Fn(u64, Instant) -> bool) {
    let began = Instant::now();
    let campaign = campaign(seed(), forms, until);
    println!(
        "seed {:#x}: {} cases, {} instructions in {:.1} s",
        seed(),
        campaign.cases,
        campaign.steps,
        began.elapsed().as_secs_f64()
    );
    expect_no_difference(&campaign.found);
    let missing: Vec<&Code> = forms
        .iter()
        .filter(|f| !campaign.reached.contains(f))
        .collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
    println!("{} forms", campaign.reached.len());
}

/// Some seconds of it. `LOCKSTEP_SEED` gives another beginning.
#[test]
fn random_code_gives_the_same_as_on_the_host() {
    expect_equal(&forms(), |_, began| {
        began.elapsed() > Duration::from_secs(5)
    });
}

/// The same for x87 and MMX alone.
#[test]
fn random_x87_code_gives_the_same_as_on_the_host() {
    let forms: Vec<Code> = forms().into_iter().filter(|code| x87(*code)).collect();
    expect_equal(&forms, |_, began| began.elapsed() > Duration::from_secs(5));
}

/// The same for SSE alone.
#[test]
fn random_sse_code_gives_the_same_as_on_the_host() {
    let forms: Vec<Code> = forms().into_iter().filter(|code| sse(*code)).collect();
    expect_equal(&forms, |_, began| began.elapsed() > Duration::from_secs(5));
}

/// As many cases as `LOCKSTEP_CASES` says, ten millions if it does not.
#[test]
#[ignore = "takes minutes"]
fn random_code_gives_the_same_as_on_the_host_for_long() {
    let many = std::env::var("LOCKSTEP_CASES").map_or(10_000_000, |n| n.parse().expect("a number"));
    expect_equal(&forms(), |cases, _| cases >= many);
}
