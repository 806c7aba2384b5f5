//! Loads and stores at linear addresses.
//!
//! An access to a page that the [`Tlb`] knows is one comparison and one load or store. All others go by
//! way of a [`Span`], which may be in two pages, in RAM or at a device, and may hold decoded code.

use crate::op::Done;
use crate::paging::{Access, canonical};
use crate::state::{Cpu, Stop, mask};
use crate::tables::Tables;
use crate::tlb::{PAGE_MASK, Tlb};
use lockstep_memory::{Direct, Ram};
use lockstep_vcpu::Exit;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// A page's decoded code is known by lines of so many bytes.
const LINE: u64 = 64;
/// More than any operand has.
const LONGEST: usize = 512;

/// Memory, and the way to it.
#[derive(Debug)]
pub struct Memory {
    /// RAM.
    pub ram: Direct,
    /// Translations.
    pub tlb: Tlb,
    /// For each page of RAM, which of its lines hold decoded code.
    code: Vec<u64>,
    /// Pages of RAM with page tables.
    pub tables: Tables,
    /// A mapping changed: what links blocks does not hold any more.
    pub remapped: bool,
    /// CR3 before it changed, if the lower half of the addresses is another address space now.
    pub switched: Option<u64>,
    /// The operand of a [`Place`] that the TLB did not know, and what was read there.
    open: (Span, u64),
}

/// Bytes in physical memory: in one page, or at the end of one and the beginning of another.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    parts: [(u64, usize); 2],
}

/// Where an operand that is read and then written lies. Writing is sure to succeed.
#[derive(Clone, Copy, Debug)]
pub struct Place(u64);

/// A place that the TLB did not know.
const SLOW: Place = Place(u64::MAX);

impl Memory {
    /// The memory of a CPU.
    pub fn new(ram: Ram) -> Memory {
        Memory {
            code: vec![0; ram.pages()],
            tables: Tables::new(ram.pages()),
            ram: Direct::new(ram),
            tlb: Tlb::default(),
            remapped: false,
            switched: None,
            open: (Span { parts: [(0, 0); 2] }, 0),
        }
    }

    /// These bytes of a page hold decoded code now. Are they the first?
    pub fn add_code(&mut self, physical: u64, len: u64) -> bool {
        let page = (physical / PAGE) as usize;
        let first = self.code[page] == 0;
        self.code[page] |= lines(physical, len);
        if first {
            self.tlb.protect(physical & PAGE_MASK);
            self.ram.ram().watch(page, true);
        }
        first
    }

    /// This page holds no decoded code any more.
    pub fn drop_code(&mut self, physical: u64) {
        let page = (physical / PAGE) as usize;
        self.code[page] = 0;
        self.watch(page);
    }

    /// Has the page watched if it holds what was decoded or translated.
    pub fn watch(&self, page: usize) {
        let wanted = self.code[page] != 0 || self.tables.has(page);
        self.ram.ram().watch(page, wanted);
    }

    /// Is all of it in RAM?
    fn in_ram(&self, (at, len): (u64, usize)) -> bool {
        at + len as u64 <= self.ram.len()
    }

    /// Is there decoded code?
    fn has_code(&self, (at, len): (u64, usize)) -> bool {
        self.code[(at / PAGE) as usize] & lines(at, len as u64) != 0
    }

    fn load_sized(&self, at: u64, size: u8) -> u64 {
        match size {
            1 => u64::from(self.ram.load::<u8>(at)),
            2 => u64::from(self.ram.load::<u16>(at)),
            4 => u64::from(self.ram.load::<u32>(at)),
            _ => self.ram.load::<u64>(at),
        }
    }

    #[inline(always)]
    fn load<const S: u8>(&self, at: u64) -> u64 {
        self.load_sized(at, S)
    }

