//! The session as gdb's protocol sees it.

use crate::DebugError;
use crate::monitor;
use crate::registers::{All, X86, description};
use crate::session::{Halt, Session};
use crate::wire::Wire;
use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::SingleThreadStopReason;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::reverse_exec::{
    ReplayLogPosition, ReverseCont, ReverseContOps, ReverseStep, ReverseStepOps,
};
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use lockstep_vcpu::debug::{Watched, Watchpoint};

/// Errno values that gdb is told.
const EFAULT: u8 = 14;
const EROFS: u8 = 30;

/// What the guest is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Resume,
    Step,
    ResumeBack,
    StepBack,
}

/// A session under gdb.
pub struct Debugged {
    pub(crate) session: Session,
    mode: Mode,
    software: Vec<u64>,
    hardware: Vec<u64>,
    /// The user was told that a recording cannot be changed.
    told: bool,
}

impl Debugged {
    /// For gdb.
    pub fn new(session: Session) -> Debugged {
        Debugged {
            session,
            mode: Mode::Resume,
            software: Vec::new(),
            hardware: Vec::new(),
            told: false,
        }
    }

    /// A gdb has come, or gone: none of its breakpoints holds.
    pub fn forget(&mut self) {
        (self.software, self.hardware) = (Vec::new(), Vec::new());
        self.session.set_breakpoints(Vec::new());
        self.session.set_watchpoints(Vec::new());
    }

    fn set_breakpoints(&mut self) {
        let all = [&self.software[..], &self.hardware[..]].concat();
        self.session.set_breakpoints(all);
    }

    fn refuse<T>(&mut self) -> TargetResult<T, Self> {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("gdb wanted to change the guest, and a recording cannot be changed");
        }
        Err(TargetError::Errno(EROFS))
    }

    /// Lets the guest do what it is to do.
    fn go(&mut self, interrupt: &mut dyn FnMut() -> bool) -> Result<Halt, DebugError> {
        match self.mode {
            Mode::Resume => self.session.resume(interrupt),
            Mode::Step => self.session.step(),
            Mode::ResumeBack => self.session.resume_back(interrupt),
            Mode::StepBack => self.session.step_back(),
        }
    }

    fn reason(&mut self, halt: &Halt) -> SingleThreadStopReason<u64> {
        let log = |pos| SingleThreadStopReason::ReplayLog { tid: Some(()), pos };
        match halt {
            Halt::Moment | Halt::Exit => SingleThreadStopReason::DoneStep,
            Halt::Breakpoint => {
                let rip = self.session.registers().registers.rip;
                match self.software.contains(&rip) {
                    true => SingleThreadStopReason::SwBreak(()),
                    false => SingleThreadStopReason::HwBreak(()),
                }
            }
            Halt::Watchpoint(watchpoint) => SingleThreadStopReason::Watch {
                tid: (),
                kind: match watchpoint.kind {
                    Watched::Read => WatchKind::Read,
                    Watched::Write => WatchKind::Write,
                    Watched::Access => WatchKind::ReadWrite,
                },
                addr: watchpoint.address,
            },
            Halt::Beginning => log(ReplayLogPosition::Begin),
            Halt::End => log(ReplayLogPosition::End),
            Halt::Interrupted => SingleThreadStopReason::Signal(Signal::SIGINT),
        }
    }
}

impl Target for Debugged {
    type Arch = X86;
    type Error = DebugError;

    fn base_ops(&mut self) -> BaseOps<'_, X86, DebugError> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Debugged {
    fn read_registers(&mut self, registers: &mut All) -> TargetResult<(), Self> {
        let exit = self.session.machine.position().exit;
        *registers = All::new(&self.session.registers(), exit);
        Ok(())
    }

    fn write_registers(&mut self, _: &All) -> TargetResult<(), Self> {
        self.refuse()
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        match self.session.read(address, data) {
            0 => Err(TargetError::Errno(EFAULT)),
            read => Ok(read),
        }
    }

    fn write_addrs(&mut self, _: u64, _: &[u8]) -> TargetResult<(), Self> {
        self.refuse()
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Debugged {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), DebugError> {
        self.mode = Mode::Resume;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, (), Self>> {
        Some(self)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, (), Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Debugged {
    fn step(&mut self, _: Option<Signal>) -> Result<(), DebugError> {
        self.mode = Mode::Step;
        Ok(())
    }
}

impl ReverseCont<()> for Debugged {
    fn reverse_cont(&mut self) -> Result<(), DebugError> {
        self.mode = Mode::ResumeBack;
        Ok(())
    }
}

impl ReverseStep<()> for Debugged {
    fn reverse_step(&mut self, (): ()) -> Result<(), DebugError> {
        self.mode = Mode::StepBack;
        Ok(())
    }
}

impl Breakpoints for Debugged {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

/// Removes one of these from the list, if it is there.
fn remove<T: PartialEq>(list: &mut Vec<T>, item: &T) -> bool {
    let found = list.iter().position(|it| it == item);
    found.map(|index| list.remove(index)).is_some()
}

impl SwBreakpoint for Debugged {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.software.push(address);
        self.set_breakpoints();
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let removed = remove(&mut self.software, &address);
        self.set_breakpoints();
        Ok(removed)
    }
}

impl HwBreakpoint for Debugged {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.hardware.push(address);
        self.set_breakpoints();
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let removed = remove(&mut self.hardware, &address);
        self.set_breakpoints();
        Ok(removed)
    }
}

fn watchpoint(address: u64, len: u64, kind: WatchKind) -> Watchpoint {
    let kind = match kind {
        WatchKind::Read => Watched::Read,
        WatchKind::Write => Watched::Write,
        WatchKind::ReadWrite => Watched::Access,
    };
    Watchpoint { address, len, kind }
}

impl HwWatchpoint for Debugged {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let mut all = self.session.watchpoints().to_vec();
        all.push(watchpoint(address, len, kind));
        self.session.set_watchpoints(all);
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let mut all = self.session.watchpoints().to_vec();
        let removed = remove(&mut all, &watchpoint(address, len, kind));
        self.session.set_watchpoints(all);
        Ok(removed)
    }
}

impl MonitorCmd for Debugged {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), DebugError> {
        let command = String::from_utf8_lossy(command);
        let answer = monitor::answer(&mut self.session, &command)?;
        for line in answer.lines() {
            gdbstub::outputln!(out, "{line}");
        }
        Ok(())
    }
}

impl TargetDescriptionXmlOverride for Debugged {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let text = description();
        let rest = text.as_bytes().get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(length).min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Lets the guest run while nothing comes from gdb.
#[derive(Debug)]
pub enum Loop {}

impl BlockingEventLoop for Loop {
    type Target = Debugged;
    type Connection = Wire;
    type StopReason = SingleThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Debugged,
        wire: &mut Wire,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<DebugError, std::io::Error>> {
        let halt = target.go(&mut || wire.ready());
        match halt.map_err(WaitForStopReasonError::Target)? {
            Halt::Interrupted => {
                let byte = wire.read().map_err(WaitForStopReasonError::Connection)?;
                Ok(Event::IncomingData(byte))
            }
            halt => Ok(Event::TargetStopped(target.reason(&halt))),
        }
    }

    fn on_interrupt(_: &mut Debugged) -> Result<Option<Self::StopReason>, DebugError> {
        Ok(Some(SingleThreadStopReason::Signal(Signal::SIGINT)))
    }
}
