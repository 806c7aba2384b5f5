//! Running blocks, with an exact count of steps.
//!
//! A step is an instruction that completed, or one iteration of one with a REP prefix. An instruction that
//! faults is none. Delivering an exception or an interrupt is none.

use crate::block::Cache;
use crate::exception::{Exception, GP0, Kind, SS0};
use crate::flags::{IF, TF};
use crate::memory::PAGE;
use crate::op::{Flow, Op, Raised, aux};
use crate::state::{Cpu, Stop};
use lockstep_memory::Ram;
use lockstep_vcpu::Exit;

/// Why running stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The budget is used up.
    Budget,
    /// The guest raised an exception that is not delivered yet. RIP is where it will return to.
    Exception(Exception),
    /// The guest made an exit.
    Exit(Exit),
    /// The guest takes interrupts, as [`Engine::until_interruptible`] wants.
    Interruptible,
    /// The guest stops for its debugger.
    Debug,
    /// The guest did what this CPU does not do.
    Unsupported(&'static str),
}

/// A CPU with its decoded blocks.
#[derive(Debug)]
pub struct Engine {
    /// The processor.
    pub cpu: Cpu,
    pub(crate) cache: Cache,
    /// The instruction that waits for a device's answer.
    waiting: Option<Op>,
    /// The instruction that runs is to be followed by a single-step trap.
    stepping: bool,
    /// The instruction that runs began in the shadow of STI or MOV SS.
    shadowed: bool,
    /// Running stops as soon as the guest takes interrupts.
    pub until_interruptible: bool,
    /// A trap that is due, but the instruction made an exit first.
    pub due: Option<Exception>,
    /// Where the instruction began that raised the last exception.
    pub began: u64,
}

/// The trap after each instruction, while TF is set: DR6.BS.
const SINGLE_STEP: Exception = Exception::debug_trap(1 << 14);

impl Engine {
    /// A CPU on this memory.
    pub fn new(ram: Ram) -> Engine {
        Engine {
            cpu: Cpu::new(ram),
            cache: Cache::default(),
            waiting: None,
            stepping: false,
            shadowed: false,
            until_interruptible: false,
            due: None,
            began: 0,
        }
    }

    /// Gives so many more steps.
    pub fn grant(&mut self, steps: u64) {
        self.cpu.budget += steps;
        self.cpu.granted += steps;
    }

    /// Takes back the steps that are left.
    pub fn revoke(&mut self) {
        self.cpu.granted -= self.cpu.budget;
        self.cpu.budget = 0;
    }

    /// Would an interrupt be taken before the next instruction?
    pub fn interruptible(&self) -> bool {
        self.due.is_none() && self.cpu.system_flags & IF != 0 && !self.cpu.shadow
    }

    /// Finishes the instruction that waits, as far as that takes no other exit.
    pub fn finish(&mut self) -> Option<Event> {
        if let Some(exit) = self.cpu.io.next_exit() {
            return Some(Event::Exit(exit));
        }
        let op = self.waiting.take()?;
        self.shadowed = std::mem::take(&mut self.cpu.shadow);
        // Its step was given back when it stopped.
        match self.cpu.budget {
            0 => self.cpu.granted += 1,
            _ => self.cpu.budget -= 1,
        }
        self.alone(op)
    }

    /// Forgets what was decoded of pages that were written since, from outside, and what was translated by them.
    pub fn drop_overwritten(&mut self) {
        let written = self.cpu.memory.ram.ram().take_watched();
        for page in written {
            let physical = (page as u64) * PAGE;
            self.cache.drop_page(physical, &mut self.cpu.memory);
            self.cpu.memory.drop_overwritten_table(page);
        }
    }

    /// Blocks are not found by ways that do not hold any more.
    fn drop_links(&mut self) {
        let memory = &mut self.cpu.memory;
        let switched = memory.switched.take();
        match std::mem::take(&mut memory.remapped) {
            true => self.cache.remap(),
            false => {
                if let Some(old) = switched {
                    self.cache.switch(old, self.cpu.control.cr3);
                }
            }
        }
    }

