//! Segment registers and descriptors (SDM vol. 3, 3.4 and 5).

use crate::exception::{Exception, GP0, UD, vector};
use crate::form::Form;
use crate::integer::moves;
use crate::memory::Span;
use crate::op::{Done, Flow, Handler, Op};
use crate::operand::{Dst, Mem, Src, Target, Value, by_wide_size};
use crate::paging::Access;
use crate::stack::supervisor;
use crate::state::{Cpu, Mode, gpr, mask, seg};
use crate::system;
use lockstep_vcpu::state::{Attributes, Segment};

/// EFER.LMA.
const LMA: u64 = 1 << 10;

/// A descriptor as it lies in a table, with the upper half that system descriptors have.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Its 8 bytes.
    pub low: u64,
    /// The 8 bytes after them.
    pub high: u64,
    /// The selector that named it.
    pub selector: u16,
    /// Where it lies.
    address: u64,
}

impl Descriptor {
    /// Type, with S as bit 4.
    pub fn kind(&self) -> u8 {
        (self.low >> 40) as u8 & 0x1f
    }

    /// Is it present?
    pub fn present(&self) -> bool {
        self.low >> 47 & 1 != 0
    }

    /// Its privilege level.
    pub fn dpl(&self) -> u8 {
        (self.low >> 45) as u8 & 3
    }

    /// The privilege level that its selector asks for.
    pub fn rpl(&self) -> u8 {
        self.selector as u8 & 3
    }

    /// Is it a code segment?
    pub fn is_code(&self) -> bool {
        self.kind() & 0x18 == 0x18
    }

    /// Is it code that runs at its caller's privilege?
    pub fn conforms(&self) -> bool {
        self.kind() & 0x1c == 0x1c
    }

    /// Is it data that may be written?
    pub fn is_writable(&self) -> bool {
        self.kind() & 0x1a == 0x12
    }

    /// Is it data, or code that may be read?
    pub fn is_readable(&self) -> bool {
        self.kind() & 0x18 == 0x10 || self.kind() & 0x1a == 0x1a
    }

    /// Is it 64-bit code?
    pub fn is_long(&self) -> bool {
        self.low >> 53 & 1 != 0
    }

    /// D or B.
    pub fn is_32_bit(&self) -> bool {
        self.low >> 54 & 1 != 0
    }

    /// The limit, bytes less one.
    pub fn limit(&self) -> u32 {
        let limit = (self.low & 0xffff | self.low >> 32 & 0xf_0000) as u32;
        match self.low >> 55 & 1 {
            0 => limit,
            _ => limit << 12 | 0xfff,
        }
    }

    /// The exception that says that something is wrong with it.
    pub fn fault(&self, vector: u8) -> Exception {
        Exception::coded(vector, u32::from(self.selector & !3))
    }

    /// The segment register that holds it.
    pub fn segment(&self) -> Segment {
        let bit = |at: u32| (self.low >> at & 1) as u8;
        let base = self.low >> 16 & 0xff_ffff | self.low >> 32 & 0xff00_0000;
        let system = self.kind() & 0x10 == 0;
        Segment {
            base: if system { base | self.high << 32 } else { base },
            limit: self.limit(),
            selector: self.selector,
            attributes: Attributes {
                type_: self.kind() & 15,
                present: bit(47),
                dpl: self.dpl(),
                db: bit(54),
                s: bit(44),
                l: bit(53),
                g: bit(55),
                avl: bit(52),
                unusable: 0,
            },
        }
    }
}

/// A segment register that holds nothing.
pub fn null_segment(selector: u16) -> Segment {
    Segment {
        selector,
        attributes: Attributes {
            unusable: 1,
            ..Attributes::default()
        },
        ..Segment::default()
    }
}

impl Cpu {
    /// The linear address of an offset in a segment.
    pub fn based(&self, segment: u8, offset: u64) -> u64 {
        let base = self.segments[usize::from(segment)].base;
        match self.mode {
            Mode::Long if segment >= seg::FS => base.wrapping_add(offset),
            Mode::Long => offset,
            Mode::Compat32 => mask::<4>(base.wrapping_add(offset)),
        }
    }

    /// From now on the CPU runs at this privilege.
    pub fn set_cpl(&mut self, cpl: u8) {
        self.cpl = cpl;
        self.memory.tlb.set_user(cpl == 3);
    }

