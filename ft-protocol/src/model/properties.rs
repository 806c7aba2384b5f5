//! What must always hold, and what must be seen to happen.

use super::Setting;
use super::backup_side::BackupSide;
use super::primary_side::PrimarySide;
use super::process::{Common, Fate, Process, Question};
use super::witness::Flaw;
use super::world::World;

type Condition = fn(&Setting, &World) -> bool;

/// A property's name, and the condition.
pub type Named = (&'static str, Condition);

pub const I1: &str = "I1: who is armed has the very machine";
pub const I2: &str = "I2: an output leaves only acknowledged, or from who is alone by right";
pub const I3: &str = "I3: who asks has executed all that it acknowledged";
pub const I4: &str = "I4: at most one goes on alone, the one that won";
pub const I5: &str = "I5: what leaves is one history, without gaps, to its end";
pub const I6: &str = "I6: who diverged, or was never armed, does not ask";
pub const FENCE: &str = "nothing is live before the fence";
pub const HANDOVER: &str = "a guest that was handed over runs on only by right";
pub const AWAY: &str = "who was away says nothing before it knows that it may";
pub const SOUND: &str = "no assertion fails, and nobody halts without a reason";
pub const CLEAN: &str = "a clean end is in no cold start's way";
pub const JOINABLE: &str = "who is alone, and has nobody, can be joined";
pub const GOES_ON: &str = "who can go on does: the guest gets to its end";

fn flaw(world: &World) -> Option<&Flaw> {
    world.around.witness.flaw.as_ref()
}

macro_rules! never {
    ($($flaw:pat_param)|+) => {
        |_, world| !matches!(flaw(world), Some($($flaw)|+))
    };
}

pub const ALWAYS: [Named; 13] = [
    (I1, never!(Flaw::AnotherMachine)),
    (I2, never!(Flaw::Unacknowledged { .. })),
    (I3, never!(Flaw::AsksTooEarly { .. })),
    (
        I4,
        never!(
            Flaw::AloneWithoutRight { .. }
                | Flaw::TwoAlone
                | Flaw::WonBefore { .. }
                | Flaw::ArmsWithoutRight { .. }
                | Flaw::UsedAgain { .. }
        ),
    ),
    (
        I5,
        never!(
            Flaw::AnotherHistory { .. }
                | Flaw::ForgottenTooEarly { .. }
                | Flaw::OutputsMissing { .. }
        ),
    ),
    (I6, never!(Flaw::GoesOnDiverged)),
    (FENCE, never!(Flaw::BeforeFence)),
    (HANDOVER, never!(Flaw::RunsOnWithoutRight)),
    (AWAY, never!(Flaw::SaidByWhoWasAway { .. })),
    (SOUND, never!(Flaw::Unreasonable(_) | Flaw::Panic(_))),
    (CLEAN, never!(Flaw::LeftOpen)),
    (JOINABLE, |_, world| !world.any(|p| world.is_lonely(p))),
    (GOES_ON, goes_on),
];

/// If nothing is left that must happen, then everything has happened that a pair guarantees.
fn goes_on(setting: &Setting, world: &World) -> bool {
    let unflawed = flaw(world).is_none();
    let over = || world.ended_as(Fate::Finished) || world.is_excused();
    !(unflawed && world.rests(setting.guest)) || over() && world.nobody_hangs()
}

impl World {
    fn any(&self, condition: impl Fn(&Process) -> bool) -> bool {
        self.processes.iter().any(|process| condition(process))
    }

    pub fn ended_as(&self, fate: Fate) -> bool {
        self.any(|process| process.common.fate == fate)
    }

    /// Every process that still runs waits for a partner that does not exist, or for an operator.
    fn nobody_hangs(&self) -> bool {
        !self.any(|process| {
            let backup = process.backup();
            let primary = process.primary();
            let waits = backup.is_some_and(|side| side.machine.wants_connection())
                || primary.is_some_and(|side| !side.started && side.machine.accepts_connection());
            process.is_running() && !waits && !process.is_held()
        })
    }

    /// Need the guest not reach its end? More has failed than a pair survives, or no pair was made.
    fn is_excused(&self) -> bool {
        let gone = |process: &Process| {
            let fate = process.common.fate;
            matches!(fate, Fate::Crashed | Fate::Left | Fate::Halted(3))
        };
        let Some((_, record)) = self.around.storage.latest() else {
            return !self.can_pair();
        };
        if self.any(Process::is_held) {
            return true;
        }
        let of = |id: crate::arbiter::MemberId| &*self.processes[id.0 as usize - 1];
        let primary = of(record.members.primary);
        let backup = record.members.backup.map(of);
        if let Some(claimant) = record.winner.map(of) {
            let unstarted = claimant.primary().is_some_and(|primary| !primary.started);
            return gone(claimant) || unstarted && !self.can_pair();
        }
        let started = primary.primary().is_some_and(|primary| primary.started);
        let armed = backup.and_then(Process::backup).is_some_and(|b| b.armed);
        !started && !armed && !self.can_pair()
    }

    /// Does it run alone, wait for nothing, and yet accept no backup?
    fn is_lonely(&self, process: &Process) -> bool {
        let Common {
            index, question, ..
        } = process.common;
        let connected = self.connection_of(index).is_some();
        process.primary().is_some_and(|side| {
            let idle = side.machine.is_solo() && question == Question::None && !connected;
            idle && !side.machine.accepts_connection()
        })
    }

    /// Is there a primary that waits for a backup, and a backup that waits for a primary?
    fn can_pair(&self) -> bool {
        self.any(|p| p.primary().is_some_and(|side| !side.started))
            && self.any(|p| p.backup().is_some_and(|side| !side.armed))
    }
}

fn second_generation(world: &World) -> bool {
    world.any(|process| {
        let side = process.primary();
        let paired = |side: &PrimarySide| side.started && side.survivor.is_none();
        side.is_some_and(|side| paired(side) && side.machine.generation() > 1)
    })
}

fn is_survivor(process: &Process) -> bool {
    let side = process.primary();
    side.is_some_and(|side| side.survivor.is_some())
}

pub const BACKUP_LIVE: Named = ("a backup is live", |_, world| world.any(is_survivor));
pub const PRIMARY_SOLO: Named = ("a primary is solo", |_, world| {
    world.any(|process| {
        let side = process.primary();
        side.is_some_and(|side| side.survivor.is_none() && side.machine.is_solo())
    })
});
pub const LOSER_HALTS: Named = ("the loser halts with 4", |_, world| {
    world.ended_as(Fate::Halted(4))
});
pub const BOTH_FINISH: Named = ("both finish", |_, world| {
    let fates = world.processes.iter().map(|process| process.common.fate);
    fates.filter(|&fate| fate == Fate::Finished).count() == 2
});
pub const HANDED_OVER: Named = ("a primary has handed over", |_, world| {
    world.ended_as(Fate::HandedOver)
});
pub const TAKEN_BACK: Named = ("a primary whose guest rested runs on alone", |_, world| {
    world.any(|process| {
        let side = process.primary();
        side.is_some_and(|side| side.took_back && side.machine.is_solo())
    })
});
pub const SECOND_GENERATION: Named = ("a pair in the second generation", |_, world| {
    second_generation(world)
});
pub const SECOND_FAILOVER: Named = ("a backup of the second generation is live", |_, world| {
    world.any(|process| {
        let side = process.primary();
        side.is_some_and(|side| side.survivor.is_some() && side.machine.generation() > 1)
    })
});
pub const WITHHELD: Named = ("outputs are held while the arbiter is away", |_, world| {
    world.any(|process| {
        let again = process.common.question == Question::Again;
        let side = process.primary();
        again && side.is_some_and(|side| !side.fenced && side.machine.held_outputs() > 0)
    })
});
pub const STALE_REPEAT: Named = ("a stale side repeats an acknowledged output", |_, world| {
    world.around.witness.stale_repeat
});
pub const WITHDRAWN: Named = ("a suspicion is withdrawn", |_, world| {
    world.any(|process| process.backup().is_some_and(|side| side.withdrew))
});
pub const TRUSTS_AGAIN: Named = ("who was away releases after an answer", |_, world| {
    world.any(|process| process.primary().is_some_and(|side| side.released_anew))
});
pub const DIVERGED: Named = ("a diverged backup halts with 3", |_, world| {
    world.ended_as(Fate::Halted(3))
});
pub const COLD_START_REFUSED: Named = ("a cold start is refused", |setting, world| {
    world.left.restarts < setting.faults.restarts && world.processes.len() == 2
});
pub const LIVE_FROM_THE_START: Named = ("a backup is live and no primary ever ran", |_, world| {
    let live = |process: &Process| {
        process
            .primary()
            .is_some_and(|side| side.survivor == Some(0))
    };
    world.any(live)
});
pub const LEFT: Named = ("a backup has left", |_, world| world.ended_as(Fate::Left));
pub const REFUSED: Named = ("who cannot join halts with 2", |_, world| {
    world.ended_as(Fate::Halted(2))
});

pub const WAITS: Named = ("the log waits behind a copy", |_, world| {
    world.any(|process| {
        process
            .primary()
            .is_some_and(PrimarySide::has_log_behind_copy)
    })
});
pub const PROTECTED_AGAIN: Named = ("who joined is armed", |_, world| world.any(is_armed_joiner));
pub const SOURCE_LOST_UNARMED: Named = ("who joined halts unarmed", |_, world| {
    world.ended_as(Fate::Halted(1))
});
pub const JOINER_LIVE: Named = ("who joined is live", |_, world| {
    world.any(|process| process.primary().is_some_and(|side| side.joined))
});
pub const NUMBER_BURNT: Named = ("a lost joiner's generation is never claimed", |_, world| {
    world.any(|process| {
        let before = |side: &BackupSide| side.machine.generation() - 1;
        let burnt = |generation: u64| {
            let record = world.around.storage.of(generation);
            record.is_some_and(|record| record.winner.is_none())
        };
        let side = process.backup();
        is_armed_joiner(process) && side.is_some_and(|side| burnt(before(side)))
    })
});
pub const COPY_REFUSED: Named = ("a damaged copy is refused", |setting, world| {
    world.left.damaged_copies < setting.faults.damaged_copies && world.ended_as(Fate::Halted(2))
});
pub const SOURCE_WINS_AGAIN: Named = ("who armed somebody is alone again", |_, world| {
    world.any(|process| {
        let side = process.primary();
        side.is_some_and(|side| {
            let generation = side.machine.generation();
            side.machine.is_solo() && !side.joined && generation > 1 && side.fenced
        })
    })
});

pub const HELD: Named = ("whose record vanished holds", |_, world| {
    world.any(Process::is_held)
});
pub const PUT_BACK: Named = (
    "a backup is live by a record that was put back",
    |setting, world| {
        let vanished = world.left.vanishes < setting.faults.vanishes;
        let untouched = world.left.restores == setting.faults.restores;
        vanished && untouched && world.left.looks < setting.faults.looks && world.any(is_survivor)
    },
);
pub const RESTORED: Named = (
    "who held goes on once the operator restored",
    |setting, world| {
        let restored = world.left.restores < setting.faults.restores;
        restored && world.left.looks == setting.faults.looks && world.any(is_alone)
    },
);
pub const STALE_AFTER_ALL: Named = (
    "who lost halts, though the claim had vanished",
    |setting, world| {
        let vanished = world.left.vanishes < setting.faults.vanishes;
        vanished && world.left.looks < setting.faults.looks && world.ended_as(Fate::Halted(4))
    },
);

fn is_alone(process: &Process) -> bool {
    let side = process.primary();
    side.is_some_and(|side| side.machine.is_solo() && side.fenced)
}

macro_rules! joiner_lost_while {
    ($($name:ident: $state:expr, $asks:expr;)+) => {
        $(pub const $name: Named = (concat!("a joiner is lost: ", stringify!($name)), |_, world| {
            world.joiner_is_lost($state, $asks)
        });)+
    };
}
joiner_lost_while! {
    LOST_OFFERED: "alone, offering a copy", false;
    LOST_COPYING: "alone, copying", false;
    LOST_PROVING: "alone, proving the copy", false;
    LOST_OPENING: "alone, arming the copy", true;
    LOST_ARMING: "alone, arming the copy", false;
    LOST_ARMED: "protected", false;
}

fn is_armed_joiner(process: &Process) -> bool {
    let side = process.backup();
    side.is_some_and(|side| side.copied && side.armed)
}

impl World {
    /// The joiner is gone, and the source in `state` does not know it yet; `asks` says whether the
    /// source has an open question.
    fn joiner_is_lost(&self, state: &str, asks: bool) -> bool {
        let live = |side: &PrimarySide| side.joined;
        let joins = |p: &Process| p.backup().is_some() || p.primary().is_some_and(live);
        !self.any(joins)
            && self.any(|process| {
                let here = |side: &PrimarySide| side.machine.state() == state;
                let is_asking = process.common.question != Question::None;
                process.primary().is_some_and(here) && is_asking == asks
            })
    }
}
