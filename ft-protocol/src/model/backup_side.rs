//! The backup's runtime, as a model.

use super::guest::digest_at;
use super::process::{Around, Common, Fate, Question, Rest};
use super::storage::{Ask, Storage};
use super::witness::Flaw;
use crate::HaltReason;
use crate::arbiter::{ClaimAnswer, CloseAnswer, MemberId, ReadBackAnswer};
use crate::backup::{Backup, BackupAction, BackupEnd, BackupQuestion, BackupTurn, Build, LogItem};
use crate::log::{Event, Position};
use crate::wire::Message;
use std::collections::VecDeque;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupSide {
    pub machine: Backup,
    /// It builds the machine of this generation.
    booting: Option<u64>,
    /// It joins a machine that runs.
    pub copied: bool,
    /// The copy is to be built.
    restoring: bool,
    /// The copy is none.
    damaged: bool,
    /// Half of a pair: it may ask.
    pub armed: bool,
    pub suspects: bool,
    /// Has asked the arbiter for a claim.
    pub claimed: bool,
    buffer: VecDeque<LogItem>,
    consumed: u64,
    pub executed: u64,
    /// Outputs that were not reported as released, and who made them.
    held: VecDeque<(u64, MemberId)>,
    forgotten: u64,
    pub fenced: bool,
    pub planned: bool,
    diverged: bool,
    /// Went live: it goes on as a primary.
    pub live: bool,
    /// The primary was heard again.
    pub withdrew: bool,
}

impl BackupSide {
    pub fn new(machine: Backup) -> BackupSide {
        BackupSide {
            machine,
            booting: None,
            copied: false,
            restoring: false,
            damaged: false,
            armed: false,
            suspects: false,
            claimed: false,
            buffer: VecDeque::new(),
            consumed: 0,
            executed: 0,
            held: VecDeque::new(),
            forgotten: 0,
            fenced: false,
            planned: false,
            diverged: false,
            live: false,
            withdrew: false,
        }
    }

    pub fn can_boot(&self) -> bool {
        self.booting.is_some()
    }

    pub fn can_run(&self) -> bool {
        !self.buffer.is_empty() && !self.restoring
    }

    pub fn can_restore(&self) -> bool {
        self.restoring
    }

    /// A divergence shows when something is executed.
    pub fn can_diverge(&self) -> bool {
        self.can_run()
    }

    pub fn can_leave(&self) -> bool {
        !self.claimed
    }

    pub fn boot(&mut self, me: &Common) {
        let generation = self.booting.take().expect("there is something to boot");
        self.machine.handle_booted(me.now, generation);
    }

    pub fn fail_to_boot(&mut self, me: &Common) {
        self.booting = None;
        self.machine.handle_boot_failed(me.now, String::new());
    }

    /// The copy is built, as it is or damaged.
    pub fn restore(&mut self, me: &Common, damaged: bool) {
        (self.restoring, self.damaged) = (false, damaged);
        let digest = digest_at(self.executed, damaged);
        self.machine.handle_restored(me.now, digest);
        // It stands at a position, and waits for the log at once.
        if self.buffer.is_empty() {
            self.machine.handle_drained(me.now, self.executed);
        }
    }

    /// Executes the next entry of the log.
    pub fn run(&mut self, me: &Common) {
        let item = self
            .buffer
            .pop_front()
            .expect("there is something to execute");
        (self.consumed, self.executed) = (self.consumed + item.bytes, item.seq);
        if let Event::Output(mark) = item.entry.event
            && mark.number > self.forgotten
        {
            self.held
                .push_back((mark.number, MemberId(mark.hash.into())));
        }
        self.machine
            .handle_consumed(me.now, self.consumed, self.executed);
        if self.buffer.is_empty() {
            self.machine.handle_drained(me.now, self.executed);
        }
    }

    pub fn diverge(&mut self, me: &Common) {
        self.diverged = true;
        let at = Position::exit(self.executed);
        self.machine.handle_diverged(me.now, at, String::new());
    }

    pub fn answer(&mut self, me: &Common, ask: Ask, known: bool, storage: &Storage) {
        let (now, unknown) = (me.now, String::new());
        match ask {
            Ask::ReadBack(generation) => {
                let answer = match known {
                    true => storage.read_back(generation),
                    false => ReadBackAnswer::Unreachable(unknown),
                };
                self.machine.handle_read_back(now, answer);
            }
            Ask::Claim(_) => {
                assert!(!known, "what a claim came to is known when it is written");
                let unknown = ClaimAnswer::Unreachable(unknown);
                self.machine.handle_claim(now, unknown);
            }
            Ask::Close(_) => {
                let answer = match known {
                    true => CloseAnswer::Closed,
                    false => CloseAnswer::Unreachable(unknown),
                };
                self.machine.handle_closed(now, answer);
            }
            Ask::Open(..) => unreachable!("a backup opens nothing"),
        }
    }

    /// Performs what the machine asks for; whether that was more than to show that it is there.
    pub fn act(&mut self, me: &mut Common, rest: &mut Rest) -> bool {
        let mut reacted = false;
        while let Some(action) = self.machine.poll_action() {
            assert_eq!(me.fate, Fate::Running, "{action:?} after the end");
            reacted |= !matches!(action, BackupAction::Send(_) | BackupAction::Beat(_));
            self.perform(action, me, rest);
        }
        reacted
    }

