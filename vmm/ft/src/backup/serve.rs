//! The loop around the backup's state machine.

mod act;
mod live;
mod operator;
mod records;

use super::BackupParts;
use super::shadow::Shadow;
use super::vcpu::{Job, News, Recording};
use crate::alarm::Alarm;
use crate::arbiter::{Asker, Told, Watch};
use crate::beats::{self, Beats};
use crate::control::{Control, NotDone};
use crate::cuts::{CutPoint, Cuts};
use crate::errands::Errands;
use crate::feed::Feed;
use crate::fence::{Fence, FenceError};
use crate::link::{HEARD_AT_ONCE, Link, LinkError, Port, next_of};
use crate::network::Network;
use crate::outputs::HeldOutputs;
use crate::primary::{Copy, SurvivorParts, new_member, timing};
use crate::silence::LongestSilence;
use crate::{CALM, EventLog, Outcome, StopSignals, may_put_off, now};
use ft_protocol::Time;
use ft_protocol::arbiter::{ClaimAnswer, CloseAnswer, Look, MemberId, ReadBackAnswer, Standing};
use ft_protocol::backup::{Backup, BackupConfig};
use ft_protocol::host::drive_backup;
use ft_protocol::log::{EndReason, Header, HostPrint, NetConfig, Position};
use ft_protocol::wire::Message;
use lockstep_backends::live::Direct;
use lockstep_backends::{Live, Tap, Waker};
use lockstep_events::Event;
use lockstep_machine::Parts;
use lockstep_pulse::PulseWatch;
use lockstep_replay::journal::Chunk;
use lockstep_replay::record::Controls;
use lockstep_vcpu::Cpus;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// While this side suspects the primary, a vCPU that has been in the guest for this long is kicked out
/// of it: the guest may never make an exit by itself, and the log may have ended.
const KICK_INTERVAL: Duration = Duration::from_millis(2);
/// Time between two attempts to connect.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);
/// An attempt to connect ends after this time.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// An answer from the arbiter.
enum Answer {
    ReadBack(ReadBackAnswer),
    Claim(ClaimAnswer),
    Closed(CloseAnswer),
    Fenced(Result<(), FenceError>),
    Looked(Option<Standing>, Look),
}

/// The end of a backup.
pub enum Served {
    /// It has ended.
    Done(Outcome),
    /// It is live, and goes on with these parts.
    Live(Box<SurvivorParts>),
}

struct Runtime {
    backup: Backup,
    me: MemberId,
    vm: String,
    host: HostPrint,
    cpus: Cpus,
    channel: SocketAddr,
    /// The port on which it will listen.
    port: Option<Port>,
    signals: StopSignals,
    /// The parts of the machine, when they are known.
    made_of: Option<(Header, Vec<u8>)>,
    asker: Asker<Answer>,
    /// The state of its records in the arbiter.
    records: Watch,
    answers: UnboundedSender<Answer>,
    link: Option<Link>,
    feed: Feed,
    held: HeldOutputs,
    news: UnboundedSender<News>,
    /// Jobs for the vCPU's thread, besides following the log.
    jobs: Option<Sender<Job>>,
    tap: Option<Arc<Tap>>,
    network: Network,
    net: Option<NetConfig>,
    /// The backends, until this side goes live with them.
    backends: Option<(Live, Direct)>,
    waker: Waker,
    controls: Arc<Controls>,
    record: Option<PathBuf>,
    recording: Option<Recording>,
    received_bytes: u64,
    /// Delivered entries that were not recorded yet.
    unrecorded: Vec<Chunk>,
    /// A copy is complete, and the machine that is built from it does not follow the log yet.
    restoring: bool,
    /// Bytes of a copy that are in memory.
    loaded_bytes: u64,
    /// Position of the last entry received.
    received_at: Position,
    suspects: bool,
    /// Nothing came since a tick at which everything was executed.
    calm: bool,
    /// The arbiter was asked, which cannot be undone.
    asked: bool,
    reemitted: usize,
    ended: Option<EndReason>,
    events: EventLog,
    /// Frames that the TAP got and the log does not have; `None` without a network, or with `--shadow
    /// off`.
    shadow: Option<Shadow>,
    keeps_shadow: bool,
    beats: Beats,
    control: Control,
    fence: Fence,
    alarm: Alarm,
    /// Once this side is live, it copies its machine for the next backup.
    copier: Errands,
    cuts: Cuts,
    watch: PulseWatch,
    /// Why the last attempt to close the generation failed.
    unclosed: Option<String>,
    /// The longest silence of the primary so far.
    silence: LongestSilence,
}

