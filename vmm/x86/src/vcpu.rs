//! The CPU behind the trait that a machine knows.

use crate::engine::{Engine, Event};
use crate::exception::{Exception, Kind, vector};
use crate::flags::IF;
use crate::fpu::Fpu;
use crate::state::seg;
use crate::system::msr_slot;
use ft_protocol::log::{Check, CpuKind, SOFT_CPU_MODEL};
use lockstep_memory::Ram;
use lockstep_memory::direct::{DirtyBytes, take_dirty};
use lockstep_vcpu::state::{
    self, Counters, Debug as DebugRegisters, Events, FPU_WORDS, Registers, System,
};
use lockstep_vcpu::{
    CpuBackend, CpuError, CpuState, DebugCpu, DirtyPages, DirtySource, Exit, Run, Until, Vcpu,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A kick is noticed after at most this many steps: some milliseconds.
const SLICE: u64 = 1 << 20;
/// More steps than any CPU has made. A state that says so is damaged.
const MOST_STEPS: u64 = 1 << 62;

/// A guest whose handlers fault at their first instruction would have exceptions delivered for ever. After this
/// many in a row the guest shuts down, as at a triple fault.
const MOST_DELIVERIES: u32 = 1 << 16;

/// The numbers of the general registers in the order of [`Registers::general`].
const GENERAL: [usize; 16] = [0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
/// The numbers of the segment registers in the order of [`System::segments`].
const SEGMENTS: [u8; 8] = [
    seg::CS,
    seg::DS,
    seg::ES,
    seg::FS,
    seg::GS,
    seg::SS,
    seg::TR,
    seg::LDT,
];
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;

/// CR0.PG and CR0.PE, CR4.PAE, EFER.LMA.
const PAGING: u64 = 1 << 31 | 1;
const PAE: u64 = 1 << 5;
const LMA: u64 = 1 << 10;

/// The software CPU.
#[derive(Clone, Copy, Debug)]
pub struct Soft;

impl CpuBackend for Soft {
    fn kind(&self) -> CpuKind {
        CpuKind::Soft {
            model: SOFT_CPU_MODEL,
        }
    }

    fn available(&self) -> Result<(), CpuError> {
        Ok(())
    }

    fn cpu(&self, ram: Ram, state: &CpuState) -> Result<Box<dyn Vcpu>, CpuError> {
        Ok(Box::new(SoftVcpu::new(ram, state)?))
    }

    fn host_cpu(&self) -> String {
        crate::cpuid::NAME.trim_end_matches('\0').to_owned()
    }
}

/// A byte for each page, as a record of written pages.
#[derive(Debug)]
struct Written(DirtyBytes);

impl DirtySource for Written {
    fn take(&self) -> Result<Vec<u64>, CpuError> {
        Ok(take_dirty(&self.0))
    }
}

/// One CPU, on its memory.
pub struct SoftVcpu {
    pub(crate) engine: Engine,
    dirty: DirtyPages,
    /// An interrupt that was handed over.
    queued: Option<u8>,
    kicked: Arc<AtomicBool>,
}

impl fmt::Debug for SoftVcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftVcpu")
            .field("rip", &self.engine.cpu.rip)
            .field("steps", &self.engine.cpu.steps())
            .finish_non_exhaustive()
    }
}

impl SoftVcpu {
    /// A CPU in this state.
    pub fn new(ram: Ram, state: &CpuState) -> Result<SoftVcpu, CpuError> {
        let mut engine = Engine::new(ram.clone());
        load(&mut engine, state)?;
        let queued = match state.events.interrupt {
            [0, ..] => None,
            [_, vector, ..] => Some(vector),
        };
        let written = Written(engine.cpu.memory.ram.dirty().clone());
        Ok(SoftVcpu {
            engine,
            dirty: DirtyPages::new(Arc::new(written), ram),
            queued,
            kicked: Arc::default(),
        })
    }

    /// Runs until the guest exits, or has made `steps` steps: then [`Run::Kicked`].
    pub fn run_steps(&mut self, steps: u64) -> Result<Run, CpuError> {
        self.engine.revoke();
        self.engine.grant(steps);
        self.enter()
    }

