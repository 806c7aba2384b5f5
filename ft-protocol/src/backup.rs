//! The backup's half of the protocol.

mod join;
mod types;

pub use types::{ACK_CONSUMED_BYTES, BackupAction, BackupConfig, Delivery, Expectations, LogItem};

use crate::Time;
use crate::arbiter::{ClaimAnswer, CloseAnswer};
use crate::detector::{Detector, Suspicion};
use crate::log::codec::{self, FrameDecoder, MAX_ENTRY_PAYLOAD};
use crate::log::{Event, Position};
use crate::primary::LOG_WINDOW_BYTES;
use crate::question::{CLOSE_ATTEMPTS, Question};
use crate::reason::{HaltReason, Loss};
use crate::wire::Message;
use join::Joining;
use std::collections::VecDeque;

/// Bytes of the log that may wait for the vCPU. A primary keeps [`LOG_WINDOW_BYTES`], but for its
/// last flush; one that sends more than this breaks the protocol.
const BUFFER_BYTES: u64 = 2 * LOG_WINDOW_BYTES;

/// The backup, from connecting to its primary to going live or to the guest's end.
///
/// # How to drive it
///
/// After every `handle_*`, take [`Backup::poll_action`] until it gives None and perform the actions
/// **in that order**; call [`Backup::handle_tick`] when [`Backup::poll_timeout`] has come (earlier
/// does no harm). The times handed in never go back.
///
/// - While [`Backup::wants_connection`], connect to the primary, as often as it takes, and call
///   [`Backup::handle_connected`]. [`Backup::handle_disconnected`] is for a connection that broke
///   or that a [`crate::wire::WireDecoder`] found damaged; after [`BackupAction::Disconnect`] it is
///   not called, and nothing more is handed in from that connection.
/// - Each `ReadBack`, `Claim` and `Close` gets exactly one answer. "Unreachable" is one; the
///   question is then asked again later. A `ReadBack` whose connection broke meanwhile still gets
///   its answer, before the connection is made anew.
/// - The vCPU executes only what was delivered. Call [`Backup::handle_consumed`] as it takes
///   entries, and [`Backup::handle_drained`] whenever it has executed everything there is, with the
///   checks done and the backends ready to be opened: it may be the last thing before going live.
/// - Whatever the guest emits is kept until [`BackupAction::ForgetOutputs`] names it, also when the
///   guest emits it only after that.
/// - `Halt` and `Finish` are the last action; what is handed in later is ignored.
#[derive(Debug)]
pub struct Backup {
    config: BackupConfig,
    phase: Phase,
    actions: VecDeque<BackupAction>,
    connected: bool,
    joining: Option<Joining>,
    generation: u64,
    detector: Detector,
    question: Question,
    frames: FrameDecoder,
    log: Received,
    /// How far the vCPU is: bytes taken out of the buffer, and the last sequence executed.
    consumed: u64,
    drained: u64,
    /// `consumed`, as the primary knows it.
    told: u64,
    /// The last output that the primary reported as released.
    forgotten: u64,
}

/// The log as it was received.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    /// The last entry's sequence.
    seq: u64,
    /// Bytes in all.
    bytes: u64,
    /// The last entry's position.
    at: Position,
    /// Whether the last one is the end entry.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection.
    Connecting,
    /// Said Hello.
    Greeting,
    /// Welcome; asked the arbiter whether it is the primary's.
    ReadingBack,
    /// The machine is being built.
    Booting,
    /// Armed: said Ready, follows the log.
    Following,
    /// Thinks the primary dead, and executes what is left before it asks.
    Suspecting,
    /// Asked the arbiter; the channel is of no more interest.
    Asking,
    /// The primary said Bye; executes what is left.
    Parting,
    /// Runs alone, by right.
    Live,
    /// The guest has ended after going live.
    Closing,
    /// Halted or finished.
    Ended,
}

impl Backup {
    /// A backup that wants a connection.
    pub fn new(config: BackupConfig, now: Time) -> Backup {
        Backup {
            phase: Phase::Connecting,
            actions: VecDeque::new(),
            connected: false,
            joining: None,
            generation: 0,
            detector: Detector::new(config.timing.heartbeat, config.timing.joining, now),
            question: Question::default(),
            frames: FrameDecoder::new(1, MAX_ENTRY_PAYLOAD, 0),
            log: Received::default(),
            consumed: 0,
            drained: 0,
            told: 0,
            forgotten: 0,
            config,
        }
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<BackupAction> {
        self.actions.pop_front()
    }

    /// When to call [`Backup::handle_tick`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Time> {
        let tick = self.connected.then(|| self.detector.next_tick());
        [tick, self.question.next()].into_iter().flatten().min()
    }

