//! The arbiter's records of this side may vanish while it runs. The module of [`crate::arbiter::Look`]
//! says why they may be put back.

use super::{Phase, Primary, PrimaryAction, Stage};
use crate::Time;
use crate::arbiter::{Look, Standing};
use crate::mutant::Mutant;
use crate::transfer::Right;

impl Primary {
    /// The right of its generation, as it was opened.
    pub fn right(&self) -> Option<Right> {
        self.right
    }

    /// The records that the arbiter should have of this side; `None` while it asks the arbiter anyway,
    /// or has no part in a generation.
    pub fn standing(&self) -> Option<Standing> {
        let won = match &self.phase {
            Phase::Paired => false,
            Phase::Solo { .. }
            | Phase::Joined(Stage::Offering | Stage::Copying | Stage::Proving(..)) => true,
            Phase::Waiting
            | Phase::Opening
            | Phase::Welcomed
            | Phase::Claiming { .. }
            | Phase::Fencing
            | Phase::HandedOver
            | Phase::Joined(Stage::Opening(_) | Stage::Arming { .. })
            | Phase::Closing { .. }
            | Phase::Ended => return None,
        };
        self.right.map(|right| Standing { right, won })
    }

    /// The result of a look at the records. `standing` is what this side had when the look began. There
    /// must be one look at a time, and none while records are being put back.
    pub fn handle_looked(&mut self, _now: Time, standing: Standing, look: &Look) {
        if self.standing() != Some(standing) {
            return;
        }
        self.missed = None;
        if !matches!(look, Look::Missing(_)) {
            return;
        }
        if standing.won {
            let won = !self.has(Mutant::PutsBackUnclaimed);
            return self.push(PrimaryAction::PutBack(Standing { won, ..standing }));
        }
        if self.has(Mutant::PutsBackUnagreed) {
            return self.push(PrimaryAction::PutBack(standing));
        }
        self.missed = Some((standing.right.generation, self.log.seq));
    }

    /// The backup acknowledged entries up to this one, so it has not asked the arbiter.
    pub(super) fn agreed(&mut self, received: u64) {
        let Some(standing) = self.standing().filter(|standing| !standing.won) else {
            return;
        };
        let generation = standing.right.generation;
        let fresh = |missed: &mut (u64, u64)| missed.0 == generation && received > missed.1;
        if self.missed.take_if(fresh).is_some() {
            self.push(PrimaryAction::PutBack(standing));
        }
    }
}