    fn enter(&mut self) -> Result<Run, CpuError> {
        self.engine.drop_overwritten();
        // An instruction that exited is finished first; then an interrupt is taken.
        let mut event = self.engine.finish();
        if event.is_none()
            && let Some(vector) = self.queued.take()
        {
            event = self.engine.deliver_interrupt(vector);
        }
        let (mut deliveries, mut steps) = (0, self.steps());
        loop {
            let happened = event.take().unwrap_or_else(|| self.engine.run());
            event = match happened {
                Event::Exception(exception) => {
                    if std::mem::replace(&mut steps, self.steps()) != steps {
                        deliveries = 0;
                    }
                    deliveries += 1;
                    match deliveries > MOST_DELIVERIES {
                        false => self.engine.deliver_exception(exception),
                        true => Some(Event::Exit(Exit::Shutdown)),
                    }
                }
                Event::Exit(exit) => return Ok(Run::Exit(exit)),
                Event::Interruptible => return Ok(Run::Exit(Exit::Interruptible)),
                Event::Budget | Event::Debug => return Ok(Run::Kicked),
                Event::Unsupported(what) => return Err(self.error(what)),
            };
        }
    }

    fn error(&self, what: &str) -> CpuError {
        CpuError::Guest {
            rip: self.engine.cpu.rip,
            what: what.to_owned(),
        }
    }

    fn registers(&self) -> Registers {
        let cpu = &self.engine.cpu;
        Registers {
            general: GENERAL.map(|number| cpu.r[number]),
            rip: cpu.rip,
            rflags: cpu.rflags(),
        }
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, until: Until) -> Result<Run, CpuError> {
        self.engine.until_interruptible = until.interruptible;
        self.engine.cpu.probe.exits_at(until.steps);
        loop {
            let left = until.steps.saturating_sub(self.steps());
            let left = self.engine.cpu.until_stop(left.min(SLICE));
            if let Run::Exit(exit) = self.run_steps(left)? {
                return Ok(Run::Exit(exit));
            }
            if self.engine.cpu.probe.stopped() {
                return Ok(Run::Kicked);
            }
            if self.steps() >= until.steps {
                return Ok(Run::Exit(Exit::Steps));
            }
            if self.kicked.swap(false, Ordering::Relaxed) {
                return Ok(Run::Kicked);
            }
        }
    }

    fn steps(&self) -> u64 {
        self.engine.cpu.steps()
    }

    fn pass(&mut self, ns: u64) {
        let cpu = &mut self.engine.cpu;
        cpu.tsc_offset = cpu.tsc_offset.wrapping_add(ns);
    }

    fn heed(&mut self, kick: Arc<AtomicBool>) {
        self.kicked = kick;
    }

    fn answer(&mut self, data: &[u8]) {
        self.engine.cpu.io.answer(data);
    }

    fn settle(&mut self) -> Result<Run, CpuError> {
        match self.engine.finish() {
            None => Ok(Run::Kicked),
            Some(Event::Exit(exit)) => Ok(Run::Exit(exit)),
            Some(Event::Exception(exception)) => {
                self.engine.due = Some(exception);
                Ok(Run::Kicked)
            }
            Some(Event::Unsupported(what)) => Err(self.error(what)),
            Some(event @ (Event::Budget | Event::Interruptible | Event::Debug)) => {
                unreachable!("{event:?} while one instruction completes")
            }
        }
    }

    fn ready(&mut self) -> bool {
        // An instruction that waits for an answer is finished first.
        self.queued.is_none() && self.engine.interruptible()
    }

    fn deliver(&mut self, vector: u8) -> Result<(), CpuError> {
        assert!(self.queued.is_none(), "an interrupt still waits");
        self.queued = Some(vector);
        Ok(())
    }

    fn interrupts_enabled(&mut self) -> bool {
        self.engine.cpu.system_flags & IF != 0
    }

    fn exception_due(&mut self) -> bool {
        self.engine.due.is_some()
    }

    fn check(&self) -> Check {
        self.registers().check()
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        let cpu = &self.engine.cpu;
        let control = cpu.control;
        let mut fpu = [0; FPU_WORDS];
        for (word, bytes) in fpu.iter_mut().zip(cpu.fpu.fxsave().chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        }
        let mut msrs = cpu.msrs;
        for (index, register) in [(FS_BASE, seg::FS), (GS_BASE, seg::GS)] {
            msrs[msr_slot(index).expect("it is in the list")] =
                cpu.segments[usize::from(register)].base;
        }
        let [a, b, c, d, dr6, dr7] = cpu.debug;
        Ok(CpuState {
            registers: self.registers(),
            system: System {
                segments: SEGMENTS.map(|number| cpu.segments[usize::from(number)]),
                tables: cpu.tables,
                control: [
                    control.cr0,
                    control.cr2,
                    control.cr3,
                    control.cr4,
                    control.cr8,
                    control.efer,
                ],
            },
            fpu: state::Fpu::from_fxsave(&fpu),
            xcr0: 1,
            msrs,
            events: self.events(),
            debug: DebugRegisters {
                addresses: [a, b, c, d],
                dr6,
                dr7,
            },
            counters: Counters {
                steps: cpu.steps(),
                tsc_offset: cpu.tsc_offset,
                tsc_adjust: cpu.tsc_adjust,
            },
        })
    }

