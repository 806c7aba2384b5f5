//! This CPU in the place of a process: 64-bit user mode, with the same memory at the same addresses.

use super::layout;
use super::native::{NO_TRAP, Native, Registers};
use crate::engine::{Engine, Event};
use crate::fpu::Fpu;
use crate::segments::null_segment;
use crate::state::seg;
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::state::{Attributes, Segment};

/// Page tables begin here.
const TABLES: u64 = 0x1000;
/// Areas lie from here on, one after the other.
const AREAS: u64 = 0x10_0000;
/// Code that makes so many steps does not come to an end.
const STEPS: u64 = 20_000;

/// This CPU.
pub struct Soft {
    engine: Engine,
    ram: Ram,
}

/// Code, and a jump to [`Native::end`] behind it.
pub fn with_way_out(code: &[u8]) -> Vec<u8> {
    // jmp [WAY_OUT]
    let jump = [0xff, 0x24, 0x25];
    [code, &jump, &(layout::WAY_OUT as u32).to_le_bytes()].concat()
}

fn physical(address: u64) -> u64 {
    let mut start = AREAS;
    for area in layout::AREAS {
        if (area.at..area.at + area.len as u64).contains(&address) {
            return start + (address - area.at);
        }
        start += area.len as u64;
    }
    panic!("{address:#x} is in no area");
}

/// Maps the areas for a user.
fn map(ram: &Ram) {
    const PRESENT_WRITABLE_USER: u64 = 7;
    let mut next = TABLES + 0x1000;
    for area in layout::AREAS {
        for page in (0..area.len as u64).step_by(4096) {
            let address = area.at + page;
            let mut table = TABLES;
            for shift in [39, 30, 21] {
                let place = table + 8 * (address >> shift & 511);
                let mut entry = ram.read_u64(place).unwrap();
                if entry == 0 {
                    entry = next | PRESENT_WRITABLE_USER;
                    next += 0x1000;
                    ram.write_u64(place, entry).unwrap();
                }
                table = entry & !0xfff;
            }
            let rights = if area.writable { 7 } else { 5 };
            let place = table + 8 * (address >> 12 & 511);
            ram.write_u64(place, physical(address) | rights).unwrap();
        }
    }
}

impl Soft {
    /// With the areas mapped.
    pub fn new() -> Soft {
        let ram = Ram::new(MIN_MIB).unwrap();
        map(&ram);
        let mut engine = Engine::new(ram.clone());
        let cpu = &mut engine.cpu;
        cpu.control.cr0 = 0x8005_0033;
        cpu.control.cr3 = TABLES;
        cpu.control.cr4 = 0x620;
        // SCE, LME, LMA and NXE.
        cpu.control.efer = 0xd01;
        let code = Segment {
            limit: 0xffff_ffff,
            selector: 0x33,
            attributes: Attributes {
                type_: 11,
                present: 1,
                dpl: 3,
                s: 1,
                l: 1,
                g: 1,
                ..Attributes::default()
            },
            ..Segment::default()
        };
        cpu.segments = [null_segment(0); 8];
        cpu.segments[usize::from(seg::CS)] = code;
        cpu.set_cpl(3);
        ram.write_u64(physical(layout::WAY_OUT), Native::end())
            .unwrap();
        Soft { engine, ram }
    }

    /// Writes to an area.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.ram.write(physical(address), data).unwrap();
    }

    /// Reads from an area.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read(physical(address), &mut data).unwrap();
        data
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.engine.cpu.steps()
    }

    /// Runs the code that is loaded from its first byte to `end`, or to a fault. None: it comes to neither.
    pub fn run(&mut self, before: &Registers, end: u64) -> Option<Registers> {
        self.begin(before);
        self.go_on(STEPS, before, end)
    }

    /// The same without a limit.
    pub fn run_on(&mut self, before: &Registers, end: u64) -> Registers {
        self.begin(before);
        let after = self.go_on(u64::MAX / 2, before, end);
        after.expect("it ends")
    }

    /// The same with so many steps granted at a time.
    pub fn run_sliced(
        &mut self,
        before: &Registers,
        end: u64,
        slice: &mut dyn FnMut() -> u64,
    ) -> Option<Registers> {
        self.begin(before);
        let limit = self.steps() + STEPS;
        while self.steps() < limit {
            let after = self.go_on(slice(), before, end);
            if after.is_some() {
                return after;
            }
        }
        None
    }

    /// Puts code into memory, with the jump that ends it.
    pub fn load(&mut self, code: &[u8]) {
        self.write(layout::CODE.at, &with_way_out(code));
        self.engine.drop_overwritten();
    }

    fn begin(&mut self, before: &Registers) {
        let cpu = &mut self.engine.cpu;
        cpu.r[..16].copy_from_slice(&before.r);
        cpu.set_rflags(before.rflags);
        cpu.rip = before.rip;
        cpu.fpu = Fpu::from_fxsave(before.fx.0[..416].try_into().unwrap());
    }

    fn go_on(&mut self, steps: u64, before: &Registers, end: u64) -> Option<Registers> {
        self.engine.revoke();
        self.engine.grant(steps);
        let mut after = *before;
        match self.engine.run() {
            Event::Budget => return None,
            Event::Exception(_) if self.engine.began == Native::end() => after.trap = NO_TRAP,
            Event::Exception(exception) => {
                after.trap = u64::from(exception.vector);
                after.code = u64::from(exception.code.unwrap_or(0));
                after.cr2 = exception.detail.unwrap_or(0);
            }
            other @ (Event::Exit(_) | Event::Unsupported(_)) => panic!("{other:?}"),
        }
        let cpu = &self.engine.cpu;
        after.r.copy_from_slice(&cpu.r[..16]);
        after.rflags = cpu.rflags();
        after.rip = match after.trap {
            NO_TRAP => end,
            _ => cpu.rip,
        };
        after.fx.0[..416].copy_from_slice(&cpu.fpu.fxsave());
        Some(after)
    }
}
