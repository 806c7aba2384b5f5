//! What the backup's state machine asks for, done.

use super::{Answer, Runtime, Step};
use crate::announcer::Announcer;
use crate::arbiter::Question;
use crate::backup::shadow::Shadow;
use crate::backup::vcpu::{self, Boot, Job};
use crate::cuts::CutPoint;
use crate::feed::Feed;
use crate::outputs::HeldOutputs;
use crate::{Outcome, arbiter, now};
use ft_protocol::arbiter::{ClaimAnswer, CloseAnswer, ReadBackAnswer};
use ft_protocol::backup::{BackupAction, Delivery};
use ft_protocol::log::Header;
use lockstep_events::Event;
use lockstep_pulse::PulseWatch;
use lockstep_replay::journal::Chunk;
use std::io;
use std::sync::mpsc::channel;

/// Frames taken from the TAP at a time while this side is not live.
const DRAIN_FRAMES: usize = 256;
/// So often when there is to be nothing left: more than the queue of a TAP holds.
const DRAIN_ROUNDS: usize = 8;

impl Runtime {
    /// Does what the state machine asks for.
    pub(super) fn perform(&mut self) -> io::Result<Option<Step>> {
        while let Some(action) = self.backup.poll_action() {
            if let Some(step) = self.act(action)? {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    fn act(&mut self, action: BackupAction) -> io::Result<Option<Step>> {
        match action {
            BackupAction::Send(message) => {
                if let Some(link) = &mut self.link {
                    link.send(&message);
                }
            }
            BackupAction::Beat(beat) => self.beats.send(beat),
            BackupAction::Fence { generation } => {
                self.fence.run(generation, &self.answers, Answer::Fenced);
            }
            BackupAction::TakeOver => {
                self.suspects = true;
                self.events.emit(Event::TakesOver {});
                self.note_progress();
            }
            BackupAction::ReadBack { .. }
            | BackupAction::Claim { .. }
            | BackupAction::Close { .. } => self.ask(action),
            BackupAction::Boot {
                generation,
                header,
                image,
                copied,
            } => self.boot(generation, *header, image, copied)?,
            BackupAction::Load { pages } => self.job(Job::Load(pages)),
            BackupAction::Restore {
                seq,
                at,
                outputs,
                state,
            } => {
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
            }
            BackupAction::Armed { generation } => {
                self.events.emit(Event::Joined { generation });
            }
            BackupAction::Discard => {
                self.feed.close();
                self.jobs = None;
            }
            BackupAction::Deliver(delivery) => self.deliver(delivery)?,
            BackupAction::ForgetOutputs { up_to } => self.held.forget(up_to),
            BackupAction::Suspect(loss) => {
                self.suspects = true;
                let reason = loss.to_string();
                self.events.emit(Event::Suspect { reason });
                self.note_progress();
            }
            BackupAction::Withdraw => {
                self.suspects = false;
                self.events.emit(Event::Withdraw {});
            }
            BackupAction::PrimaryLost(loss) => tracing::info!("no pair yet: {loss}"),
            BackupAction::EmitHeld => self.emit_held()?,
            BackupAction::Announce => self.announce(),
            BackupAction::Live { generation } => return Ok(Some(Step::Live(generation))),
            BackupAction::Disconnect => {
                self.beats.silence();
                if let Some(link) = self.link.take() {
                    tokio::spawn(link.close());
                }
            }
            BackupAction::Halt(reason) => {
                return Ok(Some(Step::Done(Outcome::Halted(reason.into()))));
            }
            BackupAction::Finish { closed } => {
                let reason = self.ended.expect("the guest ended");
                let open = (!closed).then(|| self.backup.generation());
                let outcome = Outcome::of_end(reason, open, self.unclosed.take());
                return Ok(Some(Step::Done(outcome)));
            }
        }
        Ok(None)
    }

    pub(super) fn job(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A vCPU's thread that is gone has told why.
            let _gone = jobs.send(job);
        }
    }

    fn boot(
        &mut self,
        generation: u64,
        header: Header,
        image: Vec<u8>,
        copied: bool,
    ) -> io::Result<()> {
        let mut refusal = None;
        match (header.machine.net(), &self.tap) {
            (Some(_), None) => {
                refusal = Some("the machine has a network and this backup has none: give it --net");
            }
            (None, Some(_)) => {
                refusal = Some("the machine has no network: give the backup no --net either");
            }
            _ => {}
        }
        if self.recording.as_ref().is_some_and(|r| r.header != header) {
            refusal = Some("the recording here was begun with another primary: record elsewhere");
        }
        if copied && self.recording.is_some() {
            refusal = Some("the recording here was begun before the VM ran: record elsewhere");
        }
        if let Some(why) = refusal {
            self.backup.handle_boot_failed(now(), why.into());
            return Ok(());
        }
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

    fn deliver(&mut self, delivery: Delivery) -> io::Result<()> {
        // Before the frames in the log, most of which have come here as well.
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

    /// Records what was delivered. Before a copy follows the log, its recording has not begun, and what
    /// was delivered waits: no more than the buffer takes.
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

    /// Tells the network's bridges where the MAC is now; the primary's runtime goes on with that.
    fn announce(&self) {
        if let (Some(tap), Some(net)) = (&self.tap, self.net) {
            Announcer::new(tap.clone(), net, now()).tick(now(), true);
        }
    }

    /// Takes what the TAP got: the primary got it too. Without a shadow, what comes after a suspicion
    /// stays in the TAP.
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

    /// Asks the arbiter on a thread that may wait for storage.
    fn ask(&mut self, action: BackupAction) {
        if matches!(action, BackupAction::Claim { .. }) && !self.asked {
            self.asked = true;
            let at = self.received_at;
            self.events.emit(Event::CaughtUp {
                position: at.exit,
                edges: at.edges,
            });
        }
        let claims = matches!(action, BackupAction::Claim { .. });
        let (asker, answers) = (&self.asker, &self.answers);
        match action {
            BackupAction::ReadBack { generation } => asker.ask(
                Question::ReadBack(generation),
                answers,
                move |arbiter, vm, _| Answer::ReadBack(arbiter::read_back(arbiter, vm, generation)),
                |why| Answer::ReadBack(ReadBackAnswer::Unreachable(why)),
            ),
            BackupAction::Claim { generation } => asker.ask(
                Question::Claim(generation),
                answers,
                move |arbiter, vm, me| Answer::Claim(arbiter::claim(arbiter, vm, generation, me)),
                |why| Answer::Claim(ClaimAnswer::Unreachable(why)),
            ),
            BackupAction::Close { generation } => asker.ask(
                Question::Close(generation),
                answers,
                move |arbiter, vm, me| Answer::Closed(arbiter::close(arbiter, vm, generation, me)),
                |why| Answer::Closed(CloseAnswer::Unreachable(why)),
            ),
            other => unreachable!("{other:?} is no question"),
        }
        if claims {
            self.cuts.pass(CutPoint::ClaimAsked);
        }
    }
}