    fn dirty_pages(&self) -> &DirtyPages {
        &self.dirty
    }

    fn debugged(&mut self) -> Option<&mut dyn DebugCpu> {
        Some(self)
    }
}

impl SoftVcpu {
    fn events(&self) -> Events {
        let mut events = Events::default();
        if let Some(due) = self.engine.due {
            // Pending is what has something left to do to CR2 or DR6.
            let pending = u8::from(due.detail.is_some());
            let has_code = u8::from(due.code.is_some());
            events.exception = [1 - pending, pending, due.vector, has_code];
            events.error_code = due.code.unwrap_or(0);
            events.payload = due.detail;
        }
        let shadow = u8::from(self.engine.cpu.shadow);
        events.interrupt = match self.queued {
            Some(vector) => [1, vector, 0, shadow],
            None => [0, 0, 0, shadow],
        };
        events
    }
}

/// Puts the CPU into this state. It may come from a file or a peer that is not to be trusted.
fn load(engine: &mut Engine, state: &CpuState) -> Result<(), CpuError> {
    let cpu = &mut engine.cpu;
    let [cr0, cr2, cr3, cr4, cr8, efer] = state.system.control;
    let long = cr0 & PAGING == PAGING && cr4 & PAE != 0 && efer & LMA != 0;
    if !long || state.xcr0 != 1 {
        let what = "the software CPU runs long mode only, without XSAVE";
        return Err(CpuError::State(what.into()));
    }
    if state.events.nmi[..2] != [0, 0] {
        return Err(CpuError::State("the software CPU has no NMI".into()));
    }
    if state.counters.steps > MOST_STEPS {
        return Err(CpuError::State(
            "the software CPU has not made so many steps".into(),
        ));
    }
    (cpu.granted, cpu.budget) = (state.counters.steps, 0);
    cpu.tsc_offset = state.counters.tsc_offset;
    cpu.tsc_adjust = state.counters.tsc_adjust;
    for (number, value) in GENERAL.into_iter().zip(state.registers.general) {
        cpu.r[number] = value;
    }
    cpu.rip = state.registers.rip;
    cpu.set_rflags(state.registers.rflags);
    for (number, segment) in SEGMENTS.into_iter().zip(state.system.segments) {
        cpu.segments[usize::from(number)] = segment;
    }
    cpu.tables = state.system.tables;
    cpu.control = crate::state::Control {
        cr0,
        cr2,
        cr3,
        cr4,
        cr8,
        efer,
    };
    cpu.msrs = state.msrs;
    let mut area = [0; 4 * FPU_WORDS];
    for (bytes, word) in area.chunks_exact_mut(4).zip(state.fpu.fxsave()) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    cpu.fpu = Fpu::from_fxsave(&area);
    let debug = &state.debug;
    let [a, b, c, d] = debug.addresses;
    cpu.debug = [a, b, c, d, debug.dr6, debug.dr7];
    cpu.shadow = state.events.interrupt[3] != 0;
    let cpl = cpu.segments[usize::from(seg::SS)].attributes.dpl;
    cpu.set_cpl(cpl & 3);
    if cpu.set_mode().is_err() {
        return Err(CpuError::State(
            "the software CPU runs 64-bit and 32-bit code only".into(),
        ));
    }
    engine.due = due(&state.events);
    Ok(())
}

/// The exception that is under way.
fn due(events: &Events) -> Option<Exception> {
    let [injected, pending, number, has_code] = events.exception;
    (injected != 0 || pending != 0).then(|| Exception {
        vector: number,
        code: (has_code != 0).then_some(events.error_code),
        detail: events.payload,
        kind: match number {
            vector::DB => Kind::Trap,
            _ => Kind::Fault,
        },
    })
}
