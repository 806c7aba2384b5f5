//! Decoded blocks: straight pieces of code, found by where they lie and what they were decoded for.
//!
//! A block lies in one page, but for one that is a single instruction across two. Pages that hold decoded
//! code are marked in [`Memory`]; a write to one of its lines drops the page's blocks.

use crate::decode::decode;
use crate::memory::{Memory, PAGE};
use crate::op::{Done, Op};
use crate::state::{Cpu, Mode, Stop};
use crate::tlb::PAGE_MASK;
use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};

/// Instructions in a block, at most.
const MOST_OPS: usize = 32;
/// Bytes of an instruction, at most.
const LONGEST: usize = 15;
/// Blocks that are kept, at most: some 300 bytes each. Few in tests, which have little code.
const MOST_BLOCKS: usize = if cfg!(test) { 6 } else { 1 << 17 };
/// Entries of the table that is asked first.
const RECENT: usize = 1 << 13;
/// Address spaces whose links are kept.
const SPACES: usize = 8;

/// Its seed is another one in each process, so that no guest can fill one bucket.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Where a block lies, and what it was decoded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    physical: u64,
    rip: u64,
    mode: Mode,
}

/// A way to a block that was found once. It holds in the context that it was found in.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    rip: u64,
    context: u64,
    block: usize,
}

/// No context has this number.
const NO_LINK: Link = Link {
    rip: 0,
    context: u64::MAX,
    block: 0,
};

/// A straight piece of code.
#[derive(Debug)]
pub struct Block {
    /// Its instructions.
    pub ops: Box<[Op]>,
    /// Where control comes when the last one does not branch.
    pub end: u64,
    key: Key,
    /// The page that its only instruction ends in, if that is another.
    second: Option<u64>,
    links: [Cell<Link>; 2],
}

impl Block {
    /// The block that was found after this one for `rip`.
    #[inline(always)]
    pub fn follow(&self, rip: u64, context: u64) -> Option<usize> {
        self.links
            .iter()
            .map(Cell::get)
            .find(|link| link.rip == rip && link.context == context)
            .map(|link| link.block)
    }
}

/// All decoded blocks.
#[derive(Debug)]
pub struct Cache {
    blocks: Vec<Block>,
    /// Numbers of blocks that were dropped.
    free: Vec<usize>,
    by_key: Map<Key, usize>,
    /// The blocks of a physical page.
    by_page: Map<u64, Vec<usize>>,
    recent: Box<[Link]>,
    /// The last epoch that began.
    newest: u64,
    /// The epoch of the supervisor's links. A new one begins when a mapping changes or blocks are dropped, so that
    /// no link from before holds.
    supervisor: u64,
    /// The epoch of the user's links, which also depend on CR3.
    user: u64,
    /// Epochs of the user's links under other values of CR3, the last one first.
    spaces: VecDeque<(u64, u64)>,
    /// The supervisor ran code in the lower half, which depends on CR3.
    supervisor_is_low: bool,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            blocks: Vec::new(),
            free: Vec::new(),
            by_key: Map::default(),
            by_page: Map::default(),
            recent: vec![NO_LINK; RECENT].into(),
            newest: 0,
            supervisor: 0,
            user: 0,
            spaces: VecDeque::new(),
            supervisor_is_low: false,
        }
    }
}

/// What a link holds for besides the epoch: mode and privilege.
fn situation(cpu: &Cpu) -> u64 {
    let mode = match cpu.mode {
        Mode::Long => 0,
        Mode::Compat32 => 2,
    };
    mode | u64::from(cpu.cpl == 3)
}

impl Cache {
    /// A number for all that links depend on.
    pub fn context(&self, cpu: &Cpu) -> u64 {
        let epoch = match cpu.cpl {
            3 => self.user,
            _ => self.supervisor,
        };
        epoch << 2 | situation(cpu)
    }

