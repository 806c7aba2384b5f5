//! The loop around the backup's state machine.

use super::BackupParts;
use super::vcpu::{self, Boot, News, Promotion, Recording};
use crate::backends::announce::{gratuitous_arp, rarp};
use crate::backends::live::Direct;
use crate::backends::{Live, Tap, Waker};
use crate::ft::feed::Feed;
use crate::ft::link::{Link, next_of};
use crate::ft::outputs::HeldOutputs;
use crate::ft::primary::{new_member, timing};
use crate::ft::{Arbiter, EventLog, Outcome, StopSignals, arbiter, now, sleep_until};
use crate::replay::journal::Chunk;
use crate::replay::record::Controls;
use ft_protocol::arbiter::{ClaimAnswer, CloseAnswer, MemberId, ReadBackAnswer};
use ft_protocol::backup::{Backup, BackupAction, BackupConfig, Delivery};
use ft_protocol::log::{EndReason, Header, NetConfig, Position};
use ft_protocol::wire::Message;
use serde_json::json;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Between two attempts to connect.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);
/// An attempt to connect is given up after this.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// The MAC is announced for this long, at this interval: stale frames may re-teach bridges.
const ANNOUNCE_FOR: Duration = Duration::from_secs(2);
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(100);
/// Frames thrown away at a time while this side is not live.
const DRAIN_FRAMES: usize = 256;

/// An answer from the arbiter.
enum Answer {
    ReadBack(ReadBackAnswer),
    Claim(ClaimAnswer),
    Closed(CloseAnswer),
}

struct Runtime {
    backup: Backup,
    me: MemberId,
    vm: String,
    channel: SocketAddr,
    arbiter: Arc<dyn Arbiter>,
    answers: UnboundedSender<Answer>,
    link: Option<Link>,
    feed: Feed,
    held: HeldOutputs,
    news: UnboundedSender<News>,
    promote: Option<Sender<Promotion>>,
    tap: Option<Arc<Tap>>,
    net: Option<NetConfig>,
    /// Backends, until the vCPU's thread has them.
    backends: Option<(Live, Direct)>,
    waker: Waker,
    controls: Arc<Controls>,
    record: Option<PathBuf>,
    recording: Option<Recording>,
    received_bytes: u64,
    /// Position of the last entry received.
    received_at: Position,
    suspects: bool,
    reemitted: usize,
    ended: Option<EndReason>,
    events: EventLog,
}

/// Runs the backup to its end.
pub async fn serve(parts: BackupParts) -> io::Result<Outcome> {
    let mut signals = StopSignals::new()?;
    let (answer_sender, mut answers) = unbounded_channel();
    let (news_sender, mut news) = unbounded_channel();
    let mut runtime = Runtime::new(parts, answer_sender, news_sender);
    runtime.events.emit("connecting", json!({}));
    let outcome = runtime.run(&mut signals, &mut answers, &mut news).await;
    runtime.finish_recording();
    outcome
}

impl Runtime {
    fn new(
        parts: BackupParts,
        answers: UnboundedSender<Answer>,
        news: UnboundedSender<News>,
    ) -> Runtime {
        let me = new_member();
        let config = BackupConfig {
            vm: parts.vm.clone(),
            me,
            host: parts.host,
            expect: parts.expect,
            timing: timing(),
        };
        Runtime {
            backup: Backup::new(config, now()),
            me,
            vm: parts.vm,
            channel: parts.channel,
            arbiter: parts.arbiter.connect(),
            answers,
            link: None,
            feed: Feed::default(),
            held: HeldOutputs::default(),
            news,
            promote: None,
            tap: parts.tap,
            net: None,
            waker: parts.live.waker(),
            backends: Some((parts.live, parts.direct)),
            controls: Arc::new(Controls::default()),
            record: parts.record,
            recording: None,
            received_bytes: 0,
            received_at: Position(0),
            suspects: false,
            reemitted: 0,
            ended: None,
            events: parts.events,
        }
    }

    async fn run(
        &mut self,
        signals: &mut StopSignals,
        answers: &mut UnboundedReceiver<Answer>,
        news: &mut UnboundedReceiver<News>,
    ) -> io::Result<Outcome> {
        loop {
            if let Some(outcome) = self.perform()? {
                return Ok(outcome);
            }
            let timeout = self.backup.poll_timeout();
            let connect = self.backup.wants_connection();
            let channel = self.channel;
            tokio::select! {
                message = next_of(&mut self.link) => self.message(message),
                () = self.feed.progress() => self.note_progress(),
                Some(news) = news.recv() => {
                    if let Some(outcome) = self.take_news(news) {
                        return Ok(outcome);
                    }
                }
                Some(answer) = answers.recv() => self.answer(answer),
                stream = connect_to(channel), if connect => {
                    self.link = Some(Link::new(stream)?);
                    self.backup.handle_connected(now());
                }
                () = sleep_until(timeout) => {
                    self.drain_tap()?;
                    self.note_progress();
                    self.backup.handle_tick(now());
                }
                () = signals.next() => {
                    if !self.backup.is_live() {
                        return Ok(Outcome::Left);
                    }
                    self.controls.stop.store(true, Ordering::Release);
                    self.waker.wake();
                }
            }
        }
    }

