//! The backup's half of the protocol.

mod beats;
mod control;
mod flow;
mod join;
mod outcome;
mod transfer;
mod types;

pub use types::{
    ACK_CONSUMED_BYTES, BackupAction, BackupConfig, BackupEnd, BackupQuestion, BackupTurn, Build,
    Delivery, Expectations, LogItem,
};

use crate::Time;
use crate::arbiter::{MemberId, Standing};
use crate::detector::Suspicion;
use crate::log::Position;
use crate::log::codec::{FrameDecoder, MAX_ENTRY_PAYLOAD};
use crate::mutant::Mutant;
use crate::peer::Peer;
use crate::primary::LOG_WINDOW_BYTES;
use crate::question::Question;
use crate::reason::{HaltReason, Loss};
use crate::transfer::Right;
use crate::wire::Message;
use join::Joining;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of the log that may wait for the vCPU. A primary sends at most [`LOG_WINDOW_BYTES`], plus its
/// last flush; one that sends more than this breaks the protocol.
const BUFFER_BYTES: u64 = 2 * LOG_WINDOW_BYTES;

/// The backup, from connecting to its primary to going live or to the guest's end.
///
/// # How to drive it
///
/// After every `handle_*`, call [`Backup::poll_action`] until it returns `None`, and perform the
/// actions **in that order**. Call [`Backup::handle_tick`] when [`Backup::poll_timeout`] has come
/// (earlier does no harm). The times that are passed in must never go back.
///
/// - While [`Backup::wants_connection`] is true, try to connect to the primary, and call
///   [`Backup::handle_connected`]. [`Backup::handle_disconnected`] is for a connection that broke, or
///   that a [`crate::wire::WireDecoder`] found damaged. After [`BackupAction::Disconnect`] it is not
///   called, and nothing more of that connection is passed in.
/// - Each `ReadBack`, `Claim` and `Close` must get exactly one answer. "Unreachable" is an answer; the
///   question is then asked again later. If the connection of a `ReadBack` breaks meanwhile, the answer
///   is still passed in, before a new connection. Each `Fence` also gets one answer, by
///   [`Backup::handle_fenced`].
/// - Beats come by UDP, in any order or not at all: [`Backup::handle_beat`]. Before each tick, call
///   [`Backup::handle_vcpu`] with whether the vCPU's thread answers, and pass in everything that has
///   arrived: a peer is not silent only because this side has not read yet.
/// - The vCPU executes only delivered entries. Call [`Backup::handle_consumed`] as it takes them. Call
///   [`Backup::handle_drained`] whenever it has executed everything that there is, after the checks
///   were made and with the backends ready to be opened: this may be the last step before going live.
/// - An output of the guest is kept until [`BackupAction::ForgetOutputs`] has named it, even if the
///   guest emits it only afterwards.
/// - `Live` is the last action of a backup: go on as [`crate::primary::Primary::survivor`] with
///   [`Backup::survivor`]. `Halt` and `Finish` are last actions too. What is passed in later is
///   ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backup {
    config: BackupConfig,
    phase: Phase,
    actions: VecDeque<BackupAction>,
    peer: Peer,
    /// The right of the generation to which it was welcomed, offered or armed.
    right: Option<Right>,
    generation: u64,
    /// The primary's id, when it is known.
    primary: Option<MemberId>,
    question: Question,
    frames: FrameDecoder,
    log: Received,
    /// How far the vCPU has got: bytes taken out of the buffer; the last sequence number executed; and
    /// the same at the last moment when everything was executed.
    consumed: u64,
    executed: u64,
    drained: u64,
    /// Has the vCPU waited for the log since the machine was built? Before that, it may still be on its
    /// way from where it was copied.
    ran_dry: bool,
    /// Bytes of a copy's memory that were received, and that are in place.
    memory: (u64, u64),
    /// `consumed` and `executed`, as they were last reported to the primary.
    told: (u64, u64),
    /// Entries were received and not acknowledged, because this side is mute.
    ack_due: bool,
    /// The probe that was not answered, because this side is mute.
    echo_due: Option<u64>,
    /// The primary handed over: it is alive, so no fence is needed.
    planned: bool,
    /// The last output that the primary reported as released.
    forgotten: u64,
}