    /// A block by its number.
    #[inline(always)]
    pub fn block(&self, number: usize) -> &Block {
        &self.blocks[number]
    }

    /// A mapping changed.
    pub fn remap(&mut self) {
        self.newest += 1;
        (self.supervisor, self.user) = (self.newest, self.newest);
        self.supervisor_is_low = false;
        self.spaces.clear();
    }

    /// CR3 changed, but the upper half of the addresses did not.
    pub fn switch(&mut self, old: u64, new: u64) {
        if self.supervisor_is_low {
            return self.remap();
        }
        self.spaces.push_front((old, self.user));
        self.spaces.truncate(SPACES);
        let known = self.spaces.iter().position(|(space, _)| *space == new);
        self.user = match known.and_then(|index| self.spaces.remove(index)) {
            Some((_, epoch)) => epoch,
            None => {
                self.newest += 1;
                self.newest
            }
        };
    }

    /// Drops the blocks of a physical page.
    pub fn drop_page(&mut self, page: u64, memory: &mut Memory) {
        for number in self.by_page.remove(&page).unwrap_or_default() {
            let block = &mut self.blocks[number];
            // One across two pages is dropped with either, and its number may be another block's by now.
            let other = match block.second {
                Some(second) if second == page => block.key.physical & PAGE_MASK,
                Some(second) => second,
                None => page,
            };
            if let Some(numbers) = self.by_page.get_mut(&other) {
                numbers.retain(|listed| *listed != number);
            }
            self.by_key.remove(&block.key);
            block.ops = Box::default();
            self.free.push(number);
        }
        memory.drop_code(page);
        self.remap();
    }

    /// Remembers that `rip` was found after `from`.
    pub fn link(&self, from: usize, rip: u64, context: u64, block: usize) {
        let [first, second] = &self.blocks[from].links;
        let link = Link {
            rip,
            context,
            block,
        };
        // The older one gives way.
        second.set(first.replace(link));
    }

    /// The block at [`Cpu::rip`].
    #[inline(always)]
    pub fn find(&mut self, cpu: &mut Cpu, context: u64) -> Done<usize> {
        let rip = cpu.rip;
        let slot = (rip ^ rip >> 12) as usize % RECENT;
        let link = self.recent[slot];
        if link.rip == rip && link.context == context {
            return Ok(link.block);
        }
        let block = self.look_up(cpu)?;
        self.supervisor_is_low |= cpu.cpl != 3 && rip >> 63 == 0;
        self.recent[slot] = Link {
            rip,
            // Looking up may have dropped blocks.
            context: self.context(cpu),
            block,
        };
        Ok(block)
    }

    /// The same without the tables that are asked first. Nothing is known there of a block at a breakpoint.
    #[inline(never)]
    pub fn look_up(&mut self, cpu: &mut Cpu) -> Done<usize> {
        let rip = cpu.rip;
        if cpu.stops_here() {
            return cpu.raise(Stop::Breakpoint);
        }
        let Some(physical) = cpu.fetch(rip)? else {
            return cpu.raise(Stop::Unsupported("code outside RAM"));
        };
        let key = Key {
            physical,
            rip,
            mode: cpu.mode,
        };
        if let Some(number) = self.by_key.get(&key).copied() {
            let second = self.blocks[number].second;
            if second.is_none() || second == second_page(cpu, rip)? {
                return Ok(number);
            }
            self.drop_page(physical & PAGE_MASK, &mut cpu.memory);
        }
        if self.by_key.len() >= MOST_BLOCKS {
            self.clear(&mut cpu.memory);
        }
        let block = decode_block(cpu, key)?;
        Ok(self.add(block, cpu))
    }

    /// Drops everything.
    pub fn clear(&mut self, memory: &mut Memory) {
        for page in std::mem::take(&mut self.by_page).into_keys() {
            memory.drop_code(page);
        }
        self.blocks.clear();
        self.free.clear();
        self.by_key.clear();
        self.remap();
    }

