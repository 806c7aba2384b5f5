//! The state of the whole model, and the steps that lead from it.

use super::Setting;
use super::beginning::{backup, primary};
use super::channel::{Connection, End, Packet};
use super::guest::Guest;
use super::primary_side::config;
use super::process::{Around, Common, Fate, Process, Question, Rest, Side};
use super::step::{Faults, Own, Step};
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
    /// Starts another process. A member's id is its index, from 1.
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

    /// The steps that are possible now.
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

    /// Is nothing left that must happen?
    pub fn rests(&self, guest: Guest) -> bool {
        let mut steps = Vec::new();
        // A question that a process asked before it died need not reach the arbiter.
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
        let mut step = |possible: bool, own: Own| {
            steps.extend(possible.then_some(Step::Of(who, own)));
        };
        match common.question {
            Question::Asked(_) => step(true, Own::ReachArbiter),
            Question::Written(..) => step(true, Own::ReceiveAnswer),
            Question::Fence => step(true, Own::Fence { succeeds: true }),
            // A process that hangs asks again only when it no longer hangs.
            Question::Again => {
                let will = process.due().is_some() && !common.mute;
                step(will, Own::AskAgain);
            }
            // An earlier question would change nothing but the time.
            Question::Held(generation) => {
                let known = self.around.storage.knows(generation, common.id);
                let will = process.due().is_some() && !common.mute;
                step(known && will, Own::AskAgain);
            }
            Question::None => {}
        }
        step(common.mute, Own::VcpuAnswers);
        step(self.is_deserted(who), Own::NoticeDeath);
        let runs = !common.mute;
        match &process.side {
            Side::Primary(side) => {
                step(runs && side.can_run(guest.len()), Own::Run);
                step(runs && side.can_rest(guest.len()), Own::Rest);
                step(side.can_emit(common), Own::Emit);
                step(runs && side.can_capture(), Own::Capture);
            }
            Side::Backup(side) => {
                step(side.can_boot(), Own::Boot);
                step(side.can_load(), Own::Load);
                step(side.can_restore(), Own::Restore);
                step(runs && side.can_run(), Own::Run);
            }
            Side::Gone => {}
        }
        if self.around.beats[who].is_some() {
            steps.push(Step::DeliverBeat { to: who });
        }
        let primary = process
            .primary()
            .filter(|side| side.machine.accepts_connection());
        let backups = self.wanting().filter(|_| primary.is_some());
        steps.extend(backups.map(|backup| Step::Connect {
            primary: who,
            backup,
        }));
    }

    /// The possible steps of the arbiter's records.
    fn storage_steps(&self, steps: &mut Vec<Step>) {
        let (storage, left) = (&self.around.storage, &self.left);
        for what in [Vanishes::All, Vanishes::Opens] {
            let possible = left.vanishes > 0 && storage.can_vanish(what);
            steps.extend(possible.then_some(Step::Vanish(what)));
        }
        // An operator acts only when a member waits for its record.
        let held = self.processes.iter().any(|process| process.is_held());
        let kinds = [(left.restores, false), (left.careless_restores, true)];
        for (left, careless) in kinds {
            let possible = left > 0 && held && storage.is_restorable(careless);
            steps.extend(possible.then_some(Step::OperatorRestores { careless }));
        }
        for (who, process) in self.processes.iter().enumerate() {
            let common = &process.common;
            let puts_back = common.puts_back.is_some();
            steps.extend(puts_back.then_some(Step::Of(who, Own::PutBack)));
            let stands = process.primary().and_then(|side| side.machine.standing());
            let looks = left.looks > 0 && stands.is_some() && !puts_back;
            steps.extend(looks.then_some(Step::Of(who, Own::Look)));
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
        if !process.is_running() {
            let fate = process.common.fate;
            let ended = matches!(fate, Fate::Crashed | Fate::Halted(2)) && who < 3;
            // A process that starts after a clean end belongs to another life of the VM.
            let replaceable = ended && !self.around.storage.is_closed();
            let restarts = left.restarts > 0 && replaceable;
            return steps.extend(restarts.then_some(Step::Restart { who }));
        }
        let mut fault = |left: u8, possible: bool, own: Own| {
            steps.extend((left > 0 && possible).then_some(Step::Of(who, own)));
        };
        let crash = |without_a_word| Own::Crash { without_a_word };
        fault(left.crashes, true, crash(false));
        fault(left.silent_crashes, true, crash(true));
        let asked = matches!(process.common.question, Question::Asked(_));
        fault(left.unanswered, asked, Own::LoseQuestion);
        let awaited = matches!(
            process.common.question,
            Question::Written(..) | Question::Asked(Ask::Open(..) | Ask::Close(_))
        );
        fault(left.unanswered, awaited, Own::LoseAnswer);
        let fence = process.common.question == Question::Fence;
        fault(left.failed_fences, fence, Own::Fence { succeeds: false });
        let listens = self.listens(who);
        fault(left.silences, listens, Own::HearNothing);
        let connected = self.connection_of(who).is_some();
        fault(left.ticks, connected, Own::Tick);
        fault(left.stops, connected, Own::Stop);
        fault(left.hangs, !process.common.mute, Own::VcpuHangs);
        if let Some(backup) = process.backup() {
            fault(left.failed_boots, backup.can_boot(), Own::BootFails);
            let restores = backup.can_restore();
            fault(left.damaged_copies, restores, Own::CopyDamaged);
            let diverges = backup.can_diverge() && !process.common.mute;
            fault(left.divergences, diverges, Own::Diverge);
            fault(left.leaves, backup.can_leave(), Own::Leave);
        }
        if let Some(primary) = process.primary() {
            fault(left.leaves, !primary.started, Own::Leave);
            let switches = primary.started && !primary.parking;
            fault(left.switchovers, switches, Own::Switchover);
        }
    }

    /// The possible steps of a connection.
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

    /// Would silence make this process suspect its peer?
    fn listens(&self, who: usize) -> bool {
        let backup = self.processes[who].backup();
        let suspects = backup.is_some_and(|backup| backup.suspects || backup.claimed);
        self.connection_of(who).is_some() && !suspects
    }

    /// Will this process hear nothing more of its peer, without knowing it yet?
    fn is_deserted(&self, who: usize) -> bool {
        let dead = |(end, connection): (End, &Connection)| connection.is_dead_for(end);
        self.listens(who) && self.connection_of(who).is_some_and(dead)
    }

    /// The world after a step; `None` if the step changed nothing.
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
            Step::Of(who, own) => self.with(setting, who, |process, rest| process.take(own, rest)),
        }
    }

    /// The counter of the faults to which this step belongs.
    fn left_of(&mut self, step: Step) -> Option<&mut u8> {
        let left = &mut self.left;
        match step {
            Step::Of(_, own) => left.of(own),
            Step::Restart { .. } => Some(&mut left.restarts),
            Step::Cut {
                without_a_word: false,
                ..
            } => Some(&mut left.cuts),
            Step::Cut { .. } => Some(&mut left.partitions),
            Step::Stall { .. } => Some(&mut left.stalls),
            Step::Vanish(_) => Some(&mut left.vanishes),
            Step::OperatorRestores { careless: false } => Some(&mut left.restores),
            Step::OperatorRestores { careless: true } => Some(&mut left.careless_restores),
            Step::Connect { .. } | Step::Deliver { .. } | Step::DeliverBeat { .. } => None,
        }
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
            pieces: setting.pieces,
            beats: setting.beats,
            around: &mut self.around,
        };
        what(Arc::make_mut(&mut self.processes[who]), &mut rest)
    }

    /// Starts a process, as a new member, in place of one that died. A primary starts only if the
    /// arbiter shows that no member runs.
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

    /// The connection carries nothing for so long that one side gives it up, but beats pass.
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

    /// The name of what arrives with this step, for reports.
    pub fn arriving(&self, connection: usize, to: End) -> &'static str {
        match self.around.connections[connection].next(to) {
            Some(Packet::Message(message)) => message.name(),
            Some(Packet::Closed) => "closed",
            None => "nothing",
        }
    }
}