/// The log as it was received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Received {
    /// Sequence number of the last entry.
    seq: u64,
    /// Bytes in all.
    bytes: u64,
    /// The last entry's position.
    at: Position,
    /// Is the last entry the end entry?
    ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// No connection yet.
    Connecting,
    /// Has said Hello.
    Greeting,
    /// Welcome, or offered a copy; asked the arbiter whether it is the primary's.
    ReadingBack(Joining),
    /// The machine is being built, or room is being made for a copy.
    Booting { copied: bool },
    /// Receives the copy.
    Receiving,
    /// Has the whole copy; the machine is being built from it. The log goes on.
    Restoring,
    /// Follows the log, but has no right yet.
    Unarmed,
    /// Armed: has said Ready, and follows the log.
    Following,
    /// Suspects the primary, and executes the rest before it asks the arbiter. If it hears the primary,
    /// the suspicion is withdrawn; but if the channel is `stuck`, beats do not withdraw it.
    Suspecting { stuck: bool },
    /// The primary handed over; executes the rest before it asks the arbiter.
    TakingOver,
    /// Has asked the arbiter; the channel does not matter any more.
    Asking,
    /// Has won, and shuts the peer out before any output leaves.
    Fencing,
    /// The primary said Bye; executes the rest.
    Parting,
    /// Runs alone, by right.
    Live,
    /// The guest has ended, here or on the primary before this side went live: closes the generation.
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
            peer: Peer::new(&config.timing, config.timing.joining, now),
            right: None,
            generation: 0,
            primary: None,
            question: Question::default(),
            frames: FrameDecoder::new(1, MAX_ENTRY_PAYLOAD, 0),
            log: Received::default(),
            consumed: 0,
            executed: 0,
            drained: 0,
            ran_dry: true,
            memory: (0, 0),
            told: (0, 0),
            ack_due: false,
            echo_due: None,
            planned: false,
            forgotten: 0,
            config,
        }
    }

    /// Is this fault planted? Only in this crate's tests.
    fn has(&self, mutant: Mutant) -> bool {
        #[cfg(test)]
        let planted = mutant.is(self.config.mutant);
        #[cfg(not(test))]
        let planted = {
            let _never = mutant;
            false
        };
        planted
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<BackupAction> {
        self.actions.pop_front()
    }

    /// When to call [`Backup::handle_tick`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Time> {
        let tick = self
            .peer
            .is_connected()
            .then(|| self.peer.detector.next_tick());
        [tick, self.question.next()].into_iter().flatten().min()
    }

    /// Must the runtime connect to the primary?
    pub fn wants_connection(&self) -> bool {
        self.phase == Phase::Connecting && !self.question.is_asked()
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, _now: Time) {
        if self.peer.disconnect() {
            self.lose(Loss::Suspected(Suspicion::Closed));
        }
    }

    /// A message came.
    pub fn handle_message(&mut self, now: Time, message: Message) {
        if !self.peer.is_connected() {
            return;
        }
        self.peer.detector.heard(now);
        self.withdraw();
        match (&self.phase, message) {
            (_, Message::Heartbeat) => {}
            // After the arbiter was asked, the channel only serves to say goodbye.
            (Phase::Asking | Phase::Fencing, _) => {}
            (Phase::Following | Phase::Restoring | Phase::Unarmed, Message::Log { frames }) => {
                self.take_log(frames)
            }
            (Phase::Following, Message::Released { output }) => self.forget(output),
            (Phase::Following, Message::Probe { number }) => self.probed(number),
            (Phase::Following, Message::Bye) => self.bye(),
            (Phase::Following, Message::Handover) => self.take_over(),
            (Phase::Greeting, Message::Refuse { reason }) => {
                self.halt(HaltReason::Refused(reason));
            }
            (Phase::Greeting, message @ Message::Welcome { .. }) => self.welcome(message),
            (Phase::Greeting, message @ Message::Offer { .. }) => self.offered(message),
            (Phase::Receiving, Message::Memory { pages }) => self.take_memory(pages),
            (
                Phase::Receiving,
                Message::State {
                    seq,
                    at,
                    outputs,
                    state,
                },
            ) => {
                let log = Received {
                    seq,
                    at,
                    ..Received::default()
                };
                self.take_state(log, outputs, state);
            }
            (Phase::Unarmed, Message::Armed { generation, nonce }) => {
                self.armed(now, generation, nonce);
            }
            (
                Phase::ReadingBack(_)
                | Phase::Booting { .. }
                | Phase::Receiving
                | Phase::Restoring
                | Phase::Unarmed,
                Message::Refuse { reason },
            ) => self.halt(HaltReason::Refused(reason)),
            (_, message) => self.broke(format!("{} out of turn", message.name())),
        }
    }

    /// The primary has finished. This is answered at once, as the primary waits for it before it ends.
    fn bye(&mut self) {
        if !self.log.ended {
            return self.broke("Bye before the log's end".into());
        }
        self.push(BackupAction::Send(Message::Bye));
        self.disconnect();
        self.phase = Phase::Parting;
        self.go_on();
    }

    /// The vCPU has executed every entry up to `seq`, and the checks held.
    ///
    /// # Panics
    /// If it executed an entry that it was never given.
    pub fn handle_drained(&mut self, _now: Time, seq: u64) {
        assert!(
            seq <= self.log.seq,
            "entry {seq} executed, {} received",
            self.log.seq
        );
        self.drained = self.drained.max(seq);
        self.ran_dry = true;
        self.executed = self.executed.max(seq);
        self.go_on();
    }

    /// Does the step that waited until the vCPU had executed everything acknowledged (I3).
    fn go_on(&mut self) {
        let caught_up = self.ran_dry && self.drained >= self.log.seq;
        if !caught_up && !self.has(Mutant::AsksBeforeCaughtUp) {
            return;
        }
        match self.phase {
            Phase::Suspecting { .. } => {
                self.disconnect();
                self.ask(Phase::Asking);
            }
            Phase::TakingOver => self.ask(Phase::Asking),
            // The primary closes the generation too. Whichever is first, it is closed when this side
            // has ended.
            Phase::Parting => self.ask(Phase::Closing),
            _ => {}
        }
    }

    /// The execution differs from the log. This side never goes live (I6).
    pub fn handle_diverged(&mut self, _now: Time, at: Position, what: String) {
        if !matches!(self.phase, Phase::Live | Phase::Closing | Phase::Ended) {
            if self.peer.is_connected() {
                self.push(BackupAction::Send(Message::Diverged {
                    at,
                    what: what.clone(),
                }));
            }
            if !self.has(Mutant::GoesOnDiverged) {
                self.halt(HaltReason::Diverged { at, what });
            }
        }
    }

    /// The primary sent what the protocol does not allow.
    fn broke(&mut self, what: String) {
        self.lose(Loss::Broke(what));
    }

    /// The primary is lost.
    fn lose(&mut self, loss: Loss) {
        match self.phase {
            Phase::Following => {
                let stuck = matches!(loss, Loss::Suspected(Suspicion::Stuck(_)));
                // A suspicion for silence may be withdrawn; every other one is final.
                if !stuck && !matches!(loss, Loss::Suspected(Suspicion::Silent(_))) {
                    self.disconnect();
                }
                self.phase = Phase::Suspecting { stuck };
                self.push(BackupTurn::Suspect(loss));
                self.go_on();
            }
            // The primary asked it to take over, so it goes on; a primary that does not answer any more
            // does not claim either.
            Phase::TakingOver => self.disconnect(),
            Phase::Greeting | Phase::ReadingBack(_) | Phase::Booting { .. } => {
                self.start_over(loss);
            }
            Phase::Receiving | Phase::Restoring | Phase::Unarmed => self.lose_source(loss),
            _ => {}
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Time) {
        if self.question.due(now) {
            self.push_question();
        }
        if self.peer.is_connected() && self.peer.detector.tick(now) {
            self.heartbeat();
            if let Some(suspicion) = self.peer.detector.suspicion() {
                self.lose(Loss::Suspected(suspicion));
            }
        }
    }

    /// The primary was heard again.
    fn withdraw(&mut self) {
        if matches!(self.phase, Phase::Suspecting { .. }) && self.peer.is_connected() {
            self.phase = Phase::Following;
            self.push(BackupTurn::Withdraw);
            self.echo();
        }
    }

    /// Does it follow the log of a primary that it hears?
    fn is_paired(&self) -> bool {
        self.peer.is_connected()
            && matches!(self.phase, Phase::Following | Phase::Suspecting { .. })
    }

    /// Does it get the log of a primary that it hears?
    fn takes_log(&self) -> bool {
        let joins = matches!(self.phase, Phase::Restoring | Phase::Unarmed);
        self.is_paired() || self.peer.is_connected() && joins
    }

    fn disconnect(&mut self) {
        if self.peer.disconnect() {
            self.push(BackupAction::Disconnect);
        }
    }

    fn halt(&mut self, reason: HaltReason) {
        self.disconnect();
        self.phase = Phase::Ended;
        self.push(BackupEnd::Halt(reason));
    }

    fn finish(&mut self, closed: bool) {
        self.phase = Phase::Ended;
        self.push(BackupEnd::Finish { closed });
    }

    fn push(&mut self, action: impl Into<BackupAction>) {
        self.actions.push_back(action.into());
    }

    /// The next tick is done this much later, because nothing is under way ([`Detector::put_off`]).
    ///
    /// [`Detector::put_off`]: crate::detector::Detector::put_off
    pub fn put_off_tick(&mut self, by: Duration) {
        self.peer.detector.put_off(by);
    }

    /// How long the primary has been silent, as a tick counts it; `None` without a primary.
    pub fn silence(&self, now: Time) -> Option<Duration> {
        self.peer.silence(now)
    }

    /// Its generation; 0 before the first one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The right of its generation, as it was opened.
    pub fn right(&self) -> Option<Right> {
        self.right
    }

    /// The records that the arbiter should have of this side; `None` while it asks the arbiter anyway,
    /// or has no part in a generation.
    pub fn standing(&self) -> Option<Standing> {
        let right = self.right.filter(|_| self.is_paired())?;
        Some(Standing { right, won: false })
    }

    /// Its state in a word or two, for operators.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Connecting => "connecting",
            Phase::Greeting | Phase::ReadingBack(_) | Phase::Booting { .. } => "joining",
            Phase::Receiving | Phase::Restoring => "receiving a copy",
            Phase::Unarmed => "waiting to be armed",
            Phase::Following => "protecting",
            Phase::Suspecting { .. } => "suspecting",
            Phase::TakingOver => "taking over",
            Phase::Asking => "asking the arbiter",
            Phase::Fencing => "fencing",
            Phase::Live => "live",
            Phase::Parting | Phase::Closing | Phase::Ended => "ending",
        }
    }

    /// Does it run alone?
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Sequence number of the last entry that it received, and so acknowledged.
    pub fn received(&self) -> u64 {
        self.log.seq
    }
}

#[cfg(test)]
mod tests;