/// Runs the backup to its end.
pub async fn serve(parts: BackupParts) -> io::Result<Served> {
    let signals = StopSignals::new()?;
    let (answer_sender, mut answers) = unbounded_channel();
    let (news_sender, mut news) = unbounded_channel();
    let beats = Beats::towards(parts.channel, beats::INTERVAL)?;
    let mut runtime = Runtime::new(parts, signals, answer_sender, news_sender, beats)?;
    let member = runtime.me;
    runtime.events.emit(Event::Connecting { member });
    let outcome = runtime.run(&mut answers, &mut news).await;
    if let Ok(Step::Live(generation)) = outcome {
        return Ok(Served::Live(Box::new(runtime.go_live(generation)?)));
    }
    let outcome = outcome.map(|step| match step {
        Step::Done(outcome) => outcome,
        Step::Live(_) => unreachable!("that was looked at"),
    });
    runtime.control.end(&outcome, Err(NotDone::BackupLeft));
    runtime.finish_recording();
    outcome.map(Served::Done)
}

/// How the loop ended.
enum Step {
    Done(Outcome),
    /// This generation was won, and everything was emitted.
    Live(u64),
}

impl Runtime {
    fn new(
        parts: BackupParts,
        signals: StopSignals,
        answers: UnboundedSender<Answer>,
        news: UnboundedSender<News>,
        beats: Beats,
    ) -> io::Result<Runtime> {
        let me = new_member();
        let config = BackupConfig {
            vm: parts.vm.clone(),
            me,
            host: parts.host.clone(),
            expect: parts.expect,
            timing: timing(),
        };
        Ok(Runtime {
            backup: Backup::new(config, now()),
            control: Control::listen(&parts.vm, me),
            fence: Fence::new(parts.fence, &parts.vm, me)?,
            alarm: Alarm::new()?,
            copier: Copy::thread()?,
            asker: Asker::new(parts.arbiter, &parts.vm, me)?,
            watch: PulseWatch::new(parts.cuts.pulse()),
            cuts: parts.cuts,
            shadow: None,
            keeps_shadow: parts.shadow,
            beats,
            me,
            vm: parts.vm,
            host: parts.host,
            cpus: parts.cpus,
            channel: parts.channel,
            port: parts.listen,
            signals,
            made_of: None,
            records: Watch::default(),
            answers,
            link: None,
            // The real one is made together with the machine.
            feed: Feed::default(),
            held: HeldOutputs::default(),
            news,
            jobs: None,
            network: Network::new(parts.tap.as_ref()),
            tap: parts.tap,
            net: None,
            waker: parts.live.waker(),
            backends: Some((parts.live, parts.direct)),
            controls: Arc::new(Controls::default()),
            record: parts.record,
            recording: None,
            received_bytes: 0,
            unrecorded: Vec::new(),
            restoring: false,
            loaded_bytes: 0,
            received_at: Position::START,
            suspects: false,
            calm: false,
            asked: false,
            reemitted: 0,
            ended: None,
            events: parts.events,
            unclosed: None,
            silence: LongestSilence::default(),
        })
    }

