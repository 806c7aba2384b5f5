//! A process: one of the two state machines, a model of its runtime, and its own clock.

mod own;

use super::backup_side::BackupSide;
use super::channel::{Connection, End, Packet};
use super::guest::Guest;
use super::primary_side::PrimarySide;
use super::storage::{Ask, Storage, Verdict};
use super::witness::Witness;
use crate::Time;
use crate::arbiter::{MemberId, Standing};
use crate::mutant::Mutant;
use crate::wire::{Beat, Message};
use std::time::Duration;

/// Ticks after which even a pair that is being made has given up; 12 s of heartbeats.
const PATIENCE: u32 = 600;
/// How long a process is stopped.
const SLEEP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    Running,
    Crashed,
    /// Halted with this status.
    Halted(u8),
    /// The operator ended it.
    Left,
    HandedOver,
    Finished,
}

/// The open question of a process, to the arbiter or to the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    None,
    Asked(Ask),
    /// A claim that the arbiter has received; the answer is on its way.
    Written(Ask, Verdict),
    Fence,
    /// A question that will be asked again.
    Again,
    /// The same, when the record of this generation is there again.
    Held(u64),
}

/// What every process has, whatever its role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Common {
    pub index: usize,
    pub id: MemberId,
    pub fate: Fate,
    /// The time by its own clock: no two processes share a clock, and none reads another's.
    pub now: Time,
    pub question: Question,
    /// Its vCPU does not answer.
    pub mute: bool,
    /// Records that vanished, on their way back to the arbiter.
    pub puts_back: Option<Standing>,
}

/// What is between the processes, and the witness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Around {
    pub connections: Vec<Connection>,
    pub storage: Storage,
    pub witness: Witness,
    /// The newest beat on its way to each process. Older ones are treated as lost: the receiver would
    /// ignore one that came after the newest.
    pub beats: Vec<Option<Beat>>,
}

/// The rest of the world, as a process sees it.
pub struct Rest<'a> {
    pub guest: Guest,
    pub mutant: Option<Mutant>,
    /// Pieces that the memory of a copy has.
    pub pieces: usize,
    /// Do beats arrive at all?
    pub beats: bool,
    pub around: &'a mut Around,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Primary(Box<PrimarySide>),
    Backup(Box<BackupSide>),
    /// The process is gone.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub common: Common,
    pub side: Side,
}

impl Common {
    pub fn ask(&mut self, question: Question) {
        let free = matches!(
            self.question,
            Question::None | Question::Again | Question::Held(_)
        );
        assert!(free, "one question at a time");
        self.question = question;
    }
}

impl Rest<'_> {
    /// The connection of which this process has an end open.
    fn connection(&mut self, who: usize) -> Option<(End, &mut Connection)> {
        let mut connections = self.around.connections.iter_mut();
        connections.find_map(|connection| Some((connection.end_of(who)?, connection)))
    }

    pub fn send(&mut self, who: usize, message: Message) {
        if let Some((end, connection)) = self.connection(who) {
            connection.send(end, message);
        }
    }

    pub fn beat(&mut self, who: usize, beat: Beat) {
        let beats = self.beats;
        if let Some((end, connection)) = self.connection(who)
            && beats
            && !connection.is_broken()
        {
            let to = connection.at(end.other());
            self.around.beats[to] = Some(beat);
        }
    }

    /// Closes this process's end of its connection. `without_a_word` means that the peer gets no close.
    pub fn disconnect(&mut self, who: usize, without_a_word: bool) {
        if let Some((end, connection)) = self.connection(who) {
            match without_a_word {
                true => connection.vanish(end),
                false => connection.close(end),
            }
        }
        self.tidy(who);
    }

    /// Forgets what can have no effect any more.
    pub fn tidy(&mut self, who: usize) {
        self.around.beats[who] = None;
        self.around.connections.retain(|c| !c.is_over());
    }
}

impl Process {
    pub fn is_running(&self) -> bool {
        self.common.fate == Fate::Running
    }

    /// Does it wait until the record of its generation, which vanished, is there again?
    pub fn is_held(&self) -> bool {
        matches!(self.common.question, Question::Held(_))
    }

