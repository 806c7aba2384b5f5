//! The faults, and what is still guaranteed after them.

use super::member::{Member, Part};
use super::{Fate, Setup, Simulation, World};
use crate::Time;
use crate::testing::Rng;
use std::time::Duration;

/// A number that picks one of the candidates at the moment of the fault.
type Pick = u64;

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Crash(Pick),
    Hang(Pick, Duration),
    Cut(Pick),
    Stall(Pick, Duration),
    /// A stall that never ends: the network between the two is gone.
    Partition(Pick),
    ArbiterDown(Duration),
    Corrupt(Pick),
    Diverge(Pick),
    /// Not a fault: the operator wants the backup to take over.
    Switchover,
    /// Not a fault: the operator ends a backup.
    Leave(Pick),
    /// The vCPU's thread of a side hangs for a while.
    Mute(Pick, Duration),
    /// The next copy arrives with a changed bit.
    DamagedCopy,
    /// The next copy cannot be made, or there is no room for it.
    CopyFails,
    BootFails,
}

pub fn random_fault(setup: Setup, rng: &mut Rng) -> Fault {
    let span = |rng: &mut Rng| Duration::from_millis(1 + rng.below(500));
    let pick = rng.next();
    let kinds = match setup {
        Setup::Pair => 12,
        Setup::Relay => 17,
    };
    match rng.below(kinds) {
        0 | 1 | 12 => Fault::Crash(pick),
        2 => Fault::Hang(pick, span(rng)),
        3 => Fault::Cut(pick),
        4 | 9 => Fault::Stall(pick, Duration::from_millis(200 + rng.below(300))),
        5 => Fault::Partition(pick),
        6 => Fault::ArbiterDown(span(rng) * 5),
        7 => Fault::Corrupt(pick),
        10 => Fault::Switchover,
        11 => Fault::Mute(pick, span(rng) * 2),
        13 => Fault::DamagedCopy,
        14 => Fault::CopyFails,
        15 => Fault::BootFails,
        16 => Fault::Leave(pick),
        _ => Fault::Diverge(pick),
    }
}

impl Simulation {
    pub fn fail(&mut self, fault: Fault) {
        let now = self.world.now;
        match fault {
            Fault::Crash(pick) => {
                if let Some(index) = self.picked(pick, |member| member.seat.is_running()) {
                    self.owe_after(index);
                    self.members[index].seat.crash(&mut self.world);
                }
            }
            Fault::Diverge(pick) => self.diverge(pick),
            Fault::Leave(pick) => self.leave(pick),
            Fault::Hang(pick, time) => {
                if let Some(index) = self.picked(pick, |member| member.seat.is_running()) {
                    self.members[index].seat.hung_until = now.after(time);
                }
            }
            Fault::Mute(pick, time) => {
                if let Some(index) = self.picked(pick, |member| member.seat.is_running()) {
                    self.members[index].seat.mute_until = now.after(time);
                }
            }
            Fault::Switchover => {
                for member in &mut self.members {
                    let awake = member.seat.is_running() && member.seat.hung_until <= now;
                    if let Part::Primary(side) = &mut member.part
                        && awake
                    {
                        side.machine.handle_switchover(now);
                    }
                }
            }
            Fault::ArbiterDown(time) => self.world.arbiter.down_until = now.after(time),
            Fault::DamagedCopy => self.world.copy_damaged = true,
            Fault::CopyFails => self.world.copy_fails = true,
            Fault::BootFails => self.world.boot_fails = true,
            Fault::Cut(pick)
            | Fault::Stall(pick, _)
            | Fault::Partition(pick)
            | Fault::Corrupt(pick) => self.fail_link(pick, fault),
        }
    }

    fn fail_link(&mut self, pick: u64, fault: Fault) {
        let World {
            now, rng, links, ..
        } = &mut self.world;
        if links.is_empty() {
            return;
        }
        let mut link = links[pick as usize % links.len()].borrow_mut();
        match fault {
            Fault::Cut(_) => link.cut(*now, rng),
            Fault::Corrupt(_) => link.corrupt(rng),
            Fault::Stall(_, time) => {
                link.stalled_until = link.stalled_until.max(now.after(time));
                link.beats_pass = rng.one_in(2);
            }
            _ => {
                (link.stalled_until, link.beats_pass) = (Time(u64::MAX), false);
                self.partitions.push([link.primary, link.backup]);
            }
        }
    }

    /// Picks one of the members for which `is` is true.
    fn picked(&self, pick: u64, is: impl Fn(&Member) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.members.len())
            .filter(|&index| is(&self.members[index]))
            .collect();
        (!all.is_empty()).then(|| all[pick as usize % all.len()])
    }

    fn diverge(&mut self, pick: u64) {
        let now = self.world.now;
        // A member that hangs executes nothing.
        let follows = |member: &Member| {
            let awake = member.seat.is_running() && member.seat.hung_until <= now;
            awake && matches!(&member.part, Part::Backup(side) if side.follows())
        };
        let Some(index) = self.picked(pick, follows) else {
            return;
        };
        self.owe_after(index);
        if let Part::Backup(side) = &mut self.members[index].part {
            side.diverge(now);
        }
    }

    fn leave(&mut self, pick: u64) {
        let backup =
            |member: &Member| member.seat.is_running() && matches!(member.part, Part::Backup(_));
        let Some(index) = self.picked(pick, backup) else {
            return;
        };
        let before = self.excused;
        self.owe_after(index);
        let Member { seat, part } = &mut self.members[index];
        if let Part::Backup(side) = part {
            if side.machine.handle_leave(self.world.now) {
                side.act(seat, &mut self.world);
                seat.fate = Fate::Left;
            } else {
                self.excused = before;
            }
        }
    }

    /// Decides whether the guest must still reach its end when this member, which is still there, is
    /// gone.
    fn owe_after(&mut self, gone: usize) {
        if !self.members[gone].counts() || self.world.referee.finished {
            return;
        }
        let others = self.members.iter().enumerate().filter(|(i, _)| *i != gone);
        let mut able = others.filter(|(_, member)| member.could_go_on(&self.world));
        self.excused |= able.next().is_none();
    }
}