    /// Whether to connect to the primary.
    pub fn wants_connection(&self) -> bool {
        self.phase == Phase::Connecting && !self.question.is_asked()
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, _now: Time) {
        if self.connected {
            self.connected = false;
            self.lose(Loss::Suspected(Suspicion::Closed));
        }
    }

    /// A message came.
    pub fn handle_message(&mut self, now: Time, message: Message) {
        if !self.connected {
            return;
        }
        self.detector.heard(now);
        if self.phase == Phase::Suspecting {
            self.phase = Phase::Following;
            self.push(BackupAction::Withdraw);
        }
        match (self.phase, message) {
            (_, Message::Heartbeat) => {}
            (Phase::Following, Message::Log { frames }) => self.take_log(frames),
            (Phase::Following, Message::Released { output }) => self.forget(output),
            (Phase::Following, Message::Bye) => self.bye(),
            (Phase::Greeting, Message::Refuse { reason }) => {
                self.halt(HaltReason::Refused(reason));
            }
            (Phase::Greeting, message @ Message::Welcome { .. }) => self.welcome(message),
            (_, message) => self.broke(format!("{} out of turn", message.name())),
        }
    }

    /// The log goes on: into the buffer first, then the acknowledgement.
    fn take_log(&mut self, frames: Vec<u8>) {
        match self.take_frames(&frames) {
            Ok(items) => {
                self.push(BackupAction::Deliver(Delivery { items, frames }));
                self.acknowledge();
            }
            Err(what) => self.broke(what),
        }
    }

    /// Looks into frames of the log. Nothing is acknowledged that could not be executed: where one
    /// entry is unsound, the whole message counts as not received.
    fn take_frames(&mut self, frames: &[u8]) -> Result<Vec<LogItem>, String> {
        let mut items = Vec::new();
        let mut log = self.log;
        self.frames.push(frames);
        while let Some(frame) = self.frames.next_frame().map_err(|e| format!("a log {e}"))? {
            let (seq, bytes) = (frame.seq, frame.size() as u64);
            let entry =
                codec::decode_entry(frame.payload).map_err(|e| format!("entry {seq}: {e}"))?;
            if log.ended || entry.at < log.at {
                return Err(format!("entry {seq} cannot follow the one before it"));
            }
            let ended = matches!(entry.event, Event::End(_));
            log = Received {
                seq,
                bytes: log.bytes + bytes,
                at: entry.at,
                ended,
            };
            items.push(LogItem { seq, bytes, entry });
        }
        if self.frames.pending() > 0 {
            return Err("a log message that ends inside a frame".into());
        }
        if log.bytes - self.consumed > BUFFER_BYTES {
            return Err("more of the log than was asked for".into());
        }
        self.log = log;
        Ok(items)
    }

    fn acknowledge(&mut self) {
        self.told = self.consumed;
        let ack = Message::Ack {
            received: self.log.seq,
            consumed: self.consumed,
        };
        match self.actions.back_mut() {
            Some(BackupAction::Send(last @ Message::Ack { .. })) => *last = ack,
            _ => self.push(BackupAction::Send(ack)),
        }
    }

    fn forget(&mut self, output: u64) {
        if output > self.forgotten {
            self.forgotten = output;
            self.push(BackupAction::ForgetOutputs { up_to: output });
        }
    }

    /// The primary is done with everything. Answered at once: it waits for that before it leaves.
    fn bye(&mut self) {
        if !self.log.ended {
            return self.broke("Bye before the log's end".into());
        }
        self.push(BackupAction::Send(Message::Bye));
        self.disconnect();
        self.phase = Phase::Parting;
        self.go_on();
    }

    /// The vCPU took entries out of the buffer: `bytes` of the log in all.
    ///
    /// # Panics
    /// If it took back some, or took more than there was.
    pub fn handle_consumed(&mut self, _now: Time, bytes: u64) {
        assert!(
            (self.consumed..=self.log.bytes).contains(&bytes),
            "{bytes} bytes consumed after {} of {}",
            self.consumed,
            self.log.bytes
        );
        self.consumed = bytes;
        if self.connected && self.consumed - self.told >= ACK_CONSUMED_BYTES {
            self.acknowledge();
        }
    }

    /// The vCPU has executed every entry up to `seq`, and the checks held.
    ///
    /// # Panics
    /// If it executed what it was never given.
    pub fn handle_drained(&mut self, _now: Time, seq: u64) {
        assert!(
            seq <= self.log.seq,
            "entry {seq} executed, {} received",
            self.log.seq
        );
        self.drained = self.drained.max(seq);
        self.go_on();
    }

    /// Does what waited for the vCPU to execute everything that was acknowledged (I3).
    fn go_on(&mut self) {
        if self.drained < self.log.seq {
            return;
        }
        match self.phase {
            Phase::Suspecting => {
                self.disconnect();
                self.ask(Phase::Asking);
            }
            Phase::Parting => self.finish(true),
            _ => {}
        }
    }