    /// What the code segment says of what instructions mean.
    pub fn set_mode(&mut self) -> Done {
        let code = self.segments[usize::from(seg::CS)].attributes;
        if self.control.efer & LMA == 0 {
            return self.raise(crate::state::Stop::Unsupported("it is not in long mode"));
        }
        self.mode = match (code.l, code.db) {
            (1, _) => Mode::Long,
            (_, 1) => Mode::Compat32,
            _ => {
                return self.raise(crate::state::Stop::Unsupported("a 16-bit code segment"));
            }
        };
        Ok(())
    }

    /// Reads for the processor itself, whatever the current privilege.
    pub fn system_read(&mut self, address: u64, data: &mut [u8]) -> Done {
        let span: Span = self.span_as(address, data.len(), Access::Read, false)?;
        self.read(&span, data)
    }

    /// Reads 8 bytes in the same way.
    pub fn system_read_u64(&mut self, address: u64) -> Done<u64> {
        let known = self.memory.tlb.known(address, 8, Access::Read, false);
        if let Some(physical) = known {
            return Ok(self.memory.ram.load(physical));
        }
        let mut bytes = [0; 8];
        self.system_read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The descriptor that a selector names. System descriptors have 16 bytes. None: outside its table.
    pub fn descriptor(&mut self, selector: u16) -> Done<Option<Descriptor>> {
        let (base, limit) = match selector & 4 {
            0 => (self.tables[0].0, u32::from(self.tables[0].1)),
            _ => {
                let ldt = &self.segments[usize::from(seg::LDT)];
                match ldt.attributes.present {
                    0 => return Ok(None),
                    _ => (ldt.base, ldt.limit),
                }
            }
        };
        let offset = u32::from(selector & !7);
        if offset + 7 > limit {
            return Ok(None);
        }
        let address = base.wrapping_add(u64::from(offset));
        let low = self.system_read_u64(address)?;
        let mut descriptor = Descriptor {
            low,
            high: 0,
            selector,
            address,
        };
        if descriptor.kind() & 0x10 == 0 {
            if offset + 15 > limit {
                return Ok(None);
            }
            descriptor.high = self.system_read_u64(address.wrapping_add(8))? & 0xffff_ffff;
        }
        Ok(Some(descriptor))
    }

    /// The same; it is a fault if there is none.
    pub fn needed_descriptor(&mut self, selector: u16, vector: u8) -> Done<Descriptor> {
        match self.descriptor(selector)? {
            Some(descriptor) => Ok(descriptor),
            None => self.except(Exception::coded(vector, u32::from(selector & !3))),
        }
    }

    /// Sets bits of the descriptor's type in its table: accessed, or busy.
    pub fn mark_descriptor(&mut self, descriptor: &mut Descriptor, bits: u8) -> Done {
        let marked = descriptor.low | u64::from(bits) << 40;
        if marked != descriptor.low {
            let address = descriptor.address.wrapping_add(5);
            self.store_bytes_as(address, &[(marked >> 40) as u8], false)?;
            descriptor.low = marked;
        }
        Ok(())
    }

    /// Loads DS, ES, FS, GS or SS.
    pub fn load_segment(&mut self, register: u8, selector: u16) -> Done {
        let loaded = match selector & !3 {
            0 => self.null_for(register, selector)?,
            _ => self.data_segment(register, selector)?,
        };
        self.segments[usize::from(register)] = loaded;
        Ok(())
    }

    fn null_for(&mut self, register: u8, selector: u16) -> Done<Segment> {
        let own = u16::from(self.cpl) == selector & 3;
        if register == seg::SS && !(self.mode == Mode::Long && self.cpl < 3 && own) {
            return self.except(GP0);
        }
        let mut null = null_segment(selector);
        null.attributes.dpl = if register == seg::SS { self.cpl } else { 0 };
        Ok(null)
    }

    fn data_segment(&mut self, register: u8, selector: u16) -> Done<Segment> {
        if register == seg::SS {
            return self.stack_segment(selector, self.cpl);
        }
        let mut descriptor = self.needed_descriptor(selector, vector::GP)?;
        let (dpl, rpl) = (descriptor.dpl(), descriptor.rpl());
        let reachable = descriptor.conforms() || dpl >= self.cpl && dpl >= rpl;
        if !descriptor.is_readable() || !reachable {
            return self.except(descriptor.fault(vector::GP));
        }
        if !descriptor.present() {
            return self.except(descriptor.fault(vector::NP));
        }
        self.mark_descriptor(&mut descriptor, 1)?;
        Ok(descriptor.segment())
    }

    /// What SS becomes with this selector at this privilege.
    pub fn stack_segment(&mut self, selector: u16, cpl: u8) -> Done<Segment> {
        let mut descriptor = self.needed_descriptor(selector, vector::GP)?;
        let own = descriptor.rpl() == cpl && descriptor.dpl() == cpl;
        if !descriptor.is_writable() || !own {
            return self.except(descriptor.fault(vector::GP));
        }
        if !descriptor.present() {
            return self.except(descriptor.fault(vector::SS));
        }
        self.mark_descriptor(&mut descriptor, 1)?;
        Ok(descriptor.segment())
    }
}

fn selector_to<const S: u8, D: Target>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let selector = u64::from(cpu.segments[usize::from(op.src & 7)].selector);
    D::write::<S>(cpu, op, selector)?;
    Ok(Flow::Next)
}

