//! The steps of the model.

use super::channel::End;
use super::storage::Vanishes;
use std::fmt;

/// How many faults of each kind may happen, at most. Which of them happen, and when, is explored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A process dies. Its host closes its connection; after a silent crash the host is gone too, and
    /// the peer gets no close.
    pub crashes: u8,
    pub silent_crashes: u8,
    /// A process that died, or that could not become half of a pair, is started again with another id.
    pub restarts: u8,
    /// A connection breaks. After a cut its ends notice it; after a partition they do not, as the
    /// network is gone.
    pub cuts: u8,
    pub partitions: u8,
    /// A question to the arbiter gets no answer: the question was lost, or the answer was lost.
    pub unanswered: u8,
    /// A side hears nothing for so long that it suspects its peer, although the peer is there.
    pub silences: u8,
    /// Single heartbeats at any moment. Time passes in other steps too.
    pub ticks: u8,
    /// A side is stopped for longer than its peer waits, and then wakes up.
    pub stops: u8,
    /// A side's vCPU hangs for a while.
    pub hangs: u8,
    /// The connection carries nothing for long, but beats pass.
    pub stalls: u8,
    pub failed_fences: u8,
    /// A backup cannot build the machine.
    pub failed_boots: u8,
    /// A copy differs from its source.
    pub damaged_copies: u8,
    pub divergences: u8,
    /// The operator wants the backup to take over.
    pub switchovers: u8,
    /// The operator ends a backup, or a primary before its start.
    pub leaves: u8,
    /// The arbiter loses its records.
    pub vanishes: u8,
    /// A primary looks at its records.
    pub looks: u8,
    /// The operator puts a record back. Only a careless one does so after a member has won the
    /// generation.
    pub restores: u8,
    pub careless_restores: u8,
}

impl Faults {
    pub const NONE: Faults = Faults {
        crashes: 0,
        silent_crashes: 0,
        restarts: 0,
        cuts: 0,
        partitions: 0,
        unanswered: 0,
        silences: 0,
        ticks: 0,
        stops: 0,
        hangs: 0,
        stalls: 0,
        failed_fences: 0,
        failed_boots: 0,
        damaged_copies: 0,
        divergences: 0,
        switchovers: 0,
        leaves: 0,
        vanishes: 0,
        looks: 0,
        restores: 0,
        careless_restores: 0,
    };
}

impl Faults {
    /// Those of which this step of a process is one.
    pub fn of(&mut self, own: Own) -> Option<&mut u8> {
        Some(match own {
            Own::Crash {
                without_a_word: false,
            } => &mut self.crashes,
            Own::Crash {
                without_a_word: true,
            } => &mut self.silent_crashes,
            Own::LoseQuestion | Own::LoseAnswer => &mut self.unanswered,
            Own::HearNothing => &mut self.silences,
            Own::Tick => &mut self.ticks,
            Own::Stop => &mut self.stops,
            Own::VcpuHangs => &mut self.hangs,
            Own::Fence { succeeds: false } => &mut self.failed_fences,
            Own::BootFails => &mut self.failed_boots,
            Own::CopyDamaged => &mut self.damaged_copies,
            Own::Diverge => &mut self.divergences,
            Own::Switchover => &mut self.switchovers,
            Own::Leave => &mut self.leaves,
            Own::Look => &mut self.looks,
            Own::ReachArbiter
            | Own::ReceiveAnswer
            | Own::Fence { succeeds: true }
            | Own::Boot
            | Own::Run
            | Own::Emit
            | Own::Rest
            | Own::Load
            | Own::Capture
            | Own::Restore
            | Own::AskAgain
            | Own::NoticeDeath
            | Own::VcpuAnswers
            | Own::PutBack => return None,
        })
    }
}

/// Shows only the kinds that occur.
impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("crashes", self.crashes),
            ("silent_crashes", self.silent_crashes),
            ("restarts", self.restarts),
            ("cuts", self.cuts),
            ("partitions", self.partitions),
            ("unanswered", self.unanswered),
            ("silences", self.silences),
            ("ticks", self.ticks),
            ("stops", self.stops),
            ("hangs", self.hangs),
            ("stalls", self.stalls),
            ("failed_fences", self.failed_fences),
            ("failed_boots", self.failed_boots),
            ("damaged_copies", self.damaged_copies),
            ("divergences", self.divergences),
            ("switchovers", self.switchovers),
            ("leaves", self.leaves),
            ("vanishes", self.vanishes),
            ("looks", self.looks),
            ("restores", self.restores),
            ("careless_restores", self.careless_restores),
        ];
        let there = kinds.iter().filter(|(_, left)| *left > 0);
        f.debug_map().entries(there.copied()).finish()
    }
}

/// A step. Processes are named by their index: 0 starts as primary, 1 as backup. Later processes start
/// as backups, except for a primary that is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Connect {
        primary: usize,
        backup: usize,
    },
    Deliver {
        connection: usize,
        to: End,
    },
    DeliverBeat {
        to: usize,
    },
    /// A step of one process alone.
    Of(usize, Own),

    Restart {
        who: usize,
    },
    /// The connection breaks. `keep` is the number of packets under way to the primary and to the
    /// backup that still arrive.
    Cut {
        connection: usize,
        keep: [usize; 2],
        without_a_word: bool,
    },
    Stall {
        connection: usize,
        first: End,
    },
    Vanish(Vanishes),
    OperatorRestores {
        careless: bool,
    },
}

/// What a process does, or what happens to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// The arbiter gets its question; a claim's answer is still on its way.
    ReachArbiter,
    ReceiveAnswer,
    Fence {
        succeeds: bool,
    },
    Boot,
    Run,
    Emit,
    Rest,
    /// A piece of a copy gets into the memory.
    Load,
    /// The source's machine is stopped and copied.
    Capture,
    Restore,
    AskAgain,
    NoticeDeath,
    VcpuAnswers,

    Crash {
        without_a_word: bool,
    },
    LoseQuestion,
    LoseAnswer,
    HearNothing,
    Tick,
    Stop,
    VcpuHangs,
    BootFails,
    CopyDamaged,
    Diverge,
    Switchover,
    Leave,
    Look,
    /// What it puts back arrives, whenever that is.
    PutBack,
}

impl Step {
    /// Must the step happen at last if it is possible? The other steps are faults, an operator's
    /// wishes, and what a network need not do.
    pub fn is_owed(self) -> bool {
        match self {
            Step::Connect { .. } | Step::Deliver { .. } => true,
            Step::Of(_, own) => own.is_owed(),
            Step::DeliverBeat { .. }
            | Step::Restart { .. }
            | Step::Cut { .. }
            | Step::Stall { .. }
            | Step::Vanish(_)
            | Step::OperatorRestores { .. } => false,
        }
    }
}

impl Own {
    fn is_owed(self) -> bool {
        match self {
            Own::ReachArbiter
            | Own::ReceiveAnswer
            | Own::Fence { succeeds: true }
            | Own::Boot
            | Own::Run
            | Own::Emit
            | Own::Rest
            | Own::Load
            | Own::Capture
            | Own::Restore
            | Own::AskAgain
            | Own::NoticeDeath
            | Own::VcpuAnswers => true,
            Own::Fence { succeeds: false }
            | Own::Crash { .. }
            | Own::LoseQuestion
            | Own::LoseAnswer
            | Own::HearNothing
            | Own::Tick
            | Own::Stop
            | Own::VcpuHangs
            | Own::BootFails
            | Own::CopyDamaged
            | Own::Diverge
            | Own::Switchover
            | Own::Leave
            | Own::Look
            | Own::PutBack => false,
        }
    }
}
