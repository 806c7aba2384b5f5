//! The loop around the primary's state machine.

mod act;
mod due;
mod join;
mod network;
mod records;

use super::copy::Copy;
use super::vcpu::{News, Vcpu};
use super::{PrimaryParts, SurvivorParts, new_member, new_nonce, timing};
use crate::alarm::Alarm;
use crate::announcer::Announcer;
use crate::arbiter::{Asker, Told, Watch};
use crate::beats::Beats;
use crate::control::{Asked, Control, Refusal, Wish};
use crate::cuts::{CutPoint, Cuts};
use crate::errands::Errands;
use crate::fence::{Fence, FenceError};
use crate::link::{Link, LinkError, Port, next_of};
use crate::lobby::{Candidate, Lobby};
use crate::network::Network;
use crate::silence::LongestSilence;
use crate::{EventLog, Halt, Outcome, StopSignal, StopSignals};
use crate::{arbiter, end_status, now};
use ft_protocol::Time;
use ft_protocol::arbiter::{ClaimAnswer, CloseAnswer, Look, MemberId, OpenAnswer, Standing};
use ft_protocol::log::{EndReason, Header};
use ft_protocol::primary::{Primary, PrimaryConfig};
use ft_protocol::wire::{Beat, Message, Request};
use lockstep_backends::Waker;
use lockstep_backends::live::Direct;
use lockstep_events::{CopyProgress, Event};
use lockstep_pulse::PulseWatch;
use lockstep_replay::LogDirWriter;
use lockstep_replay::journal::Chunk;
use lockstep_replay::record::Controls;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Most messages of the vCPU's thread that are handled before the loop looks at the channel again.
const NEWS_AT_ONCE: usize = 64;

/// An answer from the arbiter.
pub(super) enum Answer {
    Opened(OpenAnswer),
    Claim(ClaimAnswer),
    Closed(CloseAnswer),
    Fenced(Result<(), FenceError>),
    /// The result of a look, or of putting records back.
    Looked(Option<Standing>, Look),
    PutBack,
}

pub(super) struct Runtime {
    pub(super) primary: Primary,
    pub(super) me: MemberId,
    pub(super) header: Header,
    pub(super) image: Vec<u8>,
    pub(super) asker: Asker<Answer>,
    pub(super) watch: Watch,
    pub(super) answers: UnboundedSender<Answer>,
    pub(super) link: Option<Link>,
    pub(super) vcpu: Vcpu,
    /// The machine and its inputs, until the thread starts.
    pub(super) idle: Option<(lockstep_machine::Machine, lockstep_backends::Live)>,
    pub(super) direct: Direct,
    pub(super) network: Network,
    /// Only a survivor has one.
    pub(super) announcer: Option<Announcer>,
    pub(super) unsent: VecDeque<Chunk>,
    /// Some of the log is queued for the channel.
    pub(super) log_queued: bool,
    /// The last generation that this side has won.
    pub(super) won: Option<u64>,
    pub(super) ended: Option<EndReason>,
    pub(super) waker: Waker,
    pub(super) events: EventLog,
    pub(super) beats: Beats,
    pub(super) control: Control,
    pub(super) fence: Fence,
    pub(super) cuts: Cuts,
    /// When the lag was last reported, while it is large enough for that.
    pub(super) lag_told: Option<Time>,
    /// The copy for the joiner.
    pub(super) copy: Option<Copy>,
    /// Goes off when something is due.
    pub(super) alarm: Alarm,
    /// The thread for copies.
    pub(super) copier: Errands,
    /// Number of copies so far.
    pub(super) copies: u64,
    /// The progress of the last copy.
    pub(super) progress: Option<CopyProgress>,
    /// Why the last attempt to close the generation failed.
    pub(super) unclosed: Option<String>,
    /// The longest silence of the backup so far.
    pub(super) silence: LongestSilence,
}

/// Runs the primary to its end; backups connect to `port`.
pub async fn serve(parts: PrimaryParts, port: Port) -> io::Result<Outcome> {
    let mut signals = StopSignals::new()?;
    let (sender, mut answers) = unbounded_channel();
    let (listener, beats) = port.listen()?;
    let mut runtime = Runtime::new(parts, sender, beats)?;
    let member = runtime.me;
    runtime.events.emit(Event::Waiting { member });
    let mut lobby = Some(Lobby::open(listener));
    let outcome = runtime.run(&mut lobby, &mut signals, &mut answers).await;
    runtime.end(&outcome);
    outcome
}

/// Runs a backup that went live to its end: alone, until a new backup joins.
pub async fn serve_survivor(parts: SurvivorParts) -> io::Result<Outcome> {
    let SurvivorParts {
        survivor,
        config,
        mut lobby,
        beats,
        mut signals,
        recording,
        rest,
    } = parts;
    let (sender, mut answers) = unbounded_channel();
    let primary = Primary::survivor(config, survivor, now());
    let mut runtime = rest.resume(primary, survivor, sender, beats);
    runtime.announce();
    let outcome = runtime.run(&mut lobby, &mut signals, &mut answers).await;
    runtime.end(&outcome);
    if let Some(Err(e)) = recording.map(LogDirWriter::finish) {
        tracing::error!("{e}");
    }
    outcome
}

