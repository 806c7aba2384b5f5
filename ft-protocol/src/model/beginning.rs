//! The states in which the model begins.

use super::Setting;
use super::VM;
use super::backup_side::BackupSide;
use super::primary_side::{PrimarySide, config};
use super::process::{Around, Process, Side};
use super::step::{Own, Step};
use super::world::World;
use crate::Time;
use crate::arbiter::MemberId;
use crate::backup::{Backup, BackupConfig, Expectations};
use crate::detector::Timing;
use crate::primary::{Primary, PrimaryConfig};
use crate::testing::host;

impl World {
    fn empty(setting: &Setting) -> World {
        World {
            processes: Vec::new(),
            around: Around::default(),
            left: setting.faults,
        }
    }

    /// One process of each role, not connected yet.
    pub fn strangers(setting: &Setting) -> World {
        let mut world = World::empty(setting);
        world.start(|me| primary(config(me, 1, false, setting.mutant)));
        world.start(|me| backup(setting, me));
        world
    }

    /// A pair that has just been made.
    pub fn paired(setting: &Setting) -> World {
        World::strangers(setting).settled(setting)
    }

    /// A primary that was started to run alone, and a backup that wants to join.
    pub fn solo(setting: &Setting) -> World {
        let mut world = World::empty(setting);
        world.start(|me| primary(config(me, 1, true, setting.mutant)));
        world.with(setting, 0, Process::begin);
        world = world.settled(setting);
        world.start(|me| backup(setting, me));
        world
    }

    /// A pair has run for a moment, its primary has died, and its backup is live. Another backup wants
    /// to join.
    pub fn survived(setting: &Setting) -> World {
        let mut world = World::paired(setting);
        world.take(setting, Step::Of(0, Own::Run));
        world = world.settled(setting);
        world.with(setting, 0, |process, rest| process.crash(false, rest));
        world = world.settled(setting);
        world.start(|me| backup(setting, me));
        world
    }

    /// Takes all steps that must happen, except that no member runs the guest of its own accord.
    fn settled(mut self, setting: &Setting) -> World {
        loop {
            let mut steps = self.steps(setting.guest);
            steps.retain(|step| match step {
                Step::Of(who, Own::Run) => self.processes[*who].backup().is_some(),
                step => step.is_owed(),
            });
            let Some(&step) = steps.first() else {
                return self;
            };
            self = self.after(setting, step).expect("something comes of it");
        }
    }
}

pub fn primary(config: PrimaryConfig) -> Side {
    let machine = Primary::new(config, Time(0));
    Side::Primary(Box::new(PrimarySide::new(machine)))
}

pub fn backup(setting: &Setting, me: MemberId) -> Side {
    let config = BackupConfig {
        vm: VM.into(),
        me,
        host: host(),
        expect: Expectations::default(),
        timing: Timing::default(),
        mutant: setting.mutant,
    };
    let machine = Backup::new(config, Time(0));
    Side::Backup(Box::new(BackupSide::new(machine)))
}
