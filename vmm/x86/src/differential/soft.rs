//! This CPU in the place of a process: 64-bit user mode, with the same memory at the same addresses.

use super::layout;
use super::native::{CODE_32, CODE_64, DATA, GS_BASE, NO_TRAP, Native, Registers};
use crate::engine::{Engine, Event};
use crate::fpu::Fpu;
use crate::segments::null_segment;
use crate::state::{Mode, seg};
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::state::{Attributes, Segment};
use std::sync::atomic::Ordering;

/// Page tables begin here.
const TABLES: u64 = 0x1000;
/// Areas lie from here on, one after the other.
const AREAS: u64 = 0x10_0000;
/// Code that makes so many steps does not come to an end.
const STEPS: u64 = 20_000;
/// Where the descriptors lie, and where in physical memory. A user cannot reach them.
const GDT: u64 = 0xffff_8000_2000_0000;
const GDT_PHYSICAL: u64 = 0x1_0000;
/// User code in compatibility mode, user data, 64-bit user code: from selector 0x20 on.
const DESCRIPTORS: [u64; 3] = [
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
];

/// This CPU.
pub struct Soft {
    engine: Engine,
    ram: Ram,
}

/// All of the code's area, without code.
pub fn empty_code_area() -> Vec<u8> {
    let mut area = vec![0xcc; layout::CODE.len];
    let out = (layout::WAY_OUT_CODE - layout::CODE.at) as usize;
    area[out..].copy_from_slice(&way_out());
    area
}

/// Puts this code into the area, and a jump to [`Native::end`] behind it. How many bytes are there now.
pub fn put_code(area: &mut [u8], code: &[u8], mode: Mode) -> usize {
    let far = |to: u64| (to as u32).to_le_bytes();
    let mut jump = [0; 7];
    match mode {
        // jmp [WAY_OUT]
        Mode::Long => {
            jump[..3].copy_from_slice(&[0xff, 0x24, 0x25]);
            jump[3..].copy_from_slice(&far(layout::WAY_OUT));
        }
        // jmp CODE_64:WAY_OUT_CODE
        Mode::Compat32 => {
            jump[0] = 0xea;
            jump[1..5].copy_from_slice(&far(layout::WAY_OUT_CODE));
            jump[5..].copy_from_slice(&CODE_64.to_le_bytes());
        }
    }
    let end = code.len() + jump.len();
    area[..code.len()].copy_from_slice(code);
    area[code.len()..end].copy_from_slice(&jump);
    end
}

/// What stands at [`layout::WAY_OUT_CODE`]: a jump to [`Native::end`], and that address.
fn way_out() -> [u8; 14] {
    // jmp [rip]
    let mut bytes = [0xff, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[6..].copy_from_slice(&Native::end().to_le_bytes());
    bytes
}

/// A flat segment of a user.
fn flat(selector: u16) -> Segment {
    let is = |wanted: u16| u8::from(selector == wanted);
    Segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        attributes: Attributes {
            type_: if selector == DATA { 3 } else { 11 },
            present: 1,
            dpl: 3,
            db: 1 - is(CODE_64),
            s: 1,
            l: is(CODE_64),
            g: 1,
            ..Attributes::default()
        },
    }
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

/// Maps the areas for a user, and the descriptors for the supervisor.
fn map(ram: &Ram) {
    let mut next = TABLES + 0x1000;
    for area in layout::AREAS {
        for page in (0..area.len as u64).step_by(4096) {
            let address = area.at + page;
            let rights = if area.writable { 7 } else { 5 };
            map_page(ram, &mut next, address, physical(address) | rights);
        }
    }
    map_page(ram, &mut next, GDT, GDT_PHYSICAL | 3);
    for (index, descriptor) in DESCRIPTORS.into_iter().enumerate() {
        let place = GDT_PHYSICAL + 0x20 + 8 * index as u64;
        ram.write_u64(place, descriptor).unwrap();
    }
}

/// Makes this the entry for the page, in new tables from `next` on where there are none.
fn map_page(ram: &Ram, next: &mut u64, address: u64, mapping: u64) {
    const PRESENT_WRITABLE_USER: u64 = 7;
    let mut table = TABLES;
    for shift in [39, 30, 21] {
        let place = table + 8 * (address >> shift & 511);
        let mut entry = ram.read_u64(place).unwrap();
        if entry == 0 {
            entry = *next | PRESENT_WRITABLE_USER;
            *next += 0x1000;
            ram.write_u64(place, entry).unwrap();
        }
        table = entry & !0xfff;
    }
    ram.write_u64(table + 8 * (address >> 12 & 511), mapping)
        .unwrap();
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
        cpu.segments = [null_segment(0); 8];
        for (register, selector) in [
            (seg::CS, CODE_64),
            (seg::SS, DATA),
            (seg::DS, DATA),
            (seg::ES, DATA),
        ] {
            cpu.segments[usize::from(register)] = flat(selector);
        }
        cpu.segments[usize::from(seg::GS)].base = GS_BASE;
        cpu.tables[0] = (GDT, 0x37);
        cpu.set_cpl(3);
        Soft { engine, ram }
    }

    /// Writes to an area.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.ram.write(physical(address), data).unwrap();
    }

    /// Reads from an area.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.read_into(address, &mut data);
        data
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.engine.cpu.steps()
    }

    /// Runs the code that is loaded from its first byte to `end`, or to a fault. None: it comes to neither.
    pub fn run(&mut self, before: &Registers, end: u64, mode: Mode) -> Option<Registers> {
        self.begin(before, mode);
        self.go_on(STEPS, before, end)
    }

    /// The same without a limit.
    pub fn run_on(&mut self, before: &Registers, end: u64) -> Registers {
        self.begin(before, Mode::Long);
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
        self.begin(before, Mode::Long);
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
    pub fn load(&mut self, code: &[u8], mode: Mode) {
        let mut area = empty_code_area();
        put_code(&mut area, code, mode);
        self.load_area(&area);
    }

    /// Puts the code's area into memory, from its first byte on.
    pub fn load_area(&mut self, area: &[u8]) {
        self.write(layout::CODE.at, area);
        self.engine.drop_overwritten();
    }

    /// Was this page written to since the last time? By the CPU, that is.
    pub fn take_dirty(&self, address: u64) -> bool {
        let page = (physical(address) / 4096) as usize;
        let mark = &self.engine.cpu.memory.ram.dirty()[page];
        mark.load(Ordering::Relaxed) != 0 && mark.swap(0, Ordering::Relaxed) != 0
    }

    /// Fills `data` from an area.
    pub fn read_into(&self, address: u64, data: &mut [u8]) {
        self.ram.read(physical(address), data).unwrap();
    }

    fn begin(&mut self, before: &Registers, mode: Mode) {
        let cpu = &mut self.engine.cpu;
        let code = match mode {
            Mode::Long => CODE_64,
            Mode::Compat32 => CODE_32,
        };
        cpu.segments[usize::from(seg::CS)] = flat(code);
        assert!(cpu.set_mode().is_ok());
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
            other @ (Event::Exit(_)
            | Event::Interruptible
            | Event::Debug
            | Event::Unsupported(_)) => {
                panic!("{other:?}")
            }
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