    fn add(&mut self, block: Block, cpu: &mut Cpu) -> usize {
        let number = self.free.pop().unwrap_or(self.blocks.len());
        let (start, len) = (block.key.physical, block.end.wrapping_sub(block.key.rip));
        let here = (PAGE - start % PAGE).min(len.max(1));
        cpu.memory.add_code(start, here);
        self.by_page
            .entry(start & PAGE_MASK)
            .or_default()
            .push(number);
        if let Some(second) = block.second {
            cpu.memory.add_code(second, (len - here).max(1));
            self.by_page.entry(second).or_default().push(number);
        }
        self.by_key.insert(block.key, number);
        match self.blocks.get_mut(number) {
            Some(free) => *free = block,
            None => self.blocks.push(block),
        }
        number
    }
}

/// The physical page after the one that `rip` lies in.
fn second_page(cpu: &mut Cpu, rip: u64) -> Done<Option<u64>> {
    let next = (rip & PAGE_MASK).wrapping_add(PAGE);
    let page = cpu.fetch(next)?;
    match page {
        Some(page) => Ok(Some(page)),
        None => cpu.raise(Stop::Unsupported("code outside RAM")),
    }
}

/// What later processors made of encodings that did something else before: BSF and BSR with an F3 prefix
/// stay what they are, and hints and markers (prefetches, ENDBR and others) do nothing.
pub const OPTIONS: u32 = DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD
    | DecoderOptions::FORCE_RESERVED_NOP;

/// Bits of an address in that mode.
pub fn bitness(mode: Mode) -> u32 {
    match mode {
        Mode::Long => 64,
        Mode::Compat32 => 32,
    }
}

fn decode_block(cpu: &mut Cpu, key: Key) -> Done<Block> {
    let rest = (PAGE - key.physical % PAGE) as usize;
    let mut bytes = [0; MOST_OPS * LONGEST];
    let bytes = &mut bytes[..rest.min(MOST_OPS * LONGEST)];
    let read = cpu.memory.ram.ram().read(key.physical, bytes);
    read.expect("fetching ends where RAM does");
    let mut decoder = Decoder::with_ip(bitness(key.mode), bytes, key.rip, OPTIONS);
    let mut ops = Vec::new();
    let mut end = key.rip;
    let mut instruction = Instruction::default();
    while ops.len() < MOST_OPS && decoder.can_decode() {
        // A block begins there, and ends before.
        if !ops.is_empty() && cpu.probe.has_breakpoint(decoder.ip()) {
            break;
        }
        decoder.decode_out(&mut instruction);
        if decoder.last_error() == DecoderError::NoMoreBytes {
            break;
        }
        end = instruction.next_ip();
        ops.push(decode(&instruction, key.mode));
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    if ops.is_empty() {
        return decode_across(cpu, key, bytes);
    }
    Ok(block(key, ops, end, None))
}

/// A block of one instruction that begins with `first`, the last bytes of a page.
fn decode_across(cpu: &mut Cpu, key: Key, first: &[u8]) -> Done<Block> {
    let second = second_page(cpu, key.rip)?;
    let mut bytes = [0; LONGEST];
    bytes[..first.len()].copy_from_slice(first);
    if let Some(page) = second {
        let read = cpu.memory.ram.ram().read(page, &mut bytes[first.len()..]);
        read.expect("a page in RAM");
    }
    let mut decoder = Decoder::with_ip(bitness(key.mode), &bytes, key.rip, OPTIONS);
    let instruction = decoder.decode();
    let ops = vec![decode(&instruction, key.mode)];
    Ok(block(key, ops, instruction.next_ip(), second))
}

fn block(key: Key, ops: Vec<Op>, end: u64, second: Option<u64>) -> Block {
    Block {
        ops: ops.into(),
        end,
        key,
        second,
        links: [Cell::new(NO_LINK), Cell::new(NO_LINK)],
    }
}