    fn perform(&mut self, action: BackupAction, me: &mut Common, rest: &mut Rest) {
        match action {
            BackupAction::Send(message) => {
                self.armed |= message == Message::Ready && !self.copied;
                rest.send(me.index, message);
            }
            BackupAction::Beat(beat) => rest.beat(me.index, beat),
            BackupAction::Disconnect => rest.disconnect(me.index, false),
            BackupAction::Ask(question) => self.ask(question, me, rest),
            BackupAction::Build(build) => self.prepare(build, me, rest),
            BackupAction::Deliver(delivery) => {
                if let Some(last) = delivery.items.last() {
                    rest.around.witness.arrives(me.index, last.seq);
                }
                self.buffer.extend(delivery.items);
            }
            BackupAction::ForgetOutputs { up_to } => {
                rest.around.witness.forgets(up_to);
                self.forgotten = up_to;
                self.held.retain(|&(output, _)| output > up_to);
            }
            BackupAction::Turn(turn) => self.turn(turn, me, rest),
            BackupAction::End(end) => self.end(end, me, rest),
        }
    }

    fn ask(&mut self, question: BackupQuestion, me: &mut Common, rest: &mut Rest) {
        match question {
            BackupQuestion::ReadBack { generation } => {
                me.ask(Question::Asked(Ask::ReadBack(generation)));
            }
            BackupQuestion::Claim { generation } => self.claim(generation, me, rest),
            BackupQuestion::Fence { .. } => me.ask(Question::Fence),
            BackupQuestion::Close { generation } => {
                me.ask(Question::Asked(Ask::Close(generation)));
            }
        }
    }

    fn prepare(&mut self, build: Build, me: &Common, rest: &mut Rest) {
        match build {
            Build::Boot {
                generation, copied, ..
            } => (self.booting, self.copied) = (Some(generation), copied),
            Build::Load { .. } => panic!("the model's machine has no memory"),
            Build::Restore { seq, outputs, .. } => {
                rest.around.witness.arrives(me.index, seq);
                (self.restoring, self.executed, self.forgotten) = (true, seq, outputs);
            }
            Build::Discard => self.booting = None,
        }
    }

    /// What changes this side's part.
    fn turn(&mut self, turn: BackupTurn, me: &mut Common, rest: &mut Rest) {
        match turn {
            BackupTurn::Armed { .. } => {
                self.armed = true;
                if self.damaged {
                    rest.around.witness.note(Flaw::AnotherMachine);
                }
            }
            BackupTurn::Suspect(_) => self.suspects = true,
            BackupTurn::Withdraw => (self.suspects, self.withdrew) = (false, true),
            BackupTurn::TakeOver => self.planned = true,
            BackupTurn::PrimaryLost(_) => self.forget_question(me),
            BackupTurn::EmitHeld => {
                self.go_alone(me, rest);
                for (output, maker) in self.held.drain(..) {
                    rest.around.witness.backup_emits(me.id, output, maker);
                }
            }
            BackupTurn::Announce => {}
        }
    }

    fn end(&mut self, end: BackupEnd, me: &mut Common, rest: &mut Rest) {
        match end {
            BackupEnd::Live { .. } => {
                self.go_alone(me, rest);
                self.live = true;
            }
            BackupEnd::Halt(why) => {
                me.fate = Fate::Halted(why.status());
                let armed = self.armed && matches!(why, HaltReason::NotArmed(_));
                if armed || matches!(why, HaltReason::NoRight(_) | HaltReason::NotFree(_)) {
                    rest.around
                        .witness
                        .note(Flaw::Unreasonable(why.to_string()));
                }
            }
            BackupEnd::Finish { closed } => {
                rest.around.witness.finishes(rest.guest);
                assert!(closed, "the arbiter is never away for so long");
                me.fate = Fate::Finished;
            }
        }
    }

    /// Who starts over does not ask again.
    fn forget_question(&mut self, me: &mut Common) {
        if me.question == Question::Again {
            me.question = Question::None;
        }
    }

    fn claim(&mut self, generation: u64, me: &mut Common, rest: &mut Rest) {
        let witness = &mut rest.around.witness;
        let (executed, acknowledged) = (self.executed, witness.arrived(me.index));
        if executed < acknowledged {
            witness.note(Flaw::AsksTooEarly {
                executed,
                acknowledged,
            });
        }
        if !self.armed || self.diverged {
            witness.note(Flaw::GoesOnDiverged);
        }
        self.claimed = true;
        me.ask(Question::Asked(Ask::Claim(generation)));
    }

    /// It goes on alone, unless it does already.
    fn go_alone(&mut self, me: &Common, rest: &mut Rest) {
        let Around {
            witness, storage, ..
        } = &mut *rest.around;
        if witness.is_alone(me.id) {
            return;
        }
        witness.goes_alone(me.id, self.machine.generation(), storage);
        if !self.fenced && !self.planned {
            witness.note(Flaw::BeforeFence);
        }
    }
}