    #[inline(always)]
    fn store<const S: u8>(&self, at: u64, value: u64) {
        match S {
            1 => self.ram.store(at, value as u8),
            2 => self.ram.store(at, value as u16),
            4 => self.ram.store(at, value as u32),
            _ => self.ram.store(at, value),
        }
    }
}

/// The lines that these bytes of a page lie in, a bit each.
fn lines(physical: u64, len: u64) -> u64 {
    let first = physical % PAGE / LINE;
    let last = ((physical % PAGE + len - 1) / LINE).min(PAGE / LINE - 1);
    (u64::MAX >> (63 - (last - first))) << first
}

/// Does an access of `S` bytes lie in the page that begins at `tag`? Across two pages the last byte's page
/// is never the one whose entry is looked at.
#[inline(always)]
fn hits<const S: u8>(tag: u64, address: u64) -> bool {
    tag == address.wrapping_add(u64::from(S) - 1) & PAGE_MASK
}

impl Cpu {
    /// Loads `S` bytes.
    #[inline(always)]
    pub fn load<const S: u8>(&mut self, address: u64) -> Done<u64> {
        let entry = self.memory.tlb.at(address);
        match hits::<S>(entry.read, address) {
            true => Ok(self.memory.load::<S>(address.wrapping_add(entry.add))),
            false => self.load_slow(address, S),
        }
    }

    /// Stores `S` bytes.
    #[inline(always)]
    pub fn store<const S: u8>(&mut self, address: u64, value: u64) -> Done {
        let entry = self.memory.tlb.at(address);
        match hits::<S>(entry.write, address) {
            true => {
                let physical = address.wrapping_add(entry.add);
                self.memory.store::<S>(physical, value);
                Ok(())
            }
            false => self.store_slow(address, S, value),
        }
    }

    /// Finds the place of `S` bytes that are read and then written.
    #[inline(always)]
    pub fn open<const S: u8>(&mut self, address: u64) -> Done<Place> {
        let entry = self.memory.tlb.at(address);
        match hits::<S>(entry.write, address) {
            true => Ok(Place(address.wrapping_add(entry.add))),
            false => self.open_slow(address, S),
        }
    }

    /// What is there.
    #[inline(always)]
    pub fn peek<const S: u8>(&self, place: Place) -> u64 {
        match place.0 == SLOW.0 {
            true => mask::<S>(self.memory.open.1),
            false => self.memory.load::<S>(place.0),
        }
    }

    /// Writes there.
    #[inline(always)]
    pub fn poke<const S: u8>(&mut self, place: Place, value: u64) {
        match place.0 == SLOW.0 {
            true => self.poke_slow(S, value),
            false => self.memory.store::<S>(place.0, value),
        }
    }

    /// Loads 16 bytes.
    #[inline(always)]
    pub fn load128(&mut self, address: u64) -> Done<u128> {
        let entry = self.memory.tlb.at(address);
        match hits::<16>(entry.read, address) {
            true => Ok(self.memory.ram.load(address.wrapping_add(entry.add))),
            false => {
                let mut bytes = [0; 16];
                self.load_bytes(address, &mut bytes)?;
                Ok(u128::from_le_bytes(bytes))
            }
        }
    }

    /// Stores 16 bytes.
    #[inline(always)]
    pub fn store128(&mut self, address: u64, value: u128) -> Done {
        let entry = self.memory.tlb.at(address);
        match hits::<16>(entry.write, address) {
            true => {
                let physical = address.wrapping_add(entry.add);
                self.memory.ram.store(physical, value);
                Ok(())
            }
            false => self.store_bytes(address, &value.to_le_bytes()),
        }
    }

    /// Loads up to 512 bytes.
    pub fn load_bytes(&mut self, address: u64, data: &mut [u8]) -> Done {
        let (len, user) = (data.len(), self.cpl == 3);
        if let Some(physical) = self.memory.tlb.known(address, len, Access::Read, user) {
            self.read_ram(physical, data);
            return Ok(());
        }
        let span = self.span(address, data.len(), Access::Read)?;
        self.read(&span, data)
    }

