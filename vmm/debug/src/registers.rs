//! The registers as gdb numbers them: its own description of an x86-64 with SSE, then what only a machine has.

use gdbstub::arch::{Arch, Registers};
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use lockstep_vcpu::CpuState;
use lockstep_vcpu::state::{MSRS, Segment};

/// Registers besides gdb's own: name and group. The last two are no registers of the guest.
const MORE: [&str; 12] = [
    "fs_base",
    "gs_base",
    "k_gs_base",
    "lstar",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "cr8",
    "efer",
    "exit",
    "steps",
];
/// So many of them are of the feature that gdb knows.
const BASES: usize = 2;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const LSTAR: u32 = 0xc000_0082;

/// What gdb may ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct All {
    core: X86_64CoreRegs,
    more: [u64; MORE.len()],
}

impl All {
    /// The registers of a CPU in this state, so many exits and steps after the guest's beginning.
    pub fn new(state: &CpuState, exit: u64) -> All {
        let mut all = All::default();
        let core = &mut all.core;
        let [ax, bx, cx, dx, si, di, sp, bp, rest @ ..] = state.registers.general;
        core.regs[..8].copy_from_slice(&[ax, bx, cx, dx, si, di, bp, sp]);
        core.regs[8..].copy_from_slice(&rest);
        core.rip = state.registers.rip;
        core.eflags = state.registers.rflags as u32;
        let [cs, ds, es, fs, gs, ss, ..] = &state.system.segments;
        let selector = |segment: &Segment| u32::from(segment.selector);
        core.segments.cs = selector(cs);
        core.segments.ss = selector(ss);
        core.segments.ds = selector(ds);
        core.segments.es = selector(es);
        core.segments.fs = selector(fs);
        core.segments.gs = selector(gs);
        floating_point(core, state);
        let msr = |wanted| {
            let slot = MSRS.iter().position(|(index, _)| *index == wanted);
            slot.map_or(0, |slot| state.msrs[slot])
        };
        let (kernel, lstar) = (msr(KERNEL_GS_BASE), msr(LSTAR));
        let [cr0, cr2, cr3, cr4, cr8, efer] = state.system.control;
        let steps = state.counters.steps;
        all.more = [
            fs.base, gs.base, kernel, lstar, cr0, cr2, cr3, cr4, cr8, efer, exit, steps,
        ];
        all
    }
}

/// x87 and SSE, out of the area that FXSAVE writes.
fn floating_point(core: &mut X86_64CoreRegs, state: &CpuState) {
    let words = state.fpu.fxsave();
    let area: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let fpu = &mut core.fpu;
    fpu.fctrl = words[0] & 0xffff;
    fpu.fstat = words[0] >> 16;
    fpu.fop = words[1] >> 16;
    fpu.fioff = words[2];
    fpu.fiseg = words[3] & 0xffff;
    fpu.fooff = words[4];
    fpu.foseg = words[5] & 0xffff;
    core.mxcsr = words[6];
    for (number, register) in core.st.iter_mut().enumerate() {
        register.copy_from_slice(&area[32 + 16 * number..][..10]);
    }
    for (number, register) in core.xmm.iter_mut().enumerate() {
        let bytes = area[160 + 16 * number..][..16].try_into();
        *register = u128::from_le_bytes(bytes.expect("16 bytes"));
    }
    // FXSAVE has a bit for each register, gdb wants the two of FSAVE.
    let top = words[0] >> 27 & 7;
    fpu.ftag = (0..8).fold(0, |tags, physical| {
        let full = words[1] >> physical & 1 != 0;
        let stacked = core.st[((physical + 8 - top) % 8) as usize];
        let tag = match full {
            true => kind(&stacked),
            false => 3,
        };
        tags | tag << (2 * physical)
    });
}

/// The tag of a register that is not empty: 0 for a plain number, 1 for zero, 2 for everything else.
fn kind(number: &[u8; 10]) -> u32 {
    let exponent = u16::from_le_bytes([number[8], number[9]]) & 0x7fff;
    let plain = number[7] & 0x80 != 0;
    match exponent {
        0 if number[..8] == [0; 8] => 1,
        0 | 0x7fff => 2,
        _ if plain => 0,
        _ => 2,
    }
}