    fn message(&mut self, message: Result<Message, String>) {
        match message {
            Ok(message) => self.backup.handle_message(now(), message),
            Err(why) => {
                tracing::info!("the channel is closed: {why}");
                self.link = None;
                self.note_progress();
                self.backup.handle_disconnected(now());
            }
        }
    }

    /// Tells the protocol how far the vCPU is.
    fn note_progress(&mut self) {
        if self.backup.is_live() {
            return;
        }
        let taken = self.feed.taken(self.suspects);
        self.backup.handle_consumed(now(), taken.bytes);
        if let Some(seq) = taken.executed {
            self.backup.handle_drained(now(), seq);
        }
    }

    fn take_news(&mut self, news: News) -> Option<Outcome> {
        match news {
            News::Booted {
                generation,
                recording,
            } => {
                self.recording = self.recording.take().or(recording);
                self.backup.handle_booted(now(), generation);
                self.events.emit("joined", json!({"generation": generation}));
            }
            News::BootFailed(why) => self.backup.handle_boot_failed(now(), why),
            News::Diverged { at, what } => {
                self.events
                    .emit("diverged", json!({"position": at.0, "what": what}));
                self.backup.handle_diverged(now(), at, what);
            }
            News::Failed(why) => return Some(Outcome::Halted(1, why)),
            News::Ended(reason) => {
                self.ended = Some(reason);
                match self.backup.is_live() {
                    true => self.backup.handle_guest_end(now()),
                    false => {
                        let taken = self.feed.taken(false);
                        self.backup.handle_consumed(now(), taken.bytes);
                        self.backup.handle_drained(now(), self.feed.last_seq());
                    }
                }
            }
        }
        None
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::ReadBack(answer) => {
                if let ReadBackAnswer::Unreachable(why) = &answer {
                    tracing::warn!("{why}");
                }
                self.backup.handle_read_back(now(), answer);
            }
            Answer::Claim(answer) => {
                let generation = self.backup.generation();
                match &answer {
                    ClaimAnswer::Unreachable(why) => tracing::warn!("outputs are held: {why}"),
                    ClaimAnswer::Won => self
                        .events
                        .emit("claim_won", json!({"generation": generation})),
                    ClaimAnswer::Lost { .. } => self
                        .events
                        .emit("claim_lost", json!({"generation": generation})),
                    ClaimAnswer::Refused(_) => {}
                }
                self.backup.handle_claim(now(), answer);
            }
            Answer::Closed(answer) => self.backup.handle_closed(now(), answer),
        }
    }

    /// Does what the state machine asks for.
    fn perform(&mut self) -> io::Result<Option<Outcome>> {
        while let Some(action) = self.backup.poll_action() {
            if let Some(outcome) = self.act(action)? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    fn act(&mut self, action: BackupAction) -> io::Result<Option<Outcome>> {
        match action {
            BackupAction::Send(message) => {
                if let Some(link) = &mut self.link {
                    link.send(&message);
                }
            }
            BackupAction::ReadBack { .. }
            | BackupAction::Claim { .. }
            | BackupAction::Close { .. } => self.ask(action),
            BackupAction::Boot {
                generation,
                header,
                image,
            } => self.boot(generation, *header, image)?,
            BackupAction::Discard => {
                self.feed.close();
                self.promote = None;
            }
            BackupAction::Deliver(delivery) => self.deliver(delivery)?,
            BackupAction::ForgetOutputs { up_to } => self.held.forget(up_to),
            BackupAction::Suspect(loss) => {
                self.suspects = true;
                let reason = loss.to_string();
                self.events.emit("suspect", json!({"reason": reason}));
                self.note_progress();
            }
            BackupAction::Withdraw => {
                self.suspects = false;
                self.events.emit("withdraw", json!({}));
            }
            BackupAction::PrimaryLost(loss) => tracing::info!("no pair yet: {loss}"),
            BackupAction::EmitHeld => self.emit_held()?,
            BackupAction::Announce => self.announce(),
            BackupAction::Live { generation } => self.go_live(generation),
            BackupAction::Disconnect => {
                if let Some(link) = self.link.take() {
                    tokio::spawn(link.close());
                }
            }
            BackupAction::Halt(reason) => {
                return Ok(Some(Outcome::Halted(reason.status(), reason.to_string())));
            }
            BackupAction::Finish { closed } => {
                if !closed {
                    tracing::warn!("the generation could not be closed: start again with --force");
                }
                let reason = self.ended.expect("the guest ended");
                return Ok(Some(Outcome::Ended(reason)));
            }
        }
        Ok(None)
    }

    fn boot(&mut self, generation: u64, header: Header, image: Vec<u8>) -> io::Result<()> {
        let mut refusal = None;
        match (header.machine.net, &self.tap) {
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
        if let Some(why) = refusal {
            self.backup.handle_boot_failed(now(), why.into());
            return Ok(());
        }
        self.net = header.machine.net;
        (self.feed, self.held) = (Feed::default(), HeldOutputs::default());
        let (promote, promotions) = channel();
        self.promote = Some(promote);
        let boot = Boot {
            generation,
            header,
            image,
            record: self.record.clone().filter(|_| self.recording.is_none()),
        };
        let (feed, held, news) = (self.feed.clone(), self.held.clone(), self.news.clone());
        std::thread::Builder::new()
            .name("vcpu".into())
            .spawn(move || vcpu::run(boot, feed, held, &promotions, &news))?;
        Ok(())
    }

    fn deliver(&mut self, delivery: Delivery) -> io::Result<()> {
        self.received_bytes += delivery.frames.len() as u64;
        if let Some(last) = delivery.items.last() {
            self.received_at = last.entry.at;
        }
        if let (Some(recording), Some(last)) = (&mut self.recording, delivery.items.last()) {
            let chunk = Chunk {
                frames: delivery.frames.into(),
                last_seq: last.seq,
                total_bytes: self.received_bytes,
            };
            recording.consumer.take(&chunk).map_err(io::Error::other)?;
        }
        self.feed.push(delivery.items);
        Ok(())
    }

    fn emit_held(&mut self) -> io::Result<()> {
        let held = self.held.take(u64::MAX);
        self.reemitted = held.len();
        if let Some((_, direct)) = &mut self.backends {
            for (_, output) in &held {
                direct.release(output)?;
            }
        }
        Ok(())
    }

    /// Tells the network's bridges where the MAC is now.
    fn announce(&self) {
        let (Some(tap), Some(net)) = (self.tap.clone(), self.net) else {
            return;
        };
        let arp = gratuitous_arp(net.mac, Ipv4Addr::from(net.ip));
        let rarp = rarp(net.mac);
        let tell = move |tap: &Tap| {
            for frame in [&arp[..], &rarp[..]] {
                if let Err(e) = tap.send(frame) {
                    tracing::warn!("cannot announce the MAC ({e})");
                }
            }
        };
        tell(&tap);
        tokio::spawn(async move {
            for _ in 0..ANNOUNCE_FOR.as_millis() / ANNOUNCE_INTERVAL.as_millis() {
                tokio::time::sleep(ANNOUNCE_INTERVAL).await;
                tell(&tap);
            }
        });
    }

    fn go_live(&mut self, generation: u64) {
        let (live, direct) = self.backends.take().expect("a side goes live once");
        let promotion = Promotion {
            generation,
            live,
            direct,
            // The writer stays: it is waited for at the end.
            consumer: self
                .recording
                .as_ref()
                .map(|r| r.writer.consumer(crate::replay::IfSlow::GiveUp)),
            controls: self.controls.clone(),
        };
        let promote = self.promote.take().expect("the machine is built");
        // A vCPU's thread that is gone has told why.
        let _gone = promote.send(promotion);
        self.feed.close();
        self.events.emit(
            "live",
            json!({"generation": generation, "reemitted": self.reemitted}),
        );
    }

    /// Frames that this side will never handle: the primary got them too.
    fn drain_tap(&self) -> io::Result<()> {
        let mut frame = [0; 2048];
        if let Some(tap) = self.tap.as_ref().filter(|_| !self.suspects && self.backends.is_some()) {
            for _ in 0..DRAIN_FRAMES {
                if tap.recv(&mut frame)?.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Asks the arbiter on a thread that may wait for storage.
    fn ask(&mut self, action: BackupAction) {
        if matches!(action, BackupAction::Claim { .. }) {
            let position = self.received_at.0;
            self.events
                .emit("caught_up", json!({"position": position}));
        }
        let (arbiter, answers) = (self.arbiter.clone(), self.answers.clone());
        let (vm, me) = (self.vm.clone(), self.me);
        tokio::task::spawn_blocking(move || {
            let answer = match action {
                BackupAction::ReadBack { generation } => {
                    Answer::ReadBack(arbiter::read_back(&*arbiter, &vm, generation))
                }
                BackupAction::Claim { generation } => {
                    Answer::Claim(arbiter::claim(&*arbiter, &vm, generation, me))
                }
                BackupAction::Close { generation } => {
                    Answer::Closed(arbiter::close(&*arbiter, &vm, generation, me))
                }
                other => unreachable!("{other:?} is no question"),
            };
            // The process is ending if nobody waits for it.
            let _gone = answers.send(answer);
        });
    }

    /// Waits until the recording is on disk, unless the machine still runs.
    fn finish_recording(&mut self) {
        let Some(recording) = self.recording.take() else {
            return;
        };
        drop(recording.consumer);
        if self.promote.is_some() || self.ended.is_some() {
            if let Err(e) = recording.writer.finish() {
                tracing::error!("{e}");
            }
        }
    }
}

async fn connect_to(channel: SocketAddr) -> TcpStream {
    loop {
        let attempt = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(channel));
        match attempt.await {
            Ok(Ok(stream)) => return stream,
            // The primary may not be there yet, or not any more: keep trying.
            _ => tokio::time::sleep(CONNECT_INTERVAL).await,
        }
    }
}