    pub fn primary(&self) -> Option<&PrimarySide> {
        match &self.side {
            Side::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    pub fn backup(&self) -> Option<&BackupSide> {
        match &self.side {
            Side::Backup(backup) => Some(backup),
            _ => None,
        }
    }

    /// Performs the actions of the state machine. Returns true if they were more than messages.
    fn act(&mut self, rest: &mut Rest) -> bool {
        let reacted = match &mut self.side {
            Side::Primary(primary) => primary.act(&mut self.common, rest),
            Side::Backup(backup) => backup.act(&mut self.common, rest),
            Side::Gone => false,
        };
        if let Side::Backup(backup) = &self.side
            && backup.live
        {
            let survivor = PrimarySide::survivor(backup, &self.common, rest);
            self.side = Side::Primary(Box::new(survivor));
        }
        if !self.is_running() {
            self.go(false, rest);
        }
        reacted
    }

    /// The process ends. Its host closes the connection, or is gone too.
    fn go(&mut self, without_a_word: bool, rest: &mut Rest) {
        rest.disconnect(self.common.index, without_a_word);
        (self.side, self.common.now, self.common.mute) = (Side::Gone, Time(0), false);
        if !matches!(self.common.question, Question::Asked(_)) {
            self.common.question = Question::None;
        }
    }

    /// Performs the actions that need no event.
    pub fn begin(&mut self, rest: &mut Rest) {
        self.act(rest);
    }

    pub fn connected(&mut self, rest: &mut Rest) {
        let now = self.common.now;
        match &mut self.side {
            Side::Primary(primary) => primary.machine.handle_connected(now),
            Side::Backup(backup) => backup.machine.handle_connected(now),
            Side::Gone => unreachable!("nobody connects to who is gone"),
        }
        self.act(rest);
    }

    pub fn receive(&mut self, packet: Packet, rest: &mut Rest) {
        let now = self.common.now;
        if packet == Packet::Closed {
            rest.tidy(self.common.index);
        }
        if let (Side::Primary(primary), Packet::Message(Message::Echo { .. })) =
            (&mut self.side, &packet)
        {
            primary.away = false;
        }
        match (&mut self.side, packet) {
            (Side::Primary(side), Packet::Message(m)) => side.machine.handle_message(now, m),
            (Side::Primary(side), Packet::Closed) => side.machine.handle_disconnected(now),
            (Side::Backup(side), Packet::Message(m)) => side.machine.handle_message(now, m),
            (Side::Backup(side), Packet::Closed) => side.machine.handle_disconnected(now),
            (Side::Gone, _) => unreachable!("nothing arrives at who is gone"),
        }
        self.act(rest);
    }

    pub fn receive_beat(&mut self, beat: Beat, rest: &mut Rest) {
        let now = self.common.now;
        match &mut self.side {
            Side::Primary(primary) => {
                primary.machine.handle_beat(now, beat);
            }
            Side::Backup(backup) => backup.machine.handle_beat(now, beat),
            Side::Gone => {}
        }
        self.act(rest);
    }

    /// The arbiter gets the question. Unless it is a claim, or the process is gone, the answer arrives
    /// in the same step.
    fn reach_arbiter(&mut self, rest: &mut Rest) {
        let Question::Asked(ask) = self.common.question else {
            unreachable!("nothing was asked");
        };
        rest.around.storage.write(self.common.id, ask);
        if self.side == Side::Gone {
            self.common.question = Question::None;
        } else if let Ask::Claim(generation) = ask {
            let verdict = rest.around.storage.claimed(generation, self.common.id);
            self.common.question = Question::Written(ask, verdict);
        } else {
            self.answer(ask, true, rest);
        }
    }

    /// The answer arrives, or the news that there is none.
    fn answer(&mut self, ask: Ask, known: bool, rest: &mut Rest) {
        self.common.question = match known {
            true => Question::None,
            false => Question::Again,
        };
        let storage = &rest.around.storage;
        match &mut self.side {
            Side::Primary(primary) => primary.answer(&self.common, ask, known, storage),
            Side::Backup(backup) => backup.answer(&self.common, ask, known, storage),
            Side::Gone => {}
        }
        self.act(rest);
    }

    /// The answer to a claim arrives.
    fn receive_answer(&mut self, rest: &mut Rest) {
        let Question::Written(Ask::Claim(generation), verdict) = self.common.question else {
            unreachable!("no answer is on its way");
        };
        self.common.question = match verdict {
            Verdict::Missing => Question::Held(generation),
            Verdict::Won | Verdict::Lost(_) | Verdict::Refused => Question::None,
        };
        let (now, answer) = (self.common.now, verdict.answer());
        match &mut self.side {
            Side::Primary(primary) => primary.machine.handle_claim(now, answer),
            Side::Backup(backup) => backup.machine.handle_claim(now, answer),
            Side::Gone => {}
        }
        self.act(rest);
    }

    /// Looks at its records in the arbiter.
    fn look(&mut self, rest: &mut Rest) {
        if let Side::Primary(primary) = &mut self.side {
            primary.look(&self.common, &rest.around.storage);
        }
        self.act(rest);
    }

    /// The records that it puts back reach the arbiter, also after its end.
    fn put_back(&mut self, rest: &mut Rest) {
        if let Some(standing) = self.common.puts_back.take() {
            rest.around.storage.put_back(self.common.id, standing);
        }
    }

    /// The question never reaches the arbiter.
    fn lose_question(&mut self, rest: &mut Rest) {
        if let Question::Asked(ask) = self.common.question {
            self.answer(ask, false, rest);
        }
    }

    /// The arbiter acts on the question, but the answer is lost.
    fn lose_answer(&mut self, rest: &mut Rest) {
        if let Question::Asked(ask) | Question::Written(ask, _) = self.common.question {
            if self.common.question == Question::Asked(ask) {
                rest.around.storage.write(self.common.id, ask);
            }
            self.answer(ask, false, rest);
        }
    }

    fn fenced(&mut self, succeeded: bool, rest: &mut Rest) {
        let now = self.common.now;
        self.common.question = match succeeded {
            true => Question::None,
            false => Question::Again,
        };
        match &mut self.side {
            Side::Primary(primary) => {
                primary.fenced |= succeeded;
                primary.machine.handle_fenced(now, succeeded);
            }
            Side::Backup(backup) => {
                backup.fenced |= succeeded;
                backup.machine.handle_fenced(now, succeeded);
            }
            Side::Gone => {}
        }
        self.act(rest);
    }

    /// The vCPU executes its next piece.
    fn run(&mut self, rest: &mut Rest) {
        match &mut self.side {
            Side::Primary(primary) => primary.run(&self.common, rest),
            Side::Backup(backup) => backup.run(&self.common),
            Side::Gone => {}
        }
        self.act(rest);
    }

    /// Lets something else happen to the primary's side.
    fn on_primary(
        &mut self,
        rest: &mut Rest,
        what: impl FnOnce(&mut PrimarySide, &Common, &mut Rest),
    ) {
        if let Side::Primary(primary) = &mut self.side {
            what(primary, &self.common, rest);
        }
        self.act(rest);
    }

    fn on_backup(&mut self, rest: &mut Rest, what: impl FnOnce(&mut BackupSide, &Common)) {
        if let Side::Backup(backup) = &mut self.side {
            what(backup, &self.common);
        }
        self.act(rest);
    }

    /// The operator ends the process. A backup ends at once; a primary may have to win first.
    fn leave(&mut self, rest: &mut Rest) {
        let now = self.common.now;
        let leaves = match &mut self.side {
            Side::Primary(primary) => {
                primary.machine.handle_leave(now);
                false
            }
            Side::Backup(backup) => backup.machine.handle_leave(now),
            Side::Gone => false,
        };
        self.act(rest);
        if leaves {
            self.common.fate = Fate::Left;
            self.go(false, rest);
        }
    }

    /// Its vCPU hangs, or answers again.
    fn hang(&mut self, mute: bool, rest: &mut Rest) {
        self.common.mute = mute;
        self.look_at_vcpu();
        self.act(rest);
    }

    fn look_at_vcpu(&mut self) {
        let answers = !self.common.mute;
        match &mut self.side {
            Side::Primary(primary) => primary.machine.handle_vcpu(answers),
            Side::Backup(backup) => backup.machine.handle_vcpu(answers),
            Side::Gone => {}
        }
    }

    /// When it wants to be woken.
    pub fn due(&self) -> Option<Time> {
        match &self.side {
            Side::Primary(primary) => primary.machine.poll_timeout(),
            Side::Backup(backup) => backup.machine.poll_timeout(),
            Side::Gone => None,
        }
    }

    /// Its own clock moves to its next timeout. Returns true if that caused more than messages.
    pub fn tick(&mut self, rest: &mut Rest) -> bool {
        let Some(due) = self.due() else {
            return false;
        };
        self.common.now = self.common.now.max(due);
        self.wake(rest)
    }

    fn wake(&mut self, rest: &mut Rest) -> bool {
        self.look_at_vcpu();
        let now = self.common.now;
        match &mut self.side {
            Side::Primary(primary) => primary.machine.handle_tick(now),
            Side::Backup(backup) => backup.machine.handle_tick(now),
            Side::Gone => {}
        }
        self.act(rest)
    }

    /// Time passes, and nothing arrives, until that causes more than messages.
    fn wait(&mut self, rest: &mut Rest) {
        let _came = (0..PATIENCE).any(|_| self.tick(rest));
    }

    /// The same until a question is asked again.
    fn wait_to_ask(&mut self, rest: &mut Rest) {
        let again = |process: &Process| {
            let question = process.common.question;
            matches!(question, Question::Again | Question::Held(_))
        };
        for _ in 0..PATIENCE {
            if again(self) {
                self.tick(rest);
            }
        }
    }

    /// It was stopped, and wakes up late.
    fn oversleep(&mut self, rest: &mut Rest) {
        self.common.now = self.common.now.after(SLEEP);
        if let Side::Primary(primary) = &mut self.side {
            primary.away = true;
        }
        self.wake(rest);
    }

    pub fn crash(&mut self, without_a_word: bool, rest: &mut Rest) {
        self.common.fate = Fate::Crashed;
        self.go(without_a_word, rest);
    }
}
