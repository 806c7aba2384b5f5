//! Performs the actions of the backup's state machine.

use super::{Answer, Runtime, Step};
use crate::announcer::Announcer;
use crate::arbiter::Question;
use crate::backup::shadow::Shadow;
use crate::backup::vcpu::{self, Boot, Job};
use crate::cuts::CutPoint;
use crate::feed::Feed;
use crate::outputs::HeldOutputs;
use crate::{Outcome, arbiter, now};
use ft_protocol::arbiter::ReadBackAnswer;
use ft_protocol::backup::{Backup, Delivery};
use ft_protocol::host::{BackupHost, Host};
use ft_protocol::log::{Header, Position};
use ft_protocol::wire::{Beat, Message};
use ft_protocol::{HaltReason, Loss};
use lockstep_events::Event;
use lockstep_pulse::PulseWatch;
use lockstep_replay::journal::Chunk;
use std::io;
use std::sync::mpsc::channel;

/// Frames taken from the TAP at a time while this side is not live.
const DRAIN_FRAMES: usize = 256;
/// How often they are taken when none may be left: together more than a TAP's queue holds.
const DRAIN_ROUNDS: usize = 8;

impl Host for Runtime {
    type End = Step;
    type Error = io::Error;

    fn send(&mut self, message: Message) {
        if let Some(link) = &mut self.link {
            link.send(&message);
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
        if !self.asked {
            self.asked = true;
            let at = self.received_at;
            self.events.emit(Event::CaughtUp {
                position: at.exit,
                edges: at.edges,
            });
        }
        self.asker.claim(generation, &self.answers, Answer::Claim);
        self.cuts.pass(CutPoint::ClaimAsked);
    }

    fn fence(&mut self, generation: u64) {
        self.fence.run(generation, &self.answers, Answer::Fenced);
    }

    fn close(&mut self, generation: u64) {
        self.asker.close(generation, &self.answers, Answer::Closed);
    }

    fn halt(&mut self, reason: HaltReason) -> Step {
        Step::Done(Outcome::Halted(reason.into()))
    }

    fn finish(&mut self, closed: bool) -> Step {
        let reason = self.ended.expect("the guest ended");
        let open = (!closed).then(|| self.backup.generation());
        Step::Done(Outcome::of_end(reason, open, self.unclosed.take()))
    }
}

impl BackupHost for Runtime {
    fn backup(&mut self) -> &mut Backup {
        &mut self.backup
    }

    fn read_back(&mut self, generation: u64) {
        self.asker.ask(
            Question::ReadBack(generation),
            &self.answers,
            move |arbiter, vm, _| Answer::ReadBack(arbiter::read_back(arbiter, vm, generation)),
            |why| Answer::ReadBack(ReadBackAnswer::Unreachable(why)),
        );
    }

    fn boot(
        &mut self,
        generation: u64,
        header: Header,
        image: Vec<u8>,
        copied: bool,
    ) -> io::Result<()> {
        match self.refusal(&header, copied) {
            Some(why) => self.backup.handle_boot_failed(now(), why.into()),
            None => self.start_thread(generation, header, image, copied)?,
        }
        Ok(())
    }

    fn load(&mut self, pages: Vec<u8>) {
        self.job(Job::Load(pages));
    }

    fn restore(&mut self, seq: u64, at: Position, outputs: u64, state: Vec<u8>) -> io::Result<()> {
        // What came before, the machine had taken in, or its log will have.
        for _ in 0..DRAIN_ROUNDS {
            self.drain_tap()?;
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.take(now());
        }
        self.restoring = true;
        self.feed.begin_after(seq);
        self.held.begin_after(outputs);
        self.received_at = at;
        self.job(Job::Restore {
            seq,
            outputs,
            state,
        });
        Ok(())
    }

    fn discard(&mut self) {
        self.feed.close();
        self.jobs = None;
    }

    fn deliver(&mut self, delivery: Delivery) -> io::Result<()> {
        // Before the frames of the log: most of them have arrived here too.
        self.drain_tap()?;
        if let Some(shadow) = &mut self.shadow {
            shadow.logged(now(), delivery.items.iter().map(|item| &item.entry));
        }
        self.received_bytes += delivery.frames.len() as u64;
        if let Some(last) = delivery.items.last() {
            self.received_at = last.entry.at;
        }
        if let (true, Some(last)) = (self.record.is_some(), delivery.items.last()) {
            self.unrecorded.push(Chunk {
                frames: delivery.frames.into(),
                last_seq: last.seq,
                total_bytes: self.received_bytes,
            });
            self.record_delivered()?;
        }
        self.feed.push(delivery.items);
        Ok(())
    }

