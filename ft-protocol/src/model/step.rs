//! What can happen next.

use super::channel::End;
use super::storage::Vanishes;
use std::fmt;

/// How many faults of each kind a pair meets, at most; which of them, and when, is explored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A process dies; its host closes its connection. Or dies as well, and nobody says a word.
    pub crashes: u8,
    pub silent_crashes: u8,
    /// A process that died, or could not be half of a pair, is started anew, with another id.
    pub restarts: u8,
    /// A connection breaks, and its ends hear of it; or they do not, as the network is gone.
    pub cuts: u8,
    pub partitions: u8,
    /// A question to the arbiter gets no answer: it never got there, or the answer was lost.
    pub unanswered: u8,
    /// A side hears nothing for so long that it suspects, though the other one is there.
    pub silences: u8,
    /// Heartbeats that matter by themselves. Time passes in other steps as well.
    pub ticks: u8,
    /// A side is stopped for longer than the other one is patient, and wakes up.
    pub stops: u8,
    /// A side's vCPU hangs for a while.
    pub hangs: u8,
    /// The channel carries nothing for long, and beats pass.
    pub stalls: u8,
    pub failed_fences: u8,
    /// A backup cannot build the machine.
    pub failed_boots: u8,
    /// A copy is not what it was made from.
    pub damaged_copies: u8,
    pub divergences: u8,
    /// The operator wants the backup to take over.
    pub switchovers: u8,
    /// The operator wants a backup to leave, or a primary before its start.
    pub leaves: u8,
    /// The arbiter loses its records.
    pub vanishes: u8,
    /// A primary looks at its records.
    pub looks: u8,
    /// The operator puts a record back: one that nobody has won by, unless he is careless.
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

/// Only those that there are.
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

/// A step. Processes are named by their index: 0 starts as primary, 1 as backup; whoever comes
/// later comes as backup, but for a primary that is started anew.
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
    /// The arbiter gets a question; a claim's answer is still on its way.
    ReachArbiter {
        of: usize,
    },
    ReceiveAnswer {
        who: usize,
    },
    FenceSucceeds {
        of: usize,
    },
    Boot {
        who: usize,
    },
    Run {
        who: usize,
    },
    Emit {
        who: usize,
    },
    Rest {
        who: usize,
    },
    /// The machine is stopped and copied; the copy is built.
    Capture {
        who: usize,
    },
    Restore {
        who: usize,
    },
    AskAgain {
        who: usize,
    },
    NoticeDeath {
        who: usize,
    },
    VcpuAnswers {
        who: usize,
    },

    Crash {
        who: usize,
        without_a_word: bool,
    },
    Restart {
        who: usize,
    },
    /// Of what is on its way to the primary and to the backup, so much arrives.
    Cut {
        connection: usize,
        keep: [usize; 2],
        without_a_word: bool,
    },
    LoseQuestion {
        of: usize,
    },
    LoseAnswer {
        to: usize,
    },
    Silence {
        for_whom: usize,
    },
    Tick {
        who: usize,
    },
    Stop {
        who: usize,
    },
    VcpuHangs {
        who: usize,
    },
    Stall {
        connection: usize,
        first: End,
    },
    FenceFails {
        of: usize,
    },
    BootFails {
        who: usize,
    },
    CopyDamaged {
        who: usize,
    },
    Diverge {
        who: usize,
    },
    Switchover {
        who: usize,
    },
    Leave {
        who: usize,
    },
    Vanish(Vanishes),
    Look {
        who: usize,
    },
    /// What a process puts back arrives, whenever that is.
    PutBack {
        of: usize,
    },
    OperatorRestores {
        careless: bool,
    },
}

impl Step {
    /// Whether it has to happen at last if it can. The others are faults, operators' wishes, and
    /// what a network need not do.
    pub fn is_owed(self) -> bool {
        matches!(
            self,
            Step::Connect { .. }
                | Step::Deliver { .. }
                | Step::ReachArbiter { .. }
                | Step::ReceiveAnswer { .. }
                | Step::FenceSucceeds { .. }
                | Step::Boot { .. }
                | Step::Run { .. }
                | Step::Emit { .. }
                | Step::Rest { .. }
                | Step::Capture { .. }
                | Step::Restore { .. }
                | Step::AskAgain { .. }
                | Step::NoticeDeath { .. }
                | Step::VcpuAnswers { .. }
        )
    }
}
