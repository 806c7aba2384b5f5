//! What a debugger needs of a CPU. Only one that executes instructions itself can do all of it, exactly.

use crate::CpuState;

/// A moment between two instructions of a guest. A guest that runs again from the same state and with the same
/// inputs comes to the same moments in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct When {
    /// Steps made ([`crate::Vcpu::steps`]).
    pub steps: u64,
    /// Exceptions and interrupts delivered since the last of them: a delivery is no step, and moves RIP.
    pub deliveries: u32,
}

impl When {
    /// The first moment after so many steps.
    pub const fn step(steps: u64) -> When {
        When {
            steps,
            deliveries: 0,
        }
    }

    /// No moment is between this one and that.
    pub const fn next(self) -> When {
        When {
            steps: self.steps,
            deliveries: self.deliveries.saturating_add(1),
        }
    }
}

/// Which accesses a watchpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Both.
    Access,
}

/// Bytes that are watched, at linear addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// The first one's address.
    pub address: u64,
    /// How many.
    pub len: u64,
    /// Which accesses.
    pub kind: Watched,
}

/// Why the guest stopped for its debugger: [`crate::Vcpu::run`] returned [`crate::Run::Kicked`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugStop {
    /// The moment that was asked for has come ([`DebugCpu::stop_at`]).
    Moment,
    /// The next instruction has a breakpoint.
    Breakpoint,
    /// The last instruction, or delivery, made an access that is watched.
    Watchpoint(Watchpoint),
}

/// A CPU under a debugger. What the debugger asks for changes nothing that the guest could see.
pub trait DebugCpu {
    /// Now.
    fn when(&self) -> When;

    /// Says which moment it is, of those that have as many steps as the CPU has made: no state keeps that.
    fn set_when(&mut self, when: When);

    /// Stops at the first moment at or after this one; the guest's exits come before that. `None`: runs on.
    fn stop_at(&mut self, when: Option<When>);

    /// Stops before the instructions at these linear addresses.
    fn set_breakpoints(&mut self, addresses: &[u64]);

    /// Stops after each instruction that makes one of these accesses.
    fn set_watchpoints(&mut self, watchpoints: &[Watchpoint]);

    /// The breakpoint at this very moment is not stopped at again.
    fn pass(&mut self);

    /// Why it stopped, if it did since the last call.
    fn take_stop(&mut self) -> Option<DebugStop>;

    /// The physical address of a linear one, for a supervisor, by the guest's tables. Leaves no trace in them.
    fn translate(&self, address: u64) -> Option<u64>;

    /// All registers.
    fn state(&self) -> CpuState;
}
