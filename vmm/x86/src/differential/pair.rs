//! Both processors, with the same memory and the same code.

use super::assemble::{Assembled, assemble};
use super::compare::{Differences, FLAGS, registers_differ};
use super::generate::Case;
use super::layout;
use super::native::{self, Native, Registers};
use super::random::Random;
use super::soft::{self, Soft};
use crate::state::Mode;
use iced_x86::{Code, Instruction, OpKind};

const PAGE: usize = 4096;
/// What was written is restored by so many bytes.
const LINE: usize = 64;

/// Which memory is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Pages that this CPU wrote to. What the host wrote elsewhere stays there.
    Written,
    /// All of it.
    All,
}

/// Both processors.
pub struct Pair {
    native: Native,
    /// This CPU.
    pub soft: Soft,
    /// What memory holds before each case, by area.
    before: Vec<Vec<u8>>,
    /// Is what vendors do in different ways left out?
    masked: bool,
    /// The code's area, with the code that is loaded.
    code: Vec<u8>,
    /// So many bytes of it are code.
    code_len: usize,
    page: Box<[u8; PAGE]>,
}

impl Pair {
    /// Both, with random data in memory, always the same.
    pub fn new(masked: bool) -> Pair {
        let mut random = Random(1);
        let mut native = Native::new(&layout::AREAS);
        let soft = Soft::new();
        let mut before = Vec::new();
        for (number, area) in layout::AREAS.iter().enumerate() {
            let mut bytes = vec![0; area.len];
            for chunk in bytes.chunks_mut(8) {
                let value = match random.one_in(2) {
                    true => random.value(),
                    false => random.float_bits(),
                };
                chunk.copy_from_slice(&value.to_le_bytes());
            }
            soft.write(area.at, &bytes);
            native.bytes_mut(number).copy_from_slice(&bytes);
            before.push(bytes);
        }
        native.protect();
        let code = soft::empty_code_area();
        native.bytes_mut(0).copy_from_slice(&code);
        soft.write(layout::CODE.at, &code);
        Pair {
            native,
            soft,
            before,
            masked,
            code,
            code_len: 0,
            page: Box::new([0; PAGE]),
        }
    }

    /// Runs code on both and compares. None: it does not come to an end.
    pub fn compare(&mut self, case: &Case) -> Option<(Differences, Registers)> {
        let code = assemble(&case.code, layout::CODE.at, case.mode);
        self.load(&code, case.mode);
        self.compare_loaded(case, &code, Look::All)
    }

    /// Is memory, code too, as it was before the first case?
    pub fn rest_is_untouched(&mut self) -> bool {
        let mut differences = Vec::new();
        self.compare_memory(&mut differences, Look::All);
        differences.is_empty() && *self.native.bytes_mut(0) == self.code[..]
    }

    /// Puts code into both memories.
    pub fn load(&mut self, code: &Assembled, mode: Mode) {
        let before = self.code_len;
        self.code[..before].fill(0xcc);
        self.code_len = soft::put_code(&mut self.code, &code.bytes, mode);
        let changed = &self.code[..before.max(self.code_len)];
        self.native.bytes_mut(0)[..changed.len()].copy_from_slice(changed);
        self.soft.load_area(changed);
    }