    /// Stores up to 512 bytes: all of them or, if that faults, none.
    pub fn store_bytes(&mut self, address: u64, data: &[u8]) -> Done {
        self.store_bytes_as(address, data, self.cpl == 3)
    }

    /// The same for a user or the supervisor, whatever the current privilege.
    pub fn store_bytes_as(&mut self, address: u64, data: &[u8], user: bool) -> Done {
        let len = data.len();
        if let Some(physical) = self.memory.tlb.known(address, len, Access::Write, user) {
            self.store_ram(physical, data);
            return Ok(());
        }
        let span = self.span_as(address, len, Access::Write, user)?;
        self.may_write(&span)?;
        self.write(&span, data);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn load_slow(&mut self, address: u64, size: u8) -> Done<u64> {
        let mut bytes = [0; 8];
        self.load_bytes(address, &mut bytes[..usize::from(size)])?;
        Ok(u64::from_le_bytes(bytes))
    }

    #[cold]
    #[inline(never)]
    fn store_slow(&mut self, address: u64, size: u8, value: u64) -> Done {
        self.store_bytes(address, &value.to_le_bytes()[..usize::from(size)])
    }

    #[cold]
    #[inline(never)]
    fn open_slow(&mut self, address: u64, size: u8) -> Done<Place> {
        let span = self.span(address, usize::from(size), Access::Write)?;
        self.note_access(address, usize::from(size), Access::Read)?;
        self.may_write(&span)?;
        let mut bytes = [0; 8];
        self.read(&span, &mut bytes[..usize::from(size)])?;
        self.memory.open = (span, u64::from_le_bytes(bytes));
        Ok(SLOW)
    }

    #[cold]
    #[inline(never)]
    fn poke_slow(&mut self, size: u8, value: u64) {
        let span = self.memory.open.0;
        self.write(&span, &value.to_le_bytes()[..usize::from(size)]);
    }

    /// Where these bytes lie, if the current privilege may reach them so.
    pub fn span(&mut self, address: u64, len: usize, access: Access) -> Done<Span> {
        self.span_as(address, len, access, self.cpl == 3)
    }

    /// The same for a user or the supervisor, whatever the current privilege.
    pub fn span_as(&mut self, address: u64, len: usize, access: Access, user: bool) -> Done<Span> {
        debug_assert!((1..=LONGEST).contains(&len));
        if let Some(physical) = self.memory.tlb.known(address, len, access, user) {
            let parts = [(physical, len), (0, 0)];
            return Ok(Span { parts });
        }
        if !canonical(address) || !canonical(address.wrapping_add(len as u64 - 1)) {
            return self.raise(Stop::NotCanonical);
        }
        let first = ((PAGE - address % PAGE) as usize).min(len);
        let mut parts = [(self.reach(address, access, user)?, first), (0, 0)];
        if first < len {
            let second = address.wrapping_add(first as u64);
            parts[1] = (self.reach(second, access, user)?, len - first);
        }
        self.note_access(address, len, access)?;
        Ok(Span { parts })
    }

    /// Translates, and remembers the translation.
    fn reach(&mut self, address: u64, access: Access, user: bool) -> Done<u64> {
        let physical = self.translate_as(address, access, user)?;
        let fast = self.probe.leaves_fast(address, access);
        if fast && self.memory.in_ram((physical, 1)) {
            let number = (physical / PAGE) as usize;
            let looked_at = self.memory.code[number] != 0 || self.memory.tables.has(number);
            let page = address & PAGE_MASK;
            let add = physical.wrapping_sub(address);
            let entry = self.memory.tlb.entry(address, add, user);
            match access {
                Access::Read => entry.read = page,
                Access::Write if looked_at => {}
                Access::Write => entry.write = page,
                Access::Execute => entry.execute = page,
            }
        }
        Ok(physical)
    }

    /// Where an instruction is fetched from. None: not from RAM.
    pub fn fetch(&mut self, address: u64) -> Done<Option<u64>> {
        let entry = self.memory.tlb.at(address);
        if entry.execute == address & PAGE_MASK {
            return Ok(Some(address.wrapping_add(entry.add)));
        }
        if !canonical(address) {
            return self.except(crate::exception::GP0);
        }
        let physical = self.reach(address, Access::Execute, self.cpl == 3)?;
        Ok(self.memory.in_ram((physical, 1)).then_some(physical))
    }

    /// Reads what is there.
    pub fn read(&mut self, span: &Span, data: &mut [u8]) -> Done {
        let mut rest = data;
        for (at, len) in span.parts {
            let (part, after) = rest.split_at_mut(len);
            rest = after;
            if len == 0 || self.memory.in_ram((at, len)) {
                self.read_ram(at, part);
                continue;
            }
            let mut at = at;
            for chunk in part.chunks_mut(8) {
                let len = chunk.len();
                let answer = self.ask(Exit::MmioRead { addr: at, len })?;
                chunk.copy_from_slice(&answer[..len]);
                at += len as u64;
            }
        }
        Ok(())
    }

    fn read_ram(&self, at: u64, data: &mut [u8]) {
        let ram = &self.memory.ram;
        let mut at = at;
        let mut words = data.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&ram.load::<u64>(at).to_le_bytes());
            at += 8;
        }
        for (byte, at) in words.into_remainder().iter_mut().zip(at..) {
            *byte = ram.load(at);
        }
    }

    /// What is written to devices, over code, or over the tables that code was found by, is written by an
    /// instruction that runs alone.
    pub fn may_write(&mut self, span: &Span) -> Done {
        for (at, len) in span.parts.into_iter().filter(|(_, len)| *len != 0) {
            let memory = &self.memory;
            let plain = memory.in_ram((at, len))
                && !memory.has_code((at, len))
                && !memory.remaps_code(at, len);
            if !plain {
                self.alone()?;
            }
        }
        Ok(())
    }

    /// Writes there, where [`Cpu::may_write`] said that it may.
    pub fn write(&mut self, span: &Span, data: &[u8]) {
        let mut rest = data;
        for (at, len) in span.parts.into_iter().filter(|(_, len)| *len != 0) {
            let (part, after) = rest.split_at(len);
            rest = after;
            if self.memory.in_ram((at, len)) {
                self.write_ram(at, part);
                continue;
            }
            for (index, chunk) in part.chunks(8).enumerate() {
                let mut data = [0; 8];
                data[..chunk.len()].copy_from_slice(chunk);
                self.tell(Exit::MmioWrite {
                    addr: at + 8 * index as u64,
                    data,
                    len: chunk.len(),
                });
            }
        }
    }

    fn write_ram(&mut self, at: u64, data: &[u8]) {
        if self.memory.has_code((at, data.len())) {
            self.io.wrote_code.push(at & PAGE_MASK);
        }
        if self.memory.tables.has((at / PAGE) as usize) {
            self.memory.before_table_write(at, data.len());
        }
        self.store_ram(at, data);
    }

    /// Where no code and no tables are.
    fn store_ram(&self, at: u64, data: &[u8]) {
        let ram = &self.memory.ram;
        let mut at = at;
        let (words, rest) = data.as_chunks::<8>();
        for word in words {
            ram.store(at, u64::from_le_bytes(*word));
            at += 8;
        }
        for (byte, at) in rest.iter().zip(at..) {
            ram.store(at, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cover_what_they_should() {
        assert_eq!(lines(0x1000, 1), 1);
        assert_eq!(lines(0x1fff, 1), 1 << 63);
        assert_eq!(lines(0x103f, 2), 0b11);
        assert_eq!(lines(0x1000, 4096), u64::MAX);
    }
}