    /// Runs until something happens.
    pub fn run(&mut self) -> Event {
        self.cpu.fpu.look_at_host();
        if let Some(event) = self.finish() {
            return event;
        }
        loop {
            if self.stops_now() {
                return Event::Debug;
            }
            if let Some(due) = self.due.take() {
                self.began = self.cpu.rip;
                return Event::Exception(due);
            }
            if self.until_interruptible && self.interruptible() {
                return Event::Interruptible;
            }
            if self.cpu.budget == 0 {
                return Event::Budget;
            }
            if self.cpu.memory.remapped || self.cpu.memory.switched.is_some() {
                self.drop_links();
            }
            let alone = self.cpu.shadow || self.cpu.system_flags & TF != 0;
            let event = match alone || self.cpu.passes_breakpoint() {
                true => self.run_one(),
                false => self.run_blocks(),
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Runs one instruction, after which a trap may be due.
    fn run_one(&mut self) -> Option<Event> {
        self.stepping = self.cpu.system_flags & TF != 0;
        self.shadowed = std::mem::take(&mut self.cpu.shadow);
        let context = self.cache.context(&self.cpu);
        let found = match self.cpu.passes_breakpoint() {
            true => self.cache.look_up(&mut self.cpu),
            false => self.cache.find(&mut self.cpu, context),
        };
        let Ok(number) = found else {
            self.began = self.cpu.rip;
            return self.stopped();
        };
        let op = self.cache.block(number).ops[0];
        self.cpu.budget -= 1;
        self.alone(op)
    }

    /// An instruction that ran alone has completed.
    fn completed(&mut self, op: &Op, flow: Flow) {
        if flow == Flow::Next {
            self.cpu.rip = op.next;
        }
        if std::mem::take(&mut self.stepping) && op.aux & aux::QUIET == 0 {
            let between = flow == Flow::Branch && op.aux & (aux::REP | aux::REPNE) != 0;
            let kind = if between { Kind::Between } else { Kind::Trap };
            self.due = Some(Exception {
                kind,
                ..SINGLE_STEP
            });
        }
    }

    /// Runs blocks, one after the other, until something happens, or the situation changes.
    fn run_blocks(&mut self) -> Option<Event> {
        (self.stepping, self.shadowed) = (false, false);
        let context = self.cache.context(&self.cpu);
        let Ok(mut number) = self.cache.find(&mut self.cpu, context) else {
            self.began = self.cpu.rip;
            return self.stopped();
        };
        // Finding it may have dropped blocks, and no way from before then leads to a block.
        let mut context = self.cache.context(&self.cpu);
        loop {
            let cpu = &mut self.cpu;
            let block = self.cache.block(number);
            match run_ops(cpu, &block.ops, block.end) {
                Ok(Flow::Next | Flow::Branch) => {}
                Ok(Flow::Leave) => return None,
                Err((Raised, op)) => return self.raised(op),
            }
            if cpu.budget == 0 {
                return None;
            }
            if let Some(next) = block.follow(cpu.rip, context) {
                number = next;
                continue;
            }
            let Ok(next) = self.cache.find(cpu, context) else {
                self.began = self.cpu.rip;
                return self.stopped();
            };
            let now = self.cache.context(cpu);
            if now == context {
                self.cache.link(number, cpu.rip, context, next);
            }
            context = now;
            number = next;
        }
    }

    /// The instruction did not complete.
    #[cold]
    fn raised(&mut self, op: Op) -> Option<Event> {
        self.cpu.rip = op.rip();
        self.began = op.rip();
        // Not a step.
        self.cpu.budget += 1;
        if self.cpu.stop == Stop::NotCanonical {
            let fault = match op.aux & aux::STACK {
                0 => GP0,
                _ => SS0,
            };
            self.cpu.stop = Stop::Exception(fault);
        }
        match self.cpu.stop {
            Stop::Alone => {
                self.cpu.budget -= 1;
                self.alone(op)
            }
            Stop::Asks => {
                // It is not over: what it began in is still there.
                self.cpu.shadow = self.shadowed;
                self.waiting = Some(op);
                let asked = self.cpu.io.asks();
                Some(Event::Exit(asked.expect("it asks")))
            }
            Stop::Exception(exception) if exception.kind != Kind::Fault => {
                self.stepping = false;
                self.cpu.budget -= 1;
                self.cpu.rip = op.next;
                self.stopped()
            }
            Stop::Exception(_)
            | Stop::Unsupported(_)
            | Stop::None
            | Stop::NotCanonical
            | Stop::Breakpoint => self.stopped(),
        }
    }

    /// Runs one instruction, or one iteration of one that repeats: it may reach a device, and write over
    /// code. Its step is paid.
    fn alone(&mut self, op: Op) -> Option<Event> {
        self.cpu.io.begin();
        self.cpu.probe.begin();
        let done = (op.run)(&mut self.cpu, &op);
        self.drop_written();
        match done {
            Ok(flow) => self.completed(&op, flow),
            Err(Raised) if self.cpu.stop == Stop::Asks => {
                self.cpu.io.alone = false;
                return self.raised(op);
            }
            Err(Raised) => {
                self.cpu.io.end();
                self.cpu.probe.begin();
                return self.raised(op);
            }
        }
        self.cpu.io.end();
        let exit = self.cpu.io.next_exit();
        exit.map(Event::Exit)
    }

    /// Drops the blocks of the pages whose code was written to.
    pub fn drop_written(&mut self) {
        for page in std::mem::take(&mut self.cpu.io.wrote_code) {
            self.cache.drop_page(page, &mut self.cpu.memory);
        }
    }

    /// What stopped the CPU, as an event.
    fn stopped(&mut self) -> Option<Event> {
        match std::mem::replace(&mut self.cpu.stop, Stop::None) {
            Stop::Exception(exception) => Some(Event::Exception(exception)),
            Stop::Unsupported(what) => Some(Event::Unsupported(what)),
            Stop::NotCanonical => Some(Event::Exception(GP0)),
            Stop::Breakpoint => Some(self.at_breakpoint()),
            stop @ (Stop::None | Stop::Alone | Stop::Asks) => {
                unreachable!("{stop:?} is no reason here")
            }
        }
    }
}

/// Runs a block, or as much of it as there are steps left. On an error, the step of the instruction that
/// did not complete counts as made.
#[inline(always)]
fn run_ops(cpu: &mut Cpu, ops: &[Op], end: u64) -> Result<Flow, (Raised, Op)> {
    let count = (ops.len() as u64).min(cpu.budget);
    cpu.budget -= count;
    for (index, op) in ops[..count as usize].iter().enumerate() {
        match (op.run)(cpu, op) {
            Ok(Flow::Next) => {}
            Ok(flow) => {
                cpu.budget += count - index as u64 - 1;
                return Ok(flow);
            }
            Err(raised) => {
                cpu.budget += count - index as u64 - 1;
                return Err((raised, *op));
            }
        }
    }
    cpu.rip = match ops.get(count as usize) {
        Some(op) => op.rip(),
        None => end,
    };
    Ok(Flow::Next)
}
