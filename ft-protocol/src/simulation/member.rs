//! A process: a primary, or a backup that may become one.

use super::World;
use super::backup_side::BackupSide;
use super::primary_side::PrimarySide;
use super::seat::Seat;
use crate::arbiter::{MemberId, Nonce};
use crate::backup::{Backup, BackupConfig, Expectations};
use crate::detector::Timing;
use crate::log::Counts;
use crate::mutant::Mutant;
use crate::primary::{Primary, PrimaryConfig};
use crate::testing::host;

pub enum Part {
    Primary(Box<PrimarySide>),
    Backup(Box<BackupSide>),
}

pub struct Member {
    pub seat: Seat,
    pub part: Part,
}

fn primary_config(me: MemberId, solo: bool, mutant: Option<Mutant>) -> PrimaryConfig {
    PrimaryConfig {
        vm: "demo".into(),
        me,
        host: host(),
        counts: Counts::BranchEdges,
        generation: 1,
        nonce: Nonce(u128::MAX - (me.0 << 64)),
        solo,
        timing: Timing::default(),
        mutant,
    }
}

impl Member {
    pub fn primary(me: MemberId, solo: bool, world: &World) -> Member {
        let config = primary_config(me, solo, world.mutant);
        let side = PrimarySide::new(Primary::new(config, world.now));
        Member {
            seat: Seat::new(me),
            part: Part::Primary(Box::new(side)),
        }
    }

    pub fn backup(me: MemberId, world: &mut World) -> Member {
        let config = BackupConfig {
            vm: "demo".into(),
            me,
            host: host(),
            expect: Expectations::default(),
            timing: Timing::default(),
            mutant: world.mutant,
        };
        let lazy = [1, 1, 4, 16][world.rng.below(4) as usize];
        let side = BackupSide::new(Backup::new(config, world.now), lazy);
        Member {
            seat: Seat::new(me),
            part: Part::Backup(Box::new(side)),
        }
    }

    /// Everything that may happen here now.
    pub fn step(&mut self, world: &mut World) {
        let seat = &mut self.seat;
        if !seat.is_running() || world.now < seat.hung_until {
            return;
        }
        match &mut self.part {
            Part::Primary(side) => side.step(seat, world),
            Part::Backup(side) => side.step(seat, world),
        }
        self.go_on_live(world);
    }

    /// A backup that went live goes on as a primary.
    fn go_on_live(&mut self, world: &World) {
        let Part::Backup(side) = &mut self.part else {
            return;
        };
        if let Some((survivor, guest)) = side.live.take() {
            let config = primary_config(self.seat.me, false, world.mutant);
            let machine = Primary::survivor(config, survivor, world.now);
            let side = PrimarySide::survivor(machine, guest);
            self.part = Part::Primary(Box::new(side));
        }
    }

    /// Could the VM go on with this member alone?
    pub fn could_go_on(&self, world: &World) -> bool {
        let me = self.seat.me;
        let uncontested = |generation| !world.referee.is_contested(me, generation);
        let right = match &self.part {
            Part::Primary(side) => side.machine.is_solo() || uncontested(side.machine.generation()),
            Part::Backup(side) => side.armed && uncontested(side.machine.generation()),
        };
        self.seat.is_running() && right
    }

    /// May the VM depend on this member?
    pub fn counts(&self) -> bool {
        self.seat.is_running()
            && match &self.part {
                Part::Primary(_) => true,
                Part::Backup(side) => side.armed,
            }
    }

    pub fn is_armed(&self) -> bool {
        matches!(&self.part, Part::Backup(side) if side.armed) && self.seat.is_running()
    }

    /// Does it wait for a member that runs the VM?
    pub fn is_waiting(&self) -> bool {
        self.seat.is_running()
            && matches!(&self.part, Part::Backup(side) if side.machine.wants_connection())
    }

    pub fn as_primary(&self) -> Option<&PrimarySide> {
        match &self.part {
            Part::Primary(side) if self.seat.is_running() => Some(side),
            _ => None,
        }
    }
}