impl Runtime {
    async fn run(
        &mut self,
        lobby: &mut Option<Lobby>,
        signals: &mut StopSignals,
        answers: &mut UnboundedReceiver<Answer>,
    ) -> io::Result<Outcome> {
        loop {
            if let Some(outcome) = self.perform()? {
                return Ok(outcome);
            }
            let due = self.next_due();
            let accepts = self.primary.accepts_connection();
            let wants_piece = self.primary.wants_piece();
            tokio::select! {
                message = next_of(&mut self.link) => self.message(message),
                news = self.vcpu.news.recv() => {
                    let news = news.expect("the runtime itself holds a sender");
                    if let Some(outcome) = self.news(news) {
                        return Ok(outcome);
                    }
                }
                (beat, from) = self.beats.next() => self.hear_beat(beat, from),
                asked = self.control.next() => self.asked(asked),
                candidate = Lobby::next(lobby), if accepts => self.accept(candidate),
                piece = Copy::next(&mut self.copy), if wants_piece => self.copied(piece),
                Some(answer) = answers.recv() => self.answer(answer),
                link = self.network.changed() => self.network_changed(&link),
                () = self.vcpu.marks.wanted() => self.vcpu.marks.begin(),
                rung = self.alarm.until(due.first()) => {
                    rung?;
                    if let Some(outcome) = self.do_due(&due)? {
                        return Ok(outcome);
                    }
                }
                signal = signals.next() => {
                    if let Some(outcome) = self.stop(signal) {
                        return Ok(outcome);
                    }
                }
            }
        }
    }

    fn new(
        parts: PrimaryParts,
        answers: UnboundedSender<Answer>,
        beats: Beats,
    ) -> io::Result<Runtime> {
        let me = new_member();
        let watch = PulseWatch::new(parts.cuts.pulse());
        let controls = Arc::new(Controls::default());
        let config = PrimaryConfig {
            vm: parts.header.vm.clone(),
            me,
            host: parts.header.host.clone(),
            counts: parts.header.machine.counts,
            generation: parts.generation,
            nonce: new_nonce(),
            solo: parts.solo,
            timing: timing(),
        };
        Ok(Runtime {
            primary: Primary::new(config, now()),
            me,
            image: parts.image.bytes().to_vec(),
            control: Control::listen(&parts.header.vm, me),
            fence: Fence::new(parts.fence, &parts.header.vm, me)?,
            asker: Asker::new(parts.arbiter, &parts.header.vm, me)?,
            header: parts.header,
            watch: Watch::default(),
            answers,
            link: None,
            vcpu: Vcpu::new(0, parts.recording, controls, watch, parts.cuts.clone()),
            waker: parts.live.waker(),
            idle: Some((parts.machine, parts.live)),
            network: Network::new(parts.direct.tap()),
            announcer: None,
            direct: parts.direct,
            unsent: VecDeque::new(),
            log_queued: false,
            won: None,
            ended: None,
            events: parts.events,
            beats,
            cuts: parts.cuts,
            lag_told: None,
            copy: None,
            alarm: Alarm::new()?,
            copier: Copy::thread()?,
            copies: 0,
            progress: None,
            unclosed: None,
            silence: LongestSilence::default(),
        })
    }

    /// The end of this member, in all cases.
    fn end(&mut self, outcome: &io::Result<Outcome>) {
        // A primary that left has never run anything.
        self.control.end(outcome, Ok(()));
    }

    fn hear_beat(&mut self, beat: Beat, from: SocketAddr) {
        if self.primary.handle_beat(now(), beat) {
            self.beats.answer_to(from);
        }
    }

    /// An operator requests something here.
    fn asked(&mut self, asked: Asked) {
        match asked.wish {
            Wish::Status => self.control.tell(&asked, &self.status()),
            Wish::Do(request) => {
                let accepted = self.request(request);
                self.control.answer(asked, accepted);
            }
        }
    }

    /// An operator requests something, here or at the backup.
    fn request(&mut self, request: Request) -> Result<(), Refusal> {
        match request {
            Request::Stop if self.idle.is_some() => self.primary.handle_leave(now()),
            Request::Stop => self.stop_guest(),
            Request::Switchover if self.primary.handle_switchover(now()) => {}
            Request::Switchover => return Err(Refusal::NoBackup),
        }
        Ok(())
    }

