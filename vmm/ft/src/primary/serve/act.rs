//! What the primary's state machine asks for, done.

use super::{Answer, Runtime};
use crate::arbiter::Question;
use crate::cuts::CutPoint;
use crate::{Outcome, arbiter, now};
use ft_protocol::arbiter::{ClaimAnswer, CloseAnswer, OpenAnswer};
use ft_protocol::primary::{PrimaryAction, PrimaryEnd, PrimaryQuestion, PrimaryTurn};
use ft_protocol::wire::{Message, Request};
use serde_json::json;
use std::io;
use std::sync::atomic::Ordering;

impl Runtime {
    /// Does what the state machine asks for.
    pub(super) fn perform(&mut self) -> io::Result<Option<Outcome>> {
        while let Some(action) = self.primary.poll_action() {
            if let Some(outcome) = self.act(action)? {
                return Ok(Some(outcome));
            }
        }
        let rest = self.primary.rest();
        self.vcpu.pace.set(self.primary.may_run(), rest);
        Ok(None)
    }

    fn act(&mut self, action: PrimaryAction) -> io::Result<Option<Outcome>> {
        match action {
            PrimaryAction::Send(message) => self.send(&message),
            PrimaryAction::Beat(beat) => self.beats.send(beat),
            PrimaryAction::Welcome { protocol, right } => {
                let message = Message::Welcome {
                    protocol,
                    generation: right.generation,
                    members: right.members,
                    nonce: right.nonce,
                    header: Box::new(self.header.clone()),
                    image: self.image.clone(),
                };
                self.send(&message);
            }
            PrimaryAction::Offer { protocol, right } => {
                let message = Message::Offer {
                    protocol,
                    generation: right.generation,
                    members: right.members,
                    nonce: right.nonce,
                    source: self.me,
                    header: Box::new(self.header.clone()),
                    image: self.image.clone(),
                };
                self.send(&message);
            }
            PrimaryAction::Copy(step) => self.copy(step),
            PrimaryAction::SendLog { up_to } => {
                self.send_log(up_to);
                self.cuts.pass(CutPoint::LogSent);
            }
            PrimaryAction::Release { up_to } => self.release(up_to)?,
            PrimaryAction::Disconnect => {
                self.beats.silence();
                if let Some(link) = self.link.take() {
                    tokio::spawn(link.close());
                }
            }
            PrimaryAction::Ask(question) => self.ask(question),
            PrimaryAction::PutBack(standing) => self.put_back(standing),
            PrimaryAction::Turn(turn) => self.turn(turn)?,
            PrimaryAction::End(end) => return Ok(Some(self.end_with(end))),
        }
        Ok(None)
    }

    /// Hands outputs to the backends. Before each one it is looked whether this side still may: it may have
    /// been stopped since the last, and another one alive in its place.
    fn release(&mut self, up_to: u64) -> io::Result<()> {
        let mut left = None;
        loop {
            if !self.primary.may_release(now()) {
                self.primary.handle_kept_back();
                break;
            }
            let Some((number, output)) = self.vcpu.held.pop(up_to) else {
                break;
            };
            self.direct.release(&output)?;
            left = Some(number);
        }
        if let Some(number) = left {
            self.cuts.pass(CutPoint::OutputReleased);
            self.primary.handle_released(now(), number);
        }
        Ok(())
    }

    /// What changes this side's part.
    fn turn(&mut self, turn: PrimaryTurn) -> io::Result<()> {
        match turn {
            PrimaryTurn::Start => {
                let generation = self.primary.generation();
                let (machine, live) = self.idle.take().expect("the guest starts once");
                self.events
                    .emit("started", json!({"generation": generation}));
                self.vcpu.start(machine, live.restarted())?;
            }
            PrimaryTurn::Park => {
                self.vcpu.controls.park.store(true, Ordering::Release);
                self.waker.wake();
            }
            PrimaryTurn::Resume => {
                self.vcpu.pace.resume();
                self.control.finish(
                    Request::Switchover,
                    Err("the backup was lost, this side runs on alone"),
                );
            }
            PrimaryTurn::BackupLost(loss) => {
                let reason = loss.to_string();
                self.events.emit("backup_lost", json!({"reason": reason}));
            }
            PrimaryTurn::Protected { generation } => {
                self.copy = None;
                self.events
                    .emit("protected", json!({"generation": generation}));
            }
            PrimaryTurn::GoSolo { generation } => {
                self.unsent.clear();
                self.events.emit("solo", json!({"generation": generation}));
                self.announce();
                self.cuts.pass(CutPoint::LiveAnnounced);
            }
            PrimaryTurn::Requested(request) => {
                if let Err(why) = self.request(request) {
                    tracing::warn!("the backup's operator asked for {request:?}: {why}");
                }
            }
        }
        Ok(())
    }

    /// This side is done.
    fn end_with(&mut self, end: PrimaryEnd) -> Outcome {
        match end {
            PrimaryEnd::HandedOver { generation } => {
                self.events
                    .emit("handed_over", json!({"generation": generation}));
                Outcome::HandedOver
            }
            PrimaryEnd::Leave => self.leave(),
            PrimaryEnd::Halt(reason) => Outcome::Halted(reason.status(), reason.to_string()),
            PrimaryEnd::Finish { closed } => {
                let reason = self.ended.expect("the guest ended");
                let open = (!closed).then(|| self.primary.last_opened());
                Outcome::of_end(reason, open, self.unclosed.take())
            }
        }
    }

    pub(super) fn send(&mut self, message: &Message) {
        if let Some(link) = &mut self.link {
            link.send(message);
        }
    }

    fn send_log(&mut self, up_to: u64) {
        let mut frames = Vec::new();
        while let Some(chunk) = self.unsent.pop_front_if(|chunk| chunk.last_seq <= up_to) {
            frames.extend_from_slice(&chunk.frames);
        }
        if !frames.is_empty() {
            self.send(&Message::Log { frames });
        }
    }

    /// Asks the arbiter, or runs the fence, on a thread that may wait.
    fn ask(&mut self, question: PrimaryQuestion) {
        let (asker, answers) = (&self.asker, &self.answers);
        match question {
            PrimaryQuestion::Open(right) => asker.ask(
                Question::Open(right.generation),
                answers,
                move |arbiter, vm, _| {
                    let record =
                        arbiter::open_record(vm, right.generation, right.members, right.nonce);
                    Answer::Opened(arbiter::open(arbiter, &record))
                },
                |why| Answer::Opened(OpenAnswer::Unreachable(why)),
            ),
            PrimaryQuestion::Claim { generation } => {
                asker.ask(
                    Question::Claim(generation),
                    answers,
                    move |arbiter, vm, me| {
                        Answer::Claim(arbiter::claim(arbiter, vm, generation, me))
                    },
                    |why| Answer::Claim(ClaimAnswer::Unreachable(why)),
                );
                self.cuts.pass(CutPoint::ClaimAsked);
            }
            PrimaryQuestion::Fence { generation } => {
                self.fence.run(generation, &self.answers, Answer::Fenced);
            }
            PrimaryQuestion::Close { generation } => asker.ask(
                Question::Close(generation),
                answers,
                move |arbiter, vm, me| Answer::Closed(arbiter::close(arbiter, vm, generation, me)),
                |why| Answer::Closed(CloseAnswer::Unreachable(why)),
            ),
        }
    }
}