    /// Execution differs from the log. This side never goes live (I6).
    pub fn handle_diverged(&mut self, _now: Time, at: Position, what: String) {
        if !matches!(self.phase, Phase::Live | Phase::Closing | Phase::Ended) {
            if self.connected {
                self.push(BackupAction::Send(Message::Diverged {
                    at,
                    what: what.clone(),
                }));
            }
            self.halt(HaltReason::Diverged { at, what });
        }
    }

    /// What the primary sent is not what a primary sends.
    fn broke(&mut self, what: String) {
        self.lose(Loss::Broke(what));
    }

    /// The primary is gone, or of no use.
    fn lose(&mut self, loss: Loss) {
        match self.phase {
            Phase::Following => {
                // Silence may end; everything else is final.
                if !matches!(loss, Loss::Suspected(Suspicion::Silent(_))) {
                    self.disconnect();
                }
                self.phase = Phase::Suspecting;
                self.push(BackupAction::Suspect(loss));
                self.go_on();
            }
            Phase::Greeting | Phase::ReadingBack | Phase::Booting => self.start_over(loss),
            _ => {}
        }
    }

    /// Goes into a phase and asks the arbiter what belongs to it.
    fn ask(&mut self, phase: Phase) {
        self.phase = phase;
        self.question.ask();
        self.push_question();
    }

    fn push_question(&mut self) {
        let generation = self.generation;
        match self.phase {
            Phase::ReadingBack => self.push(BackupAction::ReadBack { generation }),
            Phase::Asking => self.push(BackupAction::Claim { generation }),
            Phase::Closing => self.push(BackupAction::Close { generation }),
            phase => unreachable!("{phase:?} asks nothing"),
        }
    }

    /// The answer to [`BackupAction::Claim`].
    pub fn handle_claim(&mut self, now: Time, answer: ClaimAnswer) {
        if self.phase != Phase::Asking || !self.question.answered() {
            return;
        }
        match answer {
            ClaimAnswer::Unreachable(_) => self.question.unreachable(now),
            ClaimAnswer::Refused(why) => self.halt(HaltReason::NoRight(why)),
            ClaimAnswer::Lost { by } => {
                self.halt(HaltReason::LostArbitration {
                    generation: self.generation,
                    by,
                });
            }
            ClaimAnswer::Won => self.go_live(),
        }
    }

    /// Won. A fence belongs before everything else here; what it shuts out must not speak again.
    fn go_live(&mut self) {
        assert_eq!(
            self.drained, self.log.seq,
            "I3: nobody goes live with entries not executed"
        );
        self.push(BackupAction::EmitHeld);
        if self.log.ended {
            return self.ask(Phase::Closing);
        }
        self.phase = Phase::Live;
        self.push(BackupAction::Announce);
        self.push(BackupAction::Live {
            generation: self.generation,
        });
    }

    /// The guest ended after this side went live, and everything it emitted has left.
    pub fn handle_guest_end(&mut self, _now: Time) {
        if self.phase == Phase::Live {
            self.ask(Phase::Closing);
        }
    }

    /// The answer to [`BackupAction::Close`].
    pub fn handle_closed(&mut self, now: Time, answer: CloseAnswer) {
        if self.phase != Phase::Closing || !self.question.answered() {
            return;
        }
        match answer {
            CloseAnswer::Closed => self.finish(true),
            CloseAnswer::Unreachable(_) if self.question.attempts() < CLOSE_ATTEMPTS => {
                self.question.unreachable(now);
            }
            CloseAnswer::Unreachable(_) => self.finish(false),
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Time) {
        if self.question.due(now) {
            self.push_question();
        }
        if self.connected && self.detector.tick(now) {
            match self.consumed > self.told {
                true => self.acknowledge(),
                false => self.push(BackupAction::Send(Message::Heartbeat)),
            }
            if let Some(suspicion) = self.detector.suspicion() {
                self.lose(Loss::Suspected(suspicion));
            }
        }
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.push(BackupAction::Disconnect);
        }
    }

    fn halt(&mut self, reason: HaltReason) {
        self.disconnect();
        self.phase = Phase::Ended;
        self.push(BackupAction::Halt(reason));
    }

    fn finish(&mut self, closed: bool) {
        self.phase = Phase::Ended;
        self.push(BackupAction::Finish { closed });
    }

    fn push(&mut self, action: BackupAction) {
        self.actions.push_back(action);
    }

    /// The generation it is in; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it runs alone.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// The last entry that it received, and with that acknowledged.
    pub fn received(&self) -> u64 {
        self.log.seq
    }
}

#[cfg(test)]
mod tests;