    async fn run(
        &mut self,
        answers: &mut UnboundedReceiver<Answer>,
        news: &mut UnboundedReceiver<News>,
    ) -> io::Result<Step> {
        loop {
            if let Some(step) = drive_backup(self)? {
                return Ok(step);
            }
            let (ticks, looks) = (self.timeout(), self.records.due());
            let due = [ticks, looks].into_iter().flatten().min();
            let connect = self.backup.wants_connection();
            let channel = self.channel;
            tokio::select! {
                message = next_of(&mut self.link) => self.message(message),
                () = self.feed.progress() => {
                    self.note_progress();
                }
                Some(news) = news.recv() => {
                    if let Some(outcome) = self.take_news(news)? {
                        return Ok(Step::Done(outcome));
                    }
                }
                Some(answer) = answers.recv() => self.answer(answer),
                (beat, _) = self.beats.next() => self.backup.handle_beat(now(), beat),
                asked = self.control.next() => self.asked(asked),
                link = self.network.changed() => self.network.tell(&link, &mut self.events),
                stream = connect_to(channel), if connect => {
                    self.link = Some(Link::new(stream)?);
                    self.backup.handle_connected(now());
                }
                rung = self.alarm.until(due) => {
                    rung?;
                    let now = now();
                    if looks.is_some_and(|at| at <= now) {
                        self.look();
                    }
                    if ticks.is_some_and(|at| at <= now) {
                        if let Some(step) = self.hear_all()? {
                            return Ok(step);
                        }
                        self.tick(now)?;
                    }
                }
                () = tokio::time::sleep(KICK_INTERVAL), if self.suspects && !self.asked => self.watch.nudge(),
                signal = self.signals.next() => {
                    if let Some(outcome) = self.stop(signal)? {
                        return Ok(Step::Done(outcome));
                    }
                }
            }
        }
    }

    /// When the next tick is done.
    fn timeout(&mut self) -> Option<Time> {
        let (now, tick) = (now(), self.backup.poll_timeout()?);
        if !self.calm || !may_put_off(tick, now, self.backup.silence(now)) {
            return Some(tick);
        }
        self.backup.put_off_tick(CALM);
        Some(tick.after(CALM))
    }

