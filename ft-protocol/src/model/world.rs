//! Everything at one moment, and where it can go from there.

use super::Setting;
use super::beginning::{backup, primary};
use super::channel::{Connection, End, Packet};
use super::guest::Guest;
use super::primary_side::{PrimarySide, config};
use super::process::{Around, Common, Fate, Process, Question, Rest, Side};
use super::step::{Faults, Step};
use super::storage::{Ask, Vanishes};
use super::witness::Flaw;
use crate::Time;
use crate::arbiter::MemberId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub processes: Vec<Arc<Process>>,
    pub around: Around,
    /// Faults that may still happen.
    pub left: Faults,
}

impl World {
    /// A process more. A member's id is its index, from 1.
    pub fn start(&mut self, side: impl FnOnce(MemberId) -> Side) {
        let index = self.processes.len();
        let id = MemberId(index as u128 + 1);
        self.around.witness.meet();
        self.around.beats.push(None);
        let common = Common {
            index,
            id,
            fate: Fate::Running,
            now: Time(0),
            question: Question::None,
            mute: false,
            puts_back: None,
        };
        self.processes.push(Arc::new(Process {
            common,
            side: side(id),
        }));
    }

    /// What can happen.
    pub fn steps(&self, guest: Guest) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.around.witness.flaw.is_some() {
            return steps;
        }
        for who in 0..self.processes.len() {
            self.steps_of(who, guest, &mut steps);
            self.faults_of(who, &mut steps);
        }
        self.storage_steps(&mut steps);
        for connection in 0..self.around.connections.len() {
            self.steps_on(connection, &mut steps);
        }
        steps
    }

    /// Whether nothing is left that has to happen.
    pub fn rests(&self, guest: Guest) -> bool {
        let mut steps = Vec::new();
        // What a process asked before it died need not get anywhere.
        for who in (0..self.processes.len()).filter(|&who| self.processes[who].is_running()) {
            self.steps_of(who, guest, &mut steps);
        }
        let ends = [End::Primary, End::Backup];
        let arrives = |on: &Connection| ends.iter().any(|&to| on.waiting(to) > 0);
        !steps.iter().any(|step| step.is_owed()) && !self.around.connections.iter().any(arrives)
    }

    fn steps_of(&self, who: usize, guest: Guest, steps: &mut Vec<Step>) {
        let process = &*self.processes[who];
        let common = &process.common;
        let mut step = |possible: bool, step: Step| steps.extend(possible.then_some(step));
        match common.question {
            Question::Asked(_) => step(true, Step::ReachArbiter { of: who }),
            Question::Written(..) => step(true, Step::ReceiveAnswer { who }),
            Question::Fence => step(true, Step::FenceSucceeds { of: who }),
            // Who hangs asks once it does not.
            Question::Again => {
                let will = process.due().is_some() && !common.mute;
                step(will, Step::AskAgain { who });
            }
            // Asking in between changes nothing but the time.
            Question::Held(generation) => {
                let known = self.around.storage.knows(generation, common.id);
                let will = process.due().is_some() && !common.mute;
                step(known && will, Step::AskAgain { who });
            }
            Question::None => {}
        }
        step(common.mute, Step::VcpuAnswers { who });
        step(self.is_deserted(who), Step::NoticeDeath { who });
        step(
            self.around.beats[who].is_some(),
            Step::DeliverBeat { to: who },
        );
        let runs = !common.mute;
        match &process.side {
            Side::Primary(side) => {
                step(runs && side.can_run(guest.len()), Step::Run { who });
                step(runs && side.can_rest(guest.len()), Step::Rest { who });
                step(side.can_emit(common), Step::Emit { who });
                step(runs && side.can_capture(), Step::Capture { who });
                if side.machine.accepts_connection() {
                    for backup in self.wanting() {
                        step(
                            true,
                            Step::Connect {
                                primary: who,
                                backup,
                            },
                        );
                    }
                }
            }
            Side::Backup(side) => {
                step(side.can_boot(), Step::Boot { who });
                step(side.can_restore(), Step::Restore { who });
                step(runs && side.can_run(), Step::Run { who });
            }
            Side::Gone => {}
        }
    }

    /// What happens to the arbiter's records.
    fn storage_steps(&self, steps: &mut Vec<Step>) {
        let (storage, left) = (&self.around.storage, &self.left);
        for what in [Vanishes::All, Vanishes::Opens] {
            let possible = left.vanishes > 0 && storage.can_vanish(what);
            steps.extend(possible.then_some(Step::Vanish(what)));
        }
        // Nobody calls for an operator before.
        let held = self.processes.iter().any(|process| process.is_held());
        let kinds = [(left.restores, false), (left.careless_restores, true)];
        for (left, careless) in kinds {
            let possible = left > 0 && held && storage.is_restorable(careless);
            steps.extend(possible.then_some(Step::OperatorRestores { careless }));
        }
        for (who, process) in self.processes.iter().enumerate() {
            let common = &process.common;
            let puts_back = common.puts_back.is_some();
            steps.extend(puts_back.then_some(Step::PutBack { of: who }));
            let stands = process.primary().and_then(|side| side.machine.standing());
            let looks = left.looks > 0 && stands.is_some() && !puts_back;
            steps.extend(looks.then_some(Step::Look { who }));
        }
    }

    /// The backups that want a connection.
    fn wanting(&self) -> impl Iterator<Item = usize> {
        let wants = |process: &Process| {
            process
                .backup()
                .is_some_and(|b| b.machine.wants_connection())
        };
        (0..self.processes.len()).filter(move |&who| wants(&self.processes[who]))
    }

    fn faults_of(&self, who: usize, steps: &mut Vec<Step>) {
        let (process, left) = (&*self.processes[who], &self.left);
        let mut fault = |left: u8, possible: bool, step: Step| {
            steps.extend((left > 0 && possible).then_some(step));
        };
        if !process.is_running() {
            let fate = process.common.fate;
            let ended = matches!(fate, Fate::Crashed | Fate::Halted(2)) && who < 3;
            // What starts after a clean end is another VM's life.
            let replaceable = ended && !self.around.storage.is_closed();
            return fault(left.restarts, replaceable, Step::Restart { who });
        }
        let crash = |without_a_word| Step::Crash {
            who,
            without_a_word,
        };
        fault(left.crashes, true, crash(false));
        fault(left.silent_crashes, true, crash(true));
        let asked = matches!(process.common.question, Question::Asked(_));
        fault(left.unanswered, asked, Step::LoseQuestion { of: who });
        let awaited = matches!(
            process.common.question,
            Question::Written(..) | Question::Asked(Ask::Open(..) | Ask::Close(_))
        );
        fault(left.unanswered, awaited, Step::LoseAnswer { to: who });
        let fence = process.common.question == Question::Fence;
        fault(left.failed_fences, fence, Step::FenceFails { of: who });
        let listens = self.listens(who);
        fault(left.silences, listens, Step::Silence { for_whom: who });
        let connected = self.connection_of(who).is_some();
        fault(left.ticks, connected, Step::Tick { who });
        fault(left.stops, connected, Step::Stop { who });
        fault(left.hangs, !process.common.mute, Step::VcpuHangs { who });
        if let Some(backup) = process.backup() {
            fault(
                left.failed_boots,
                backup.can_boot(),
                Step::BootFails { who },
            );
            let restores = backup.can_restore();
            fault(left.damaged_copies, restores, Step::CopyDamaged { who });
            let diverges = backup.can_diverge() && !process.common.mute;
            fault(left.divergences, diverges, Step::Diverge { who });
            fault(left.leaves, backup.can_leave(), Step::Leave { who });
        }
        if let Some(primary) = process.primary() {
            fault(left.leaves, !primary.started, Step::Leave { who });
            let switches = primary.started && !primary.parking;
            fault(left.switchovers, switches, Step::Switchover { who });
        }
    }

    /// What can happen to a connection.
    fn steps_on(&self, connection: usize, steps: &mut Vec<Step>) {
        let on = &self.around.connections[connection];
        for to in [End::Primary, End::Backup] {
            if on.waiting(to) > 0 {
                steps.push(Step::Deliver { connection, to });
            }
        }
        let kinds = [(self.left.cuts, false), (self.left.partitions, true)];
        for (_, without_a_word) in kinds.into_iter().filter(|&(left, _)| left > 0) {
            for to_primary in 0..=on.waiting(End::Primary) {
                for to_backup in 0..=on.waiting(End::Backup) {
                    if !on.is_broken() {
                        steps.push(Step::Cut {
                            connection,
                            keep: [to_primary, to_backup],
                            without_a_word,
                        });
                    }
                }
            }
        }
        let [primary, backup] = [End::Primary, End::Backup].map(|end| on.at(end));
        let paired = self.processes[primary].primary().is_some_and(|p| p.started)
            && self.processes[backup].backup().is_some_and(|b| b.armed)
            && [primary, backup].map(|who| on.end_of(who).is_some()) == [true; 2];
        if self.left.stalls > 0 && paired && self.listens(backup) && !on.is_broken() {
            for first in [End::Primary, End::Backup] {
                steps.push(Step::Stall { connection, first });
            }
        }
    }

    /// The connection of which a process has an end open, and that end.
    pub fn connection_of(&self, who: usize) -> Option<(End, &Connection)> {
        let mut connections = self.around.connections.iter();
        connections.find_map(|connection| Some((connection.end_of(who)?, connection)))
    }

    /// Whether silence would make it suspect somebody.
    fn listens(&self, who: usize) -> bool {
        let backup = self.processes[who].backup();
        let suspects = backup.is_some_and(|backup| backup.suspects || backup.claimed);
        self.connection_of(who).is_some() && !suspects
    }

    /// Whether it will hear nothing more of the other side, and does not know it yet.
    fn is_deserted(&self, who: usize) -> bool {
        let dead = |(end, connection): (End, &Connection)| connection.is_dead_for(end);
        self.listens(who) && self.connection_of(who).is_some_and(dead)
    }

    /// The world after a step; None if nothing came of it.
    pub fn after(&self, setting: &Setting, step: Step) -> Option<World> {
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            let mut world = self.clone();
            world.take(setting, step);
            world
        }));
        let world = stepped.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let mut world = self.clone();
            world
                .around
                .witness
                .note(Flaw::Panic(text.unwrap_or_default()));
            world
        });
        (world != *self).then_some(world)
    }

    pub fn take(&mut self, setting: &Setting, step: Step) {
        if let Some(left) = self.left_of(step) {
            *left -= 1;
        }
        match step {
            Step::Connect { primary, backup } => {
                let connection = Connection::new(primary, backup);
                self.around.connections.push(connection);
                self.with(setting, primary, Process::connected);
                self.with(setting, backup, Process::connected);
            }
            Step::Deliver { connection, to } => {
                let on = &mut self.around.connections[connection];
                let (who, packet) = (on.at(to), on.receive(to));
                self.with(setting, who, |process, rest| process.receive(packet, rest));
            }
            Step::DeliverBeat { to } => {
                if let Some(beat) = self.around.beats[to].take() {
                    self.with(setting, to, |process, rest| {
                        process.receive_beat(beat, rest)
                    });
                }
            }
            Step::Restart { who } => self.restart(setting, who),
            Step::Cut {
                connection,
                keep,
                without_a_word,
            } => self.around.connections[connection].cut(keep, without_a_word),
            Step::Stall { connection, first } => self.stall(setting, connection, first),
            Step::Vanish(what) => self.around.storage.vanish(what),
            Step::OperatorRestores { .. } => self.around.storage.restore(),
            step => self.take_alone(setting, step),
        }
    }

    /// A step of one process.
    fn take_alone(&mut self, setting: &Setting, step: Step) {
        let (who, do_it): (usize, fn(&mut Process, &mut Rest)) = match step {
            Step::ReachArbiter { of } => (of, Process::reach_arbiter),
            Step::ReceiveAnswer { who } => (who, Process::receive_answer),
            Step::LoseQuestion { of } => (of, Process::lose_question),
            Step::LoseAnswer { to } => (to, Process::lose_answer),
            Step::FenceSucceeds { of } => (of, |process, rest| process.fenced(true, rest)),
            Step::FenceFails { of } => (of, |process, rest| process.fenced(false, rest)),
            Step::Run { who } => (who, Process::run),
            Step::AskAgain { who } => (who, Process::wait_to_ask),
            Step::NoticeDeath { who } | Step::Silence { for_whom: who } => (who, Process::wait),
            Step::Tick { who } => (who, |process, rest| {
                process.tick(rest);
            }),
            Step::Stop { who } => (who, Process::oversleep),
            Step::VcpuHangs { who } => (who, |process, rest| process.hang(true, rest)),
            Step::VcpuAnswers { who } => (who, |process, rest| process.hang(false, rest)),
            Step::Crash {
                who,
                without_a_word: false,
            } => (who, |process, rest| process.crash(false, rest)),
            Step::Crash { who, .. } => (who, |process, rest| process.crash(true, rest)),
            Step::Boot { who } => (who, |process, rest| {
                process.on_backup(rest, |backup, me| backup.boot(me));
            }),
            Step::BootFails { who } => (who, |process, rest| {
                process.on_backup(rest, |backup, me| backup.fail_to_boot(me));
            }),
            Step::Emit { who } => (who, |process, rest| {
                process.on_primary(rest, PrimarySide::emit);
            }),
            Step::Rest { who } => (who, |process, rest| {
                process.on_primary(rest, |primary, me, _| primary.rest(me));
            }),
            Step::Capture { who } => (who, |process, rest| {
                process.on_primary(rest, PrimarySide::capture);
            }),
            Step::Restore { who } => (who, |process, rest| {
                process.on_backup(rest, |backup, me| backup.restore(me, false));
            }),
            Step::CopyDamaged { who } => (who, |process, rest| {
                process.on_backup(rest, |backup, me| backup.restore(me, true));
            }),
            Step::Diverge { who } => (who, |process, rest| {
                process.on_backup(rest, |backup, me| backup.diverge(me));
            }),
            Step::Switchover { who } => (who, |process, rest| {
                process.on_primary(rest, |primary, me, _| {
                    primary.machine.handle_switchover(me.now);
                });
            }),
            Step::Leave { who } => (who, Process::leave),
            Step::Look { who } => (who, Process::look),
            Step::PutBack { of } => (of, Process::put_back),
            step => unreachable!("{step:?} is no step of one process"),
        };
        self.with(setting, who, do_it);
    }

    /// The faults of which this step is one.
    fn left_of(&mut self, step: Step) -> Option<&mut u8> {
        let left = &mut self.left;
        let of_kind = match step {
            Step::Crash {
                without_a_word: false,
                ..
            } => &mut left.crashes,
            Step::Crash { .. } => &mut left.silent_crashes,
            Step::Restart { .. } => &mut left.restarts,
            Step::Cut {
                without_a_word: false,
                ..
            } => &mut left.cuts,
            Step::Cut { .. } => &mut left.partitions,
            Step::LoseQuestion { .. } | Step::LoseAnswer { .. } => &mut left.unanswered,
            Step::Silence { .. } => &mut left.silences,
            Step::Tick { .. } => &mut left.ticks,
            Step::Stop { .. } => &mut left.stops,
            Step::VcpuHangs { .. } => &mut left.hangs,
            Step::Stall { .. } => &mut left.stalls,
            Step::FenceFails { .. } => &mut left.failed_fences,
            Step::BootFails { .. } => &mut left.failed_boots,
            Step::CopyDamaged { .. } => &mut left.damaged_copies,
            Step::Diverge { .. } => &mut left.divergences,
            Step::Switchover { .. } => &mut left.switchovers,
            Step::Leave { .. } => &mut left.leaves,
            Step::Vanish(_) => &mut left.vanishes,
            Step::Look { .. } => &mut left.looks,
            Step::OperatorRestores { careless: false } => &mut left.restores,
            Step::OperatorRestores { careless: true } => &mut left.careless_restores,
            _ => return None,
        };
        Some(of_kind)
    }

    pub fn with<T>(
        &mut self,
        setting: &Setting,
        who: usize,
        what: impl FnOnce(&mut Process, &mut Rest) -> T,
    ) -> T {
        let mut rest = Rest {
            guest: setting.guest,
            mutant: setting.mutant,
            beats: setting.beats,
            around: &mut self.around,
        };
        what(Arc::make_mut(&mut self.processes[who]), &mut rest)
    }

    /// A process takes the place of one that died: a new member. A primary starts only where its
    /// arbiter says that nobody runs.
    fn restart(&mut self, setting: &Setting, who: usize) {
        match who {
            0 => {
                if let Ok(generation) = self.around.storage.next_generation() {
                    let config = |me| config(me, generation, false, setting.mutant);
                    self.start(|me| primary(config(me)));
                }
            }
            _ => self.start(|me| backup(setting, me)),
        }
    }

    /// The channel carries nothing for so long that one side gives it up; beats pass.
    fn stall(&mut self, setting: &Setting, connection: usize, first: End) {
        let on = &self.around.connections[connection];
        let order = [first, first.other()].map(|end| on.at(end));
        let mut reacted = false;
        // More than two seconds of heartbeats.
        for _ in 0..150 {
            for (who, other) in [(order[0], order[1]), (order[1], order[0])] {
                reacted |= self.with(setting, who, Process::tick);
                if let Some(beat) = self.around.beats[other].take() {
                    self.with(setting, other, |process, rest| {
                        process.receive_beat(beat, rest)
                    });
                }
                if reacted {
                    return;
                }
            }
        }
    }

    /// What arrives with this step, for people.
    pub fn arriving(&self, connection: usize, to: End) -> &'static str {
        match self.around.connections[connection].next(to) {
            Some(Packet::Message(message)) => message.name(),
            Some(Packet::Closed) => "closed",
            None => "nothing",
        }
    }
}
