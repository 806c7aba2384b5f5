//! What the primary's state machine asks for, done.

use super::{Answer, Runtime};
use crate::arbiter::Question;
use crate::control::NotDone;
use crate::cuts::CutPoint;
use crate::primary::copy::Copy;
use crate::{Outcome, arbiter, now};
use ft_protocol::arbiter::{ClaimAnswer, CloseAnswer, OpenAnswer};
use ft_protocol::primary::PrimaryAction;
use ft_protocol::wire::{Message, Request};
use lockstep_events::Event;
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
            PrimaryAction::Welcome {
                protocol,
                generation,
                members,
                nonce,
            } => {
                let message = Message::Welcome {
                    protocol,
                    generation,
                    members,
                    nonce,
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
            PrimaryAction::Copy => self.start_copy(),
            PrimaryAction::StopCopy => {
                self.unsent.clear();
                self.arm_by = None;
                if self.copy.take().is_some() {
                    self.events.emit(Event::CopyEnded {});
                }
            }
            PrimaryAction::Protected { generation } => {
                self.arm_by = None;
                // What waits behind the copy is sent first: the log since, and Armed itself.
                let behind = self.copy.take().map_or(vec![], Copy::into_outbox);
                for message in behind {
                    self.send(&message);
                }
                self.events.emit(Event::Protected { generation });
            }
            PrimaryAction::SendLog { up_to } => {
                self.send_log(up_to);
                self.cuts.pass(CutPoint::LogSent);
            }
            PrimaryAction::Release { up_to } => self.release(up_to)?,
            PrimaryAction::Open { .. }
            | PrimaryAction::Claim { .. }
            | PrimaryAction::Close { .. } => {
                let claims = matches!(action, PrimaryAction::Claim { .. });
                self.ask(action);
                if claims {
                    self.cuts.pass(CutPoint::ClaimAsked);
                }
            }
            PrimaryAction::PutBack(standing) => self.put_back(standing),
            PrimaryAction::Fence { generation } => {
                self.fence.run(generation, &self.answers, Answer::Fenced);
            }
            other => return self.turn(other),
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

    /// What changes this side's part, or ends it.
    fn turn(&mut self, action: PrimaryAction) -> io::Result<Option<Outcome>> {
        match action {
            PrimaryAction::Requested(request) => {
                if let Err(why) = self.request(request) {
                    tracing::warn!("the backup's operator asked for {request:?}: {why}");
                }
            }
            PrimaryAction::Park => {
                self.vcpu.controls.park.store(true, Ordering::Release);
                self.waker.wake();
            }
            PrimaryAction::Resume => {
                self.vcpu.pace.resume();
                let lost = Err(NotDone::BackupLost);
                self.control.finish(Request::Switchover, &lost);
            }
            PrimaryAction::HandedOver { generation } => {
                self.events.emit(Event::HandedOver { generation });
                return Ok(Some(Outcome::HandedOver));
            }
            PrimaryAction::Leave => return Ok(Some(self.leave())),
            PrimaryAction::Start => {
                let generation = self.primary.generation();
                let (machine, live) = self.idle.take().expect("the guest starts once");
                self.events.emit(Event::Started { generation });
                self.vcpu.start(machine, live.restarted())?;
            }
            PrimaryAction::BackupLost(loss) => {
                let reason = loss.to_string();
                self.events.emit(Event::BackupLost { reason });
            }
            PrimaryAction::GoSolo { generation } => {
                self.unsent.clear();
                self.events.emit(Event::Solo { generation });
                self.announce();
                self.cuts.pass(CutPoint::LiveAnnounced);
            }
            PrimaryAction::Disconnect => {
                self.beats.silence();
                if let Some(link) = self.link.take() {
                    tokio::spawn(link.close());
                }
            }
            PrimaryAction::Halt(reason) => {
                return Ok(Some(Outcome::Halted(reason.into())));
            }
            PrimaryAction::Finish { closed } => {
                let reason = self.ended.expect("the guest ended");
                let open = (!closed).then(|| self.primary.last_opened());
                return Ok(Some(Outcome::of_end(reason, open, self.unclosed.take())));
            }
            other => unreachable!("{other:?} changes nothing"),
        }
        Ok(None)
    }

    /// Sends a message, after what waits of a copy; a heartbeat goes at once.
    pub(super) fn send(&mut self, message: &Message) {
        let behind = self.copy.as_mut().filter(|copy| copy.waits());
        match (behind, message) {
            (None, _) | (_, Message::Heartbeat) => {
                if let Some(link) = &mut self.link {
                    link.send(message);
                }
            }
            (Some(copy), _) => copy.push(message.clone()),
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

    /// Asks the arbiter on a thread that may wait for storage.
    fn ask(&mut self, action: PrimaryAction) {
        let (asker, answers) = (&self.asker, &self.answers);
        match action {
            PrimaryAction::Open {
                generation,
                members,
                nonce,
            } => asker.ask(
                Question::Open(generation),
                answers,
                move |arbiter, vm, _| {
                    let record = arbiter::open_record(vm, generation, members, nonce);
                    Answer::Opened(arbiter::open(arbiter, &record))
                },
                |why| Answer::Opened(OpenAnswer::Unreachable(why)),
            ),
            PrimaryAction::Claim { generation } => asker.ask(
                Question::Claim(generation),
                answers,
                move |arbiter, vm, me| Answer::Claim(arbiter::claim(arbiter, vm, generation, me)),
                |why| Answer::Claim(ClaimAnswer::Unreachable(why)),
            ),
            PrimaryAction::Close { generation } => asker.ask(
                Question::Close(generation),
                answers,
                move |arbiter, vm, me| Answer::Closed(arbiter::close(arbiter, vm, generation, me)),
                |why| Answer::Closed(CloseAnswer::Unreachable(why)),
            ),
            other => unreachable!("{other:?} is no question"),
        }
    }
}