    /// The same for code that is loaded. None too if a repeated instruction wrote over it.
    pub fn compare_loaded(
        &mut self,
        case: &Case,
        code: &Assembled,
        memory: Look,
    ) -> Option<(Differences, Registers)> {
        let end = code.end();
        let mut before = Registers::NEW;
        (before.r, before.rflags, before.rip) = (case.r, case.rflags, layout::CODE.at);
        before.fx = case.fx;
        let Some(theirs) = self.soft.run(&before, end, case.mode) else {
            self.compare_memory(&mut Vec::new(), Look::All);
            self.restore_code();
            return None;
        };
        let pages = [layout::CODE.at, layout::CODE.at + PAGE as u64];
        let over_code = pages
            .iter()
            .filter(|page| self.soft.take_dirty(**page))
            .count()
            != 0;
        if over_code && case.code.iter().any(repeats) {
            self.compare_memory(&mut Vec::new(), Look::All);
            self.restore_code();
            return None;
        }
        let mut ours = self.native.run(&before, case.mode);
        if ours.trap == native::NO_TRAP {
            ours.rip = end;
        }
        let faulting = code.starts.iter().position(|start| *start == ours.rip);
        if matches!(ours.trap, 12..=14)
            && let Some(instruction) = faulting.and_then(|index| case.code.get(index))
            && reaches_memory_from_mmx(instruction)
        {
            // The host has made these MMX registers or not, by what fault it was and where the top was.
            for part in [2..5, 32..160] {
                ours.fx.0[part.clone()].copy_from_slice(&theirs.fx.0[part]);
            }
        }
        if self.masked
            && let Some(instruction) = faulting.and_then(|index| case.code.get(index))
            && matches!(instruction.code(), Code::Pushfq | Code::Pushfd)
        {
            // What was to be cleared is still there.
            ours.rflags = theirs.rflags;
        }
        let mut differences = registers_differ(&ours, &theirs, self.masked);
        self.compare_memory(&mut differences, memory);
        if over_code {
            self.restore_code();
        }
        Some((differences, theirs))
    }

    /// Compares what was written to, and restores it. Pages that this CPU did not write to are to hold what
    /// they held before.
    fn compare_memory(&mut self, differences: &mut Differences, look: Look) {
        for area in layout::WRITTEN {
            let start = layout::AREAS[area].at;
            for at in (0..layout::AREAS[area].len).step_by(PAGE) {
                let address = start + at as u64;
                let before = &self.before[area][at..at + PAGE];
                let dirty = self.soft.take_dirty(address);
                if !dirty && look == Look::Written {
                    continue;
                }
                if dirty {
                    self.soft.read_into(address, &mut self.page[..]);
                }
                let theirs = if dirty { &self.page[..] } else { before };
                let ours = &mut self.native.bytes_mut(area)[at..at + PAGE];
                if ours != theirs {
                    note_difference(address, ours, theirs, differences);
                    ours.copy_from_slice(before);
                    self.soft.write(address, before);
                } else if dirty {
                    let lines = ours.chunks_mut(LINE).zip(before.chunks(LINE));
                    for (index, (line, before)) in lines.enumerate() {
                        if line != before {
                            line.copy_from_slice(before);
                            self.soft.write(address + (index * LINE) as u64, before);
                        }
                    }
                }
            }
        }
    }

    /// What code wrote over itself.
    fn restore_code(&mut self) {
        self.native.bytes_mut(0).copy_from_slice(&self.code);
        self.soft.load_area(&self.code);
    }

    /// The one instruction that differs, if it does so alone, with what it began with.
    pub fn shrink(&mut self, case: &Case) -> Case {
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
                mode: case.mode,
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

fn note_difference(address: u64, ours: &[u8], theirs: &[u8], differences: &mut Differences) {
    let first = (0..ours.len()).find(|n| ours[*n] != theirs[*n]);
    let offset = first.expect("they are not equal");
    differences.push(format!(
        "memory at {:#x}: host {:02x}, here {:02x}",
        address + offset as u64,
        ours[offset],
        theirs[offset]
    ));
}

/// Does it run more than once?
fn repeats(instruction: &Instruction) -> bool {
    instruction.has_rep_prefix() || instruction.has_repne_prefix()
}

/// Is one operand an MMX register and one memory?
fn reaches_memory_from_mmx(instruction: &Instruction) -> bool {
    let mut registers = (0..instruction.op_count()).map(|index| instruction.op_register(index));
    let memory = |kind| {
        matches!(
            kind,
            OpKind::Memory | OpKind::MemorySegRDI | OpKind::MemorySegEDI
        )
    };
    registers.any(|register| register.is_mm()) && instruction.op_kinds().any(memory)
}
