//! Sees everything, and notes what must not be: the invariants of the design.

use super::guest::Guest;
use super::storage::Storage;
use crate::arbiter::MemberId;

/// What was seen that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// I2: an output left unacknowledged, and not from who is alone by right.
    Unacknowledged { output: u64 },
    /// I3: the arbiter was asked with acknowledged entries not executed.
    AsksTooEarly { executed: u64, acknowledged: u64 },
    /// I4: alone in a generation that another member won, or nobody.
    AloneWithoutRight { generation: u64 },
    /// I4: two are alone.
    TwoAlone,
    /// I4: a pair in a generation that was won before.
    WonBefore { generation: u64 },
    /// I5: an output after a gap, or another one than the world has seen under its number.
    AnotherHistory { output: u64 },
    /// I5: the backup forgets what has not left.
    ForgottenTooEarly { output: u64 },
    /// I5: the guest counts as finished, and not all of its outputs have left.
    OutputsMissing { left: u64 },
    /// I6: a diverged backup claims or goes live.
    GoesOnDiverged,
    /// Live or alone before the fence has succeeded.
    BeforeFence,
    /// A vCPU that was handed over runs on without the right to.
    RunsOnWithoutRight,
    /// Something that nothing here gives a reason for.
    Unreasonable(String),
    /// An assertion failed.
    Panic(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Who made the outputs that have left, whichever side let them out first.
    left: Vec<MemberId>,
    /// How many of them left the process that started as primary.
    left_primary: u64,
    /// Entries that arrived at each process, and which it therefore acknowledges.
    arrived: Vec<u64>,
    /// Who went on alone in which generation.
    alone: Vec<(u64, MemberId)>,
    /// An output left a side of which another one had gone on alone.
    pub stale_repeat: bool,
    /// The first flaw: nothing is explored beyond it.
    pub flaw: Option<Flaw>,
}

impl Witness {
    pub fn note(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }

    /// A process more.
    pub fn meet(&mut self) {
        self.arrived.push(0);
    }

    /// Entries arrived at a process, up to this one.
    pub fn arrives(&mut self, at: usize, seq: u64) {
        self.arrived[at] = seq;
    }

    pub fn arrived(&self, at: usize) -> u64 {
        self.arrived[at]
    }

    pub fn is_alone(&self, who: MemberId) -> bool {
        self.alone.iter().any(|&(_, alone)| alone == who)
    }

    /// A member goes on alone.
    pub fn goes_alone(&mut self, who: MemberId, generation: u64, storage: &Storage) {
        let claimant = storage.of(generation).and_then(|record| record.claimant);
        if claimant != Some(who) {
            self.note(Flaw::AloneWithoutRight { generation });
        }
        // Nobody can join who is alone, and so nobody can follow.
        if !self.alone.is_empty() {
            self.note(Flaw::TwoAlone);
        }
        self.alone.push((generation, who));
    }

    /// A primary's backend takes an output, with its backup at `backup`.
    pub fn primary_emits(
        &mut self,
        who: MemberId,
        output: u64,
        backup: Option<usize>,
        guest: Guest,
    ) {
        let arrived = backup.map_or(0, |backup| self.arrived[backup]);
        if guest.needs(output) > arrived && !self.is_alone(who) {
            self.note(Flaw::Unacknowledged { output });
        }
        self.left_primary = output;
        self.stale_repeat |= !self.alone.is_empty() && !self.is_alone(who);
        self.emitted(output, who);
    }

    /// A backup's backend takes an output that `maker` made.
    pub fn backup_emits(&mut self, who: MemberId, output: u64, maker: MemberId) {
        if !self.is_alone(who) {
            self.note(Flaw::Unacknowledged { output });
        }
        self.emitted(output, maker);
    }

    /// The world gets an output: one that it knows, to the byte, or the next one.
    fn emitted(&mut self, output: u64, maker: MemberId) {
        let known = self.left.len() as u64;
        if output == known + 1 {
            self.left.push(maker);
        } else if output > known || self.left[output as usize - 1] != maker {
            self.note(Flaw::AnotherHistory { output });
        }
    }

    /// A backup forgets outputs up to this one.
    pub fn forgets(&mut self, output: u64) {
        if output > self.left_primary {
            self.note(Flaw::ForgottenTooEarly { output });
        }
    }

    /// Somebody says that all is done.
    pub fn finishes(&mut self, guest: Guest) {
        let left = self.left.len() as u64;
        if left < guest.outputs_up_to(guest.len()) {
            self.note(Flaw::OutputsMissing { left });
        }
    }
}
