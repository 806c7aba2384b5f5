//! Performs the actions of the primary's state machine.

use super::{Answer, Runtime};
use crate::arbiter::Question;
use crate::control::NotDone;
use crate::cuts::CutPoint;
use crate::primary::copy::Copy;
use crate::{Outcome, arbiter, now};
use ft_protocol::arbiter::{OpenAnswer, Standing};
use ft_protocol::host::{Host, PrimaryHost};
use ft_protocol::log::Header;
use ft_protocol::primary::Primary;
use ft_protocol::transfer::Right;
use ft_protocol::wire::{Beat, Message, Request};
use ft_protocol::{HaltReason, Loss};
use lockstep_events::Event;
use std::io;
use std::sync::atomic::Ordering;

impl Host for Runtime {
    type End = Outcome;
    type Error = io::Error;

    fn send(&mut self, message: Message) {
        if let Some(link) = &mut self.link {
            link.send(&message);
        }
        if matches!(message, Message::Log { .. }) {
            self.cuts.pass(CutPoint::LogSent);
        }
    }

    fn beat(&mut self, beat: Beat) {
        self.beats.send(beat);
    }

    fn disconnect(&mut self) {
        self.beats.silence();
        if let Some(link) = self.link.take() {
            tokio::spawn(link.close());
        }
    }

    fn claim(&mut self, generation: u64) {
        self.asker.claim(generation, &self.answers, Answer::Claim);
        self.cuts.pass(CutPoint::ClaimAsked);
    }

    fn fence(&mut self, generation: u64) {
        self.fence.run(generation, &self.answers, Answer::Fenced);
    }

    fn close(&mut self, generation: u64) {
        self.asker.close(generation, &self.answers, Answer::Closed);
    }

    fn halt(&mut self, reason: HaltReason) -> Outcome {
        Outcome::Halted(reason.into())
    }

    fn finish(&mut self, closed: bool) -> Outcome {
        let reason = self.ended.expect("the guest ended");
        let open = (!closed).then(|| self.primary.last_opened());
        Outcome::of_end(reason, open, self.unclosed.take())
    }
}

impl PrimaryHost for Runtime {
    fn primary(&mut self) -> &mut Primary {
        &mut self.primary
    }

    fn made_of(&self) -> (Header, Vec<u8>) {
        (self.header.clone(), self.image.clone())
    }

    fn take_log(&mut self, up_to: u64) -> Vec<u8> {
        let mut frames = Vec::new();
        while let Some(chunk) = self.unsent.pop_front_if(|chunk| chunk.last_seq <= up_to) {
            frames.extend_from_slice(&chunk.frames);
        }
        frames
    }

    fn forget_log(&mut self) {
        self.unsent.clear();
    }

    fn begin_copy(&mut self) {
        self.start_copy();
    }

    fn take_piece(&mut self) -> Vec<u8> {
        let piece = self.copy.as_mut().and_then(Copy::take_piece);
        piece.expect("a piece that was handed in")
    }

    fn take_state(&mut self) -> Message {
        let state = self.copy.as_mut().and_then(Copy::take_state);
        state.expect("the machine was captured")
    }

    fn stop_copy(&mut self) {
        if self.copy.take().is_some() {
            self.events.emit(Event::CopyEnded {});
        }
    }

    /// Before each output it is looked whether this side still may: it may have been stopped since the last,
    /// and another one alive in its place.
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

    fn pace(&mut self, may_run: bool, rest: u32) {
        self.vcpu.pace.set(may_run, rest);
    }

    fn open(&mut self, right: Right) {
        self.asker.ask(
            Question::Open(right.generation),
            &self.answers,
            move |arbiter, vm, _| {
                let record = arbiter::open_record(vm, right.generation, right.members, right.nonce);
                Answer::Opened(arbiter::open(arbiter, &record))
            },
            |why| Answer::Opened(OpenAnswer::Unreachable(why)),
        );
    }

    fn put_back(&mut self, standing: Standing) {
        self.write_again(standing);
    }

    fn start(&mut self) -> io::Result<()> {
        let generation = self.primary.generation();
        let (machine, live) = self.idle.take().expect("the guest starts once");
        self.events.emit(Event::Started { generation });
        self.vcpu.start(machine, live.restarted())
    }

    fn park(&mut self) {
        self.vcpu.controls.park.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn resume(&mut self) {
        self.vcpu.pace.resume();
        let lost = Err(NotDone::BackupLost);
        self.control.finish(Request::Switchover, &lost);
    }

    fn backup_lost(&mut self, loss: Loss) {
        let reason = loss.to_string();
        self.events.emit(Event::BackupLost { reason });
    }

    fn protected(&mut self, generation: u64) {
        self.copy = None;
        self.events.emit(Event::Protected { generation });
    }

    fn go_solo(&mut self, generation: u64) {
        self.events.emit(Event::Solo { generation });
        self.announce();
        self.cuts.pass(CutPoint::LiveAnnounced);
    }

    fn requested(&mut self, request: Request) {
        if let Err(why) = self.request(request) {
            tracing::warn!("the backup's operator asked for {request:?}: {why}");
        }
    }

    fn handed_over(&mut self, generation: u64) -> Outcome {
        self.events.emit(Event::HandedOver { generation });
        Outcome::HandedOver
    }

    fn leave(&mut self) -> Outcome {
        self.close_unused()
    }
}