impl Registers for All {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.core.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.core.gdb_serialize(&mut write_byte);
        for value in self.more {
            for byte in value.to_le_bytes() {
                write_byte(Some(byte));
            }
        }
    }

    fn gdb_deserialize(&mut self, _: &[u8]) -> Result<(), ()> {
        // Nobody reads what gdb wants to write.
        Ok(())
    }
}

/// The machine's architecture.
#[derive(Debug)]
pub enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = All;
    type BreakpointKind = usize;
    type RegId = ();
}

/// RFLAGS, by bit.
const FLAGS: [(&str, u8); 16] = [
    ("CF", 0),
    ("PF", 2),
    ("AF", 4),
    ("ZF", 6),
    ("SF", 7),
    ("TF", 8),
    ("IF", 9),
    ("DF", 10),
    ("OF", 11),
    ("NT", 14),
    ("RF", 16),
    ("VM", 17),
    ("AC", 18),
    ("VIF", 19),
    ("VIP", 20),
    ("ID", 21),
];
/// The general registers, in gdb's order.
const GENERAL: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
/// What the x87 has beside its stack.
const CONTROL: [&str; 8] = [
    "fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop",
];

/// gdb's target description of it.
pub fn description() -> String {
    let mut text = String::from(concat!(
        r#"<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">"#,
        "<architecture>i386:x86-64</architecture>",
        r#"<feature name="org.gnu.gdb.i386.core">"#,
        r#"<flags id="i386_eflags" size="4">"#,
    ));
    for (name, bit) in FLAGS {
        text += &format!(r#"<field name="{name}" start="{bit}" end="{bit}"/>"#);
    }
    text += "</flags>";
    let register = |text: &mut String, name: &str, bits: u32, more: &str| {
        *text += &format!(r#"<reg name="{name}" bitsize="{bits}" {more}/>"#);
    };
    for name in GENERAL {
        let kind = match name {
            "rbp" | "rsp" => r#"type="data_ptr""#,
            _ => r#"type="int64""#,
        };
        register(&mut text, name, 64, kind);
    }
    register(&mut text, "rip", 64, r#"type="code_ptr""#);
    register(&mut text, "eflags", 32, r#"type="i386_eflags""#);
    for name in ["cs", "ss", "ds", "es", "fs", "gs"] {
        register(&mut text, name, 32, r#"type="int32""#);
    }
    for number in 0..8 {
        register(&mut text, &format!("st{number}"), 80, r#"type="i387_ext""#);
    }
    for name in CONTROL {
        register(&mut text, name, 32, r#"type="int" group="float""#);
    }
    text += VECTORS;
    for number in 0..16 {
        register(&mut text, &format!("xmm{number}"), 128, r#"type="vec128""#);
    }
    register(
        &mut text,
        "mxcsr",
        32,
        r#"type="i386_mxcsr" group="vector""#,
    );
    text += r#"</feature><feature name="org.gnu.gdb.i386.segments">"#;
    for (index, name) in MORE.into_iter().enumerate() {
        if index == BASES {
            text += r#"</feature><feature name="lockstep.machine">"#;
        }
        let kind = if name == "exit" || name == "steps" {
            "uint64"
        } else {
            "int64"
        };
        let more = format!(r#"type="{kind}" group="system""#);
        register(&mut text, name, 64, &more);
    }
    text += "</feature></target>";
    text
}

/// gdb's names for what is in an SSE register.
const VECTORS: &str = concat!(
    r#"</feature><feature name="org.gnu.gdb.i386.sse">"#,
    r#"<vector id="v8bf16" type="bfloat16" count="8"/><vector id="v4f" type="ieee_single" count="4"/>"#,
    r#"<vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>"#,
    r#"<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>"#,
    r#"<vector id="v2i64" type="int64" count="2"/><union id="vec128">"#,
    r#"<field name="v8_bfloat16" type="v8bf16"/><field name="v4_float" type="v4f"/>"#,
    r#"<field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>"#,
    r#"<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>"#,
    r#"<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>"#,
    r#"<flags id="i386_mxcsr" size="4"><field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/>"#,
    r#"<field name="ZE" start="2" end="2"/><field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/>"#,
    r#"<field name="PE" start="5" end="5"/><field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/>"#,
    r#"<field name="DM" start="8" end="8"/><field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/>"#,
    r#"<field name="UM" start="11" end="11"/><field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/></flags>"#,
);