    fn stop_guest(&self) {
        self.vcpu.controls.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn accept(&mut self, candidate: Candidate) {
        tracing::info!("a backup connects from {}", candidate.peer);
        self.link = Some(candidate.link);
        self.primary.handle_connected(now());
        self.primary.handle_message(now(), candidate.hello);
    }

    fn message(&mut self, message: Result<Message, LinkError>) {
        match message {
            Ok(message) => {
                if matches!(message, Message::Ack { .. }) {
                    self.cuts.pass(CutPoint::AckReceived);
                }
                self.primary.handle_message(now(), message);
            }
            Err(why) => {
                tracing::info!("the channel is closed: {why}");
                self.link = None;
                self.beats.silence();
                self.primary.handle_disconnected(now());
            }
        }
    }

    fn news(&mut self, first: News) -> Option<Outcome> {
        let mut news = Some(first);
        for left in (0..NEWS_AT_ONCE).rev() {
            let one = news.take()?;
            if let Some(outcome) = self.one_news(one) {
                return Some(outcome);
            }
            if left > 0 {
                news = self.vcpu.news.try_recv().ok();
            }
        }
        None
    }

    fn one_news(&mut self, news: News) -> Option<Outcome> {
        self.vcpu.pace.seen(news.weight());
        match news {
            News::Chunk(chunk) => {
                self.vcpu.marks.handed_on();
                let (seq, bytes) = (chunk.last_seq, chunk.total_bytes);
                // A side that runs alone has no peer for it.
                if self.primary.sends_log() {
                    self.unsent.push_back(chunk);
                }
                self.primary.handle_appended(now(), seq, bytes);
            }
            News::Outputs(batch) => {
                let now = now();
                for output in batch.iter() {
                    let (number, seq) = (output.number, output.seq);
                    let bytes = output.data.len() as u64;
                    self.primary.handle_output(now, number, seq, bytes);
                }
                self.vcpu.held.push(batch);
            }
            News::Parked { seq } => self.primary.handle_parked(now(), seq),
            News::Captured(copy, captured) => self.captured(copy, captured),
            News::Ended(Ok((reason, last_seq))) => {
                self.ended = Some(reason);
                let status = end_status(reason);
                self.events.emit(Event::Ended { status });
                self.primary.handle_guest_end(now(), last_seq);
            }
            // This host cannot go on; the backup will.
            News::Ended(Err(why)) => return Some(Outcome::Halted(why.into())),
        }
        None
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Opened(answer) => {
                if let OpenAnswer::Unreachable(why) = &answer {
                    self.events.unreachable(why);
                }
                self.primary.handle_opened(now(), answer);
            }
            Answer::Claim(answer) => {
                match &answer {
                    ClaimAnswer::Unreachable(why) => self.events.unreachable(why),
                    ClaimAnswer::Lost { .. } => {
                        let generation = self.primary.generation();
                        self.events.emit(Event::ClaimLost { generation });
                    }
                    ClaimAnswer::Won => {
                        let generation = self.primary.generation();
                        self.cuts.pass(CutPoint::ClaimWon);
                        self.won = Some(generation);
                        self.watch.mend(&mut self.events);
                        self.events.emit(Event::ClaimWon { generation });
                    }
                    ClaimAnswer::Missing(why) => {
                        self.watch.tell(&mut self.events, Told::Held(why.clone()));
                    }
                    ClaimAnswer::Refused(_) => {}
                }
                self.primary.handle_claim(now(), answer);
            }
            Answer::Looked(standing, look) => self.looked(standing, &look),
            Answer::PutBack => self.watch.end(),
            Answer::Closed(answer) => {
                if let CloseAnswer::Unreachable(why) = &answer {
                    self.events.unreachable(why);
                    self.unclosed = Some(why.clone());
                }
                self.primary.handle_closed(now(), answer);
            }
            Answer::Fenced(fenced) => {
                if let Err(why) = &fenced {
                    self.events.unfenced(why);
                }
                self.primary.handle_fenced(now(), fenced.is_ok());
            }
        }
    }

    /// SIGINT, SIGTERM or SIGHUP: a running guest ends at its next position, on both sides. A second
    /// SIGINT or SIGTERM does not wait for that.
    fn stop(&mut self, signal: StopSignal) -> Option<Outcome> {
        if self.vcpu.controls.stop.load(Ordering::Acquire) {
            if signal == StopSignal::HungUp {
                return None;
            }
            return Some(Outcome::Halted(match self.ended {
                Some(_) => Halt::CutOffOpen,
                None => Halt::CutOff,
            }));
        }
        self.stop_guest();
        if self.idle.is_some() {
            self.primary.handle_leave(now());
        }
        None
    }

    /// Nothing ran, so a generation that this side has won need not stay open.
    fn close_unused(&self) -> Outcome {
        let Some(generation) = self.won else {
            return Outcome::Left;
        };
        let closed = self.asker.ask_now(move |arbiter, vm, me| {
            match arbiter::close(arbiter, vm, generation, me) {
                CloseAnswer::Closed => Ok(()),
                CloseAnswer::Unreachable(why) => Err(arbiter.damaged(&why)),
            }
        });
        match closed {
            Ok(()) => Outcome::Left,
            Err(why) => Outcome::Halted(Halt::NotClosed { generation, why }),
        }
    }
}
