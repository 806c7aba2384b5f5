//! Observes every step of the model, and notes violations of the invariants of the design.

use super::guest::Guest;
use super::storage::Storage;
use crate::Loss;
use crate::arbiter::MemberId;

/// A violation of an invariant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// I2: an output left before it was acknowledged, and its member does not run alone by right.
    Unacknowledged { output: u64 },
    /// I1: the copy of an armed backup differs from its source.
    AnotherMachine,
    /// I3: a member asked the arbiter for its claim before it had executed all entries that it
    /// acknowledged.
    AsksTooEarly { executed: u64, acknowledged: u64 },
    /// I4: a member went on alone in a generation that another member has won, or that no member has
    /// won.
    AloneWithoutRight { generation: u64 },
    /// I4: two members are alone.
    TwoAlone,
    /// I4: a pair starts in a generation that was won before.
    WonBefore { generation: u64 },
    /// I4: a member arms a backup although it has no right to run alone itself, or although no open
    /// record names these two.
    ArmsWithoutRight { generation: u64 },
    /// I4: a generation is opened again, for other members.
    UsedAgain { generation: u64 },
    /// I5: an output left after a gap, or differs from the output that left before under its number.
    AnotherHistory { output: u64 },
    /// I5: the backup forgets an output that has not left.
    ForgottenTooEarly { output: u64 },
    /// I5: the guest counts as finished before all of its outputs have left.
    OutputsMissing { left: u64 },
    /// A member finished, but left its last generation open.
    LeftOpen,
    /// I6: a diverged backup claims or goes live.
    GoesOnDiverged,
    /// A member went live or went on alone before its fence had succeeded.
    BeforeFence,
    /// A vCPU that rested for a handover runs on without the right to.
    RunsOnWithoutRight,
    /// A primary that was stopped lets out an output although another member is alone already.
    SaidByWhoWasAway { output: u64 },
    /// An action for which the model gives no reason.
    Unreasonable(String),
    /// An assertion of the protocol failed.
    Panic(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    /// The member that made each output that has left, whichever side let it out first.
    left: Vec<MemberId>,
    /// The last entry that has arrived at each process, which it therefore acknowledges.
    arrived: Vec<u64>,
    /// The generations in which a member went on alone.
    won: Vec<u64>,
    /// The member that runs alone by right, until it arms a backup.
    alone: Option<MemberId>,
    /// A primary let out an output although another member had gone on alone. This is allowed if the
    /// output is the same.
    pub stale_repeat: bool,
    /// The first violation: the model is not explored beyond it.
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

    /// Another process starts.
    pub fn meet(&mut self) {
        self.arrived.push(0);
    }

    /// Entries up to `seq` have arrived at a process.
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

    /// A member that is alone arms a backup, and so gives its right up.
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

    /// A primary's backend takes an output. `backup` is its backup's process.
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

    /// An output leaves: it must be the next one, or equal to the one that left before under its
    /// number.
    fn emitted(&mut self, output: u64, maker: MemberId) {
        let known = self.left.len() as u64;
        if output == known + 1 {
            self.left.push(maker);
        } else if output > known || self.left[output as usize - 1] != maker {
            self.note(Flaw::AnotherHistory { output });
        }
    }

    /// A backup forgets outputs up to `output`.
    pub fn forgets(&mut self, output: u64) {
        if output > self.left.len() as u64 {
            self.note(Flaw::ForgottenTooEarly { output });
        }
    }

    /// A member says that the guest has finished.
    pub fn finishes(&mut self, guest: Guest) {
        let left = self.left.len() as u64;
        if left < guest.outputs_up_to(guest.len()) {
            self.note(Flaw::OutputsMissing { left });
        }
    }
}