    fn forget_outputs(&mut self, up_to: u64) {
        self.held.forget(up_to);
    }

    fn armed(&mut self, generation: u64) {
        self.events.emit(Event::Joined { generation });
    }

    fn suspect(&mut self, loss: Loss) {
        self.suspects = true;
        let reason = loss.to_string();
        self.events.emit(Event::Suspect { reason });
        self.note_progress();
    }

    fn withdraw(&mut self) {
        self.suspects = false;
        self.events.emit(Event::Withdraw {});
    }

    fn take_over(&mut self) {
        self.suspects = true;
        self.events.emit(Event::TakesOver {});
        self.note_progress();
    }

    fn primary_lost(&mut self, loss: Loss) {
        tracing::info!("no pair yet: {loss}");
    }

    fn emit_held(&mut self) -> io::Result<()> {
        let held = self.held.take(u64::MAX);
        self.reemitted = held.len();
        let backends = self.backends.as_mut();
        let (_, direct) = backends.expect("it goes live only after that");
        for (_, output) in &held {
            direct.release(output)?;
        }
        Ok(())
    }

    /// The primary's runtime goes on with that.
    fn announce(&mut self) {
        if let (Some(tap), Some(net)) = (&self.tap, self.net) {
            Announcer::new(tap.clone(), net, now()).tick(now(), true);
        }
    }

    fn live(&mut self, generation: u64) -> Step {
        Step::Live(generation)
    }
}

impl Runtime {
    pub(super) fn job(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // If the vCPU's thread has ended, it has said why.
            let _gone = jobs.send(job);
        }
    }

    /// Why this host cannot run the machine, or not record it.
    fn refusal(&self, header: &Header, copied: bool) -> Option<&'static str> {
        if copied && self.recording.is_some() {
            return Some("the recording here was begun before the VM ran: record elsewhere");
        }
        if self.recording.as_ref().is_some_and(|r| r.header != *header) {
            return Some("the recording here was begun with another primary: record elsewhere");
        }
        match (header.machine.net(), &self.tap) {
            (Some(_), None) => {
                Some("the machine has a network and this backup has none: give it --net")
            }
            (None, Some(_)) => Some("the machine has no network: give the backup no --net either"),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    fn start_thread(
        &mut self,
        generation: u64,
        header: Header,
        image: Vec<u8>,
        copied: bool,
    ) -> io::Result<()> {
        self.net = header.machine.net();
        let pulse = self.cuts.pulse();
        (self.feed, self.held) = (Feed::new(pulse.clone()), HeldOutputs::default());
        if let (Some(tap), Some(net)) = (&self.tap, self.net) {
            tap.filter_for(net.mac);
        }
        let keeps = self.net.is_some() && self.keeps_shadow;
        self.shadow = keeps.then(Shadow::default);
        let (jobs, work) = channel();
        self.jobs = Some(jobs);
        self.made_of = Some((header.clone(), image.clone()));
        let boot = Boot {
            cpus: self.cpus,
            generation,
            header,
            image,
            copied,
            record: self.record.clone().filter(|_| self.recording.is_none()),
            pulse: pulse.clone(),
            cuts: self.cuts.clone(),
        };
        let (feed, held, news) = (self.feed.clone(), self.held.clone(), self.news.clone());
        let thread = std::thread::Builder::new()
            .name("vcpu".into())
            .spawn(move || vcpu::run(boot, feed, held, &work, &news))?;
        self.watch = PulseWatch::new(pulse);
        self.watch.attach(thread);
        Ok(())
    }

    /// Records the delivered entries. Before a copy follows the log its recording has not begun, and
    /// the entries wait; the buffer limits their size.
    pub(super) fn record_delivered(&mut self) -> io::Result<()> {
        if self.restoring {
            return Ok(());
        }
        let chunks = std::mem::take(&mut self.unrecorded);
        let recording = self.recording.as_mut();
        if let Some(consumer) = recording.and_then(|r| r.consumer.as_mut()) {
            for chunk in &chunks {
                consumer.take(chunk).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Takes the frames that the TAP got, as the primary got them too. Without a shadow, frames that
    /// come after a suspicion stay in the TAP.
    pub(super) fn drain_tap(&mut self) -> io::Result<()> {
        let Some(tap) = &self.tap else {
            return Ok(());
        };
        if self.shadow.is_none() && self.suspects {
            return Ok(());
        }
        let mut frame = [0; 2048];
        for _ in 0..DRAIN_FRAMES {
            let Some(len) = tap.recv(&mut frame)? else {
                break;
            };
            if let Some(shadow) = &mut self.shadow {
                shadow.received(now(), &frame[..len]);
            }
        }
        Ok(())
    }
}
