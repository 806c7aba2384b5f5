//! Sees everything, and notes what must not be: the invariants of the design.

use super::guest::Guest;
use super::storage::Storage;
use crate::Loss;
use crate::arbiter::MemberId;

/// What was seen that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// I2: an output left unacknowledged, and not from who is alone by right.
    Unacknowledged { output: u64 },
    /// I1: the copy that is armed is none.
    AnotherMachine,
    /// I3: the arbiter was asked with acknowledged entries not executed.
    AsksTooEarly { executed: u64, acknowledged: u64 },
    /// I4: alone in a generation that another member won, or nobody.
    AloneWithoutRight { generation: u64 },
    /// I4: two are alone.
    TwoAlone,
    /// I4: a pair in a generation that was won before.
    WonBefore { generation: u64 },
    /// I4: a right is given away by who has none, or for a generation that is not open for the two.
    ArmsWithoutRight { generation: u64 },
    /// I4: a generation is opened again for others.
    UsedAgain { generation: u64 },
    /// I5: an output after a gap, or another one than the world has seen under its number.
    AnotherHistory { output: u64 },
    /// I5: the backup forgets what has not left.
    ForgottenTooEarly { output: u64 },
    /// I5: the guest counts as finished, and not all of its outputs have left.
    OutputsMissing { left: u64 },
    /// Who closed all that it opened left a generation open.
    LeftOpen,
    /// I6: a diverged backup claims or goes live.
    GoesOnDiverged,
    /// Live or alone before the fence has succeeded.
    BeforeFence,
    /// A vCPU that was handed over runs on without the right to.
    RunsOnWithoutRight,
    /// Who was away says again what another one that is alone says.
    SaidByWhoWasAway { output: u64 },
    /// Something that nothing here gives a reason for.
    Unreasonable(String),
    /// An assertion failed.
    Panic(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Who made the outputs that have left, whichever side let them out first.
    left: Vec<MemberId>,
    /// Entries that arrived at each process, and which it therefore acknowledges.
    arrived: Vec<u64>,
    /// In which generations somebody went on alone.
    won: Vec<u64>,
    /// Who goes on alone by right, until it arms somebody.
    alone: Option<MemberId>,
    /// An output left a side of which another one had gone on alone.
    pub stale_repeat: bool,
    /// The first flaw: nothing is explored beyond it.
    pub flaw: Option<Flaw>,
}

impl Witness {
    pub fn note(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }

    /// Somebody gave a peer up. Whatever fails, nobody sends here what a peer does not send.
    pub fn lost(&mut self, loss: &Loss) {
        if let Loss::Broke(_) = loss {
            self.note(Flaw::Unreasonable(loss.to_string()));
        }
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
        self.alone == Some(who)
    }

    pub fn is_another_alone(&self, who: MemberId) -> bool {
        self.alone.is_some_and(|alone| alone != who)
    }

    /// A member goes on alone.
    pub fn goes_alone(&mut self, who: MemberId, generation: u64, storage: &Storage) {
        let winner = storage.of(generation).and_then(|record| record.winner);
        if winner != Some(who) {
            self.note(Flaw::AloneWithoutRight { generation });
        }
        if self.alone.is_some() || self.won.contains(&generation) {
            self.note(Flaw::TwoAlone);
        }
        self.won.push(generation);
        self.alone = Some(who);
    }

    /// Who is alone gives that right up for half of a generation.
    pub fn arms(&mut self, who: MemberId, generation: u64, storage: &Storage) {
        let record = storage.of(generation);
        let fresh = record.is_some_and(|record| {
            let pair = record.members.primary == who && record.members.backup.is_some();
            pair && record.winner.is_none()
        });
        if !fresh || !self.is_alone(who) {
            self.note(Flaw::ArmsWithoutRight { generation });
        }
        self.alone = None;
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
        self.stale_repeat |= self.alone.is_some() && !self.is_alone(who);
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
        if output > self.left.len() as u64 {
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