    /// Passes in everything that has arrived, before a tick judges the peer by it.
    fn hear_all(&mut self) -> io::Result<Option<Step>> {
        for _ in 0..HEARD_AT_ONCE {
            let beat = self.beats.arrived();
            if let Some((beat, _)) = beat {
                self.backup.handle_beat(now(), beat);
            }
            let message = self.link.as_mut().and_then(Link::arrived);
            if beat.is_none() && message.is_none() {
                break;
            }
            if let Some(message) = message {
                self.message(message);
            }
            if let Some(step) = drive_backup(self)? {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    fn tick(&mut self, now: Time) -> io::Result<()> {
        self.cuts.tick();
        self.drain_tap()?;
        let executed_all = self.note_progress();
        let answers = self.watch.answers();
        if !answers {
            self.beats.silence();
        }
        self.backup.handle_vcpu(answers);
        self.backup.handle_tick(now);
        self.calm = answers && !self.suspects && executed_all;
        self.silence
            .note(self.backup.silence(now), &mut self.events);
        Ok(())
    }

    fn message(&mut self, message: Result<Message, LinkError>) {
        match message {
            Ok(message) => self.backup.handle_message(now(), message),
            Err(why) => {
                tracing::info!("the channel is closed: {why}");
                self.link = None;
                self.beats.silence();
                self.note_progress();
                self.backup.handle_disconnected(now());
            }
        }
    }

    /// Reports to the protocol how far the vCPU has got. Returns whether it has executed everything.
    fn note_progress(&mut self) -> bool {
        if self.restoring {
            return false;
        }
        let taken = self.feed.taken(self.suspects);
        self.backup.handle_consumed(now(), taken.bytes, taken.seq);
        if let Some(seq) = taken.executed {
            self.backup.handle_drained(now(), seq);
        }
        taken.executed.is_some()
    }

    fn take_news(&mut self, news: News) -> io::Result<Option<Outcome>> {
        match news {
            News::Booted {
                generation,
                copied,
                recording,
            } => {
                self.recording = self.recording.take().or(recording);
                self.backup.handle_booted(now(), generation);
                self.events.emit(match copied {
                    true => Event::Joining { generation },
                    false => Event::Joined { generation },
                });
            }
            News::Loaded { bytes } => {
                self.loaded_bytes = bytes;
                self.backup.handle_loaded(now(), bytes);
            }
            News::Restored { digest } => self.backup.handle_restored(now(), digest),
            News::Follows { recording } => {
                self.recording = recording;
                self.restoring = false;
                self.record_delivered()?;
                self.note_progress();
            }
            News::BootFailed(why) => self.backup.handle_boot_failed(now(), why.to_string()),
            News::Diverged { at, what, parts } => {
                let parts = parts.map(|parts| named(&parts));
                self.events.emit(Event::Diverged {
                    position: at.exit,
                    edges: at.edges,
                    what: what.clone(),
                    parts,
                });
                self.backup.handle_diverged(now(), at, what);
            }
            News::Failed(why) => return Ok(Some(Outcome::Halted(why.into()))),
            News::Ended(reason) => {
                self.ended = Some(reason);
                let status = crate::end_status(reason);
                self.events.emit(Event::Ended { status });
                let taken = self.feed.taken(false);
                self.backup.handle_consumed(now(), taken.bytes, taken.seq);
                self.backup.handle_drained(now(), self.feed.last_seq());
            }
        }
        Ok(None)
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::ReadBack(answer) => {
                if let ReadBackAnswer::Unreachable(why) = &answer {
                    self.events.unreachable(why);
                }
                self.backup.handle_read_back(now(), answer);
            }
            Answer::Claim(answer) => {
                let generation = self.backup.generation();
                match &answer {
                    ClaimAnswer::Unreachable(why) => self.events.unreachable(why),
                    ClaimAnswer::Won => {
                        self.cuts.pass(CutPoint::ClaimWon);
                        self.records.mend(&mut self.events);
                        self.events.emit(Event::ClaimWon { generation });
                    }
                    ClaimAnswer::Lost { .. } => {
                        self.events.emit(Event::ClaimLost { generation });
                    }
                    ClaimAnswer::Missing(why) => {
                        self.records.tell(&mut self.events, Told::Held(why.clone()));
                    }
                    ClaimAnswer::Refused(_) => {}
                }
                self.backup.handle_claim(now(), answer);
            }
            Answer::Looked(standing, look) => self.looked(standing, &look),
            Answer::Closed(answer) => {
                if let CloseAnswer::Unreachable(why) = &answer {
                    self.events.unreachable(why);
                    self.unclosed = Some(why.clone());
                }
                self.backup.handle_closed(now(), answer);
            }
            Answer::Fenced(fenced) => {
                if let Err(why) = &fenced {
                    self.events.unfenced(why);
                }
                self.backup.handle_fenced(now(), fenced.is_ok());
            }
        }
    }

    /// Waits until the recording is on the disk.
    fn finish_recording(&mut self) {
        let Some(recording) = self.recording.take() else {
            return;
        };
        drop(recording.consumer);
        if let Err(e) = recording.writer.finish() {
            tracing::error!("{e}");
        }
    }
}

/// A machine's parts, by name.
fn named(parts: &Parts) -> BTreeMap<String, String> {
    let hex = |(name, digest): (&str, u64)| (name.to_owned(), format!("{digest:016x}"));
    parts.iter().map(hex).collect()
}

async fn connect_to(channel: SocketAddr) -> TcpStream {
    loop {
        let attempt = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(channel));
        match attempt.await {
            Ok(Ok(stream)) => return stream,
            // The primary may not be there yet, or not any more: try again.
            _ => tokio::time::sleep(CONNECT_INTERVAL).await,
        }
    }
}