fn selector_from<R: Value>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let selector = R::read::<2>(cpu, op)? as u16;
    if op.dst == seg::CS {
        return cpu.except(UD);
    }
    cpu.load_segment(op.dst, selector)?;
    cpu.shadow |= op.dst == seg::SS;
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// MOV, of whatever kind.
pub fn mov(form: &Form) -> Handler {
    let instruction = form.instruction;
    let (first, second) = (instruction.op0_register(), instruction.op1_register());
    if first.is_cr() || second.is_cr() || first.is_dr() || second.is_dr() {
        return system::mov_control(form);
    }
    match (first.is_segment_register(), second.is_segment_register()) {
        (false, false) => moves::mov(form),
        (false, true) if form.memory() => selector_to::<2, Mem>,
        (false, true) => by_wide_size!(form.size(), S => selector_to::<S, Dst>),
        (true, _) if form.memory() => selector_from::<Mem>,
        (true, _) => selector_from::<Src>,
    }
}

/// POP into a segment register, from a slot of `S` bytes.
pub fn pop_segment<const S: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let old = cpu.r[gpr::SP];
    let selector = cpu.pop::<S>()? as u16;
    let loaded = cpu.load_segment(op.dst, selector);
    if loaded.is_err() {
        cpu.r[gpr::SP] = old;
    }
    loaded?;
    cpu.shadow |= op.dst == seg::SS;
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// A far pointer: an offset of `S` bytes, then the selector. The segment register is in [`Op::aux`].
fn load_pointer<const S: u8, const SEGMENT: u8>(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    let address = cpu.address(op);
    let mut bytes = [0; 10];
    let len = usize::from(S) + 2;
    cpu.load_bytes(address, &mut bytes[..len])?;
    let mut offset = [0; 8];
    offset[..usize::from(S)].copy_from_slice(&bytes[..usize::from(S)]);
    let selector = u16::from_le_bytes([bytes[len - 2], bytes[len - 1]]);
    cpu.load_segment(SEGMENT, selector)?;
    cpu.set::<S>(op.dst, u64::from_le_bytes(offset));
    cpu.shadow |= SEGMENT == seg::SS;
    cpu.rip = op.next;
    Ok(Flow::Leave)
}

/// LFS and its like.
pub fn load_far(form: &Form) -> Handler {
    use iced_x86::Mnemonic as M;
    match form.instruction.mnemonic() {
        M::Lfs => by_wide_size!(form.size(), S => load_pointer::<S, { seg::FS }>),
        M::Lgs => by_wide_size!(form.size(), S => load_pointer::<S, { seg::GS }>),
        M::Lss => by_wide_size!(form.size(), S => load_pointer::<S, { seg::SS }>),
        M::Lds => by_wide_size!(form.size(), S => load_pointer::<S, { seg::DS }>),
        M::Les => by_wide_size!(form.size(), S => load_pointer::<S, { seg::ES }>),
        other => unreachable!("{other:?} loads no far pointer"),
    }
}

/// The index of KERNEL_GS_BASE in the list of MSRs.
const KERNEL_GS_BASE: u32 = 0xc000_0102;

fn swap_gs(cpu: &mut Cpu, op: &Op) -> Done<Flow> {
    if cpu.mode != Mode::Long {
        return cpu.except(UD);
    }
    supervisor(cpu)?;
    let slot = system::msr_slot(KERNEL_GS_BASE).expect("it is in the list");
    let gs = &mut cpu.segments[usize::from(seg::GS)].base;
    std::mem::swap(gs, &mut cpu.msrs[slot]);
    cpu.rip = op.next;
    Ok(Flow::Next)
}

/// SWAPGS.
pub fn swapgs(_: &Form) -> Handler {
    swap_gs
}
