//! The primary's half of the protocol.

mod beats;
mod doubt;
mod flow;
mod handover;
mod join;
mod outbox;
mod outcome;
mod transfer;
mod types;
mod watch;

pub use types::{
    Copying, LOG_WINDOW_BYTES, PrimaryAction, PrimaryConfig, PrimaryEnd, PrimaryQuestion,
    PrimaryTurn, Stalls,
};

use crate::Time;
use crate::arbiter::{MemberId, Members};
use crate::detector::Suspicion;
use crate::gate::Gate;
use crate::lag::Lag;
use crate::mutant::Mutant;
use crate::peer::Peer;
use crate::question::Question;
use crate::reason::Loss;
use crate::transfer::Right;
use crate::wire::{Message, PROTOCOL_VERSION};
use doubt::Doubt;
use handover::Handover;
pub(crate) use join::host_refusal;
use outbox::Outbox;
use std::collections::VecDeque;
use std::time::Duration;
use transfer::Stage;

/// A connection that does not say Hello within this time is closed.
const HELLO_WAIT: Duration = Duration::from_secs(5);

/// The primary, from waiting for its backup to the guest's end; and a survivor that runs alone, which a
/// new backup may join.
///
/// # How to drive it
///
/// After every `handle_*`, call [`Primary::poll_action`] until it returns `None`, and perform the
/// actions **in that order**; then check [`Primary::may_run`]. Call [`Primary::handle_tick`] when
/// [`Primary::poll_timeout`] has come (earlier does no harm). The times that are passed in must never
/// go back.
///
/// - There is one connection at a time. Accept one only while [`Primary::accepts_connection`] is true;
///   let others wait. [`Primary::handle_disconnected`] is for a connection that broke, or that a
///   [`crate::wire::WireDecoder`] found damaged. After [`PrimaryAction::Disconnect`] it is not called,
///   and nothing more of that connection is passed in.
/// - Each `Open`, `Claim` and `Close` must get exactly one answer. "Unreachable" is an answer; the
///   question is then asked again later. Each `Fence` also gets one answer, by
///   [`Primary::handle_fenced`].
/// - Beats come by UDP, in any order or not at all: [`Primary::handle_beat`].
/// - Before a tick, pass in everything that has arrived: a peer is not silent only because this side
///   has not read yet.
/// - Before each tick, call [`Primary::handle_vcpu`] with whether the vCPU's thread answers.
/// - Log entries and outputs: call [`Primary::handle_output`] when the guest emits an output,
///   [`Primary::handle_appended`] when entries can be sent, and [`Primary::handle_released`] **after**
///   the backends took the outputs of a [`PrimaryAction::Release`]: the backup forgets them then.
///   Before each output, ask [`Primary::may_release`].
/// - If [`Primary::may_release`] returns false in the middle of a release, call
///   [`Primary::handle_kept_back`].
/// - The vCPU executes only after [`PrimaryTurn::Start`], and enters the guest only while
///   `may_run`.
/// - After [`Copying::Begin`] the machine's memory is copied while the guest runs, one piece whenever
///   [`Primary::wants_piece`], each handed in by [`Primary::handle_piece`]. Then the guest is stopped for
///   the rest: its pieces, and [`Primary::handle_captured`]; or it is [`Primary::handle_copy_failed`].
///   Between the stop and that call nothing else of the log or of the outputs is handed in. The bytes stay
///   with the runtime until [`Copying::SendPiece`] and [`Copying::SendState`].
/// - `Halt` and `Finish` are the last action; what is handed in later is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Primary {
    config: PrimaryConfig,
    phase: Phase,
    generation: u64,
    actions: VecDeque<PrimaryAction>,
    peer: Peer,
    /// The members of this generation, or of the next one while a backup joins.
    members: Members,
    /// The right of the generation, when it was opened.
    right: Option<Right>,
    /// The last generation that this side asked to open, and the last one that may be its own.
    opened: u64,
    last_own: u64,
    /// Bytes of the log before the copy, which the backup does not count.
    base_bytes: u64,
    outbox: Outbox,
    protocol: u32,
    question: Question,
    gate: Gate,
    log: LogMark,
    /// Bytes of the log that the backup's vCPU has taken.
    consumed: u64,
    /// The runtime kept some outputs of a release back.
    kept_back: bool,
    /// The last output that the backends took, and the last one that was reported to the backup.
    released: u64,
    told: u64,
    /// Sequence number of the end entry.
    end: Option<u64>,
    lag: Lag,
    handover: Handover,
    /// The operator wants it to leave before anything ran.
    leaving: bool,
    /// It must ask the arbiter as soon as it is not mute any more.
    asks_later: bool,
    /// Must the backup show that it still follows? And the number of the last probe.
    doubt: Doubt,
    probes: u64,
    /// The generation in which the pair's record was found missing, and the last entry of the log at
    /// that moment.
    missed: Option<(u64, u64)>,
    stalls: Stalls,
    stalled: (bool, bool),
}

/// How far the log has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct LogMark {
    seq: u64,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Waits for a backup, connected or not, to say Hello.
    Waiting,
    /// Has asked the arbiter to open the generation.
    Opening,
    /// Has sent the machine; the backup builds it.
    Welcomed,
    /// Runs, and is protected.
    Paired,
    /// Has lost the backup and asked the arbiter; outputs are held.
    Claiming { started: bool },
    /// Has won, and shuts the peer out before any output leaves.
    Fencing,
    /// Has handed over: the backup must claim.
    HandedOver,
    /// Runs alone, by right. If it is `unsure`, a joiner was lost when the next generation was being opened,
    /// and whether it is open is still to be found out.
    Solo { unsure: bool },
    /// Runs alone, and somebody joins who is not armed yet.
    Joined(Stage),
    /// The guest has ended; closes the generation, and waits for the backup's Bye until this time.
    Closing { closed: bool, bye_by: Option<Time> },
    /// Halted or finished.
    Ended,
}

impl Primary {
    /// A primary that waits for its backup, or opens a generation for itself if it runs alone.
    pub fn new(config: PrimaryConfig, now: Time) -> Primary {
        let mut primary = Primary::at_rest(config, now);
        if primary.config.solo {
            primary.ask(Phase::Opening);
        }
        primary
    }

    fn at_rest(config: PrimaryConfig, now: Time) -> Primary {
        Primary {
            phase: Phase::Waiting,
            generation: config.generation,
            actions: VecDeque::new(),
            peer: Peer::new(&config.timing, config.timing.silence, now),
            members: Members {
                primary: config.me,
                backup: None,
            },
            right: None,
            opened: config.generation,
            last_own: config.generation,
            base_bytes: 0,
            outbox: Outbox::default(),
            protocol: PROTOCOL_VERSION,
            question: Question::default(),
            gate: Gate::new(),
            log: LogMark::default(),
            consumed: 0,
            kept_back: false,
            released: 0,
            told: 0,
            end: None,
            lag: Lag::default(),
            handover: Handover::No,
            leaving: false,
            asks_later: false,
            doubt: Doubt::No,
            probes: 0,
            missed: None,
            stalls: Stalls::default(),
            stalled: (false, false),
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
    pub fn poll_action(&mut self) -> Option<PrimaryAction> {
        self.actions.pop_front()
    }

    /// When to call [`Primary::handle_tick`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Time> {
        let tick = self.ticks().then(|| self.peer.detector.next_tick());
        let bye = match self.phase {
            Phase::Closing { bye_by, .. } => bye_by,
            _ => None,
        };
        [tick, bye, self.question.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// May the vCPU enter the guest? Not before the start, not while the backup is too far behind or
    /// too many outputs wait, and not while it is undecided which side goes on.
    pub fn may_run(&self) -> bool {
        match &self.phase {
            Phase::Paired => self.stalled == (false, false),
            Phase::Joined(stage) => stage.copied().is_none() || self.stalled == (false, false),
            Phase::Solo { .. } => true,
            _ => false,
        }
    }

    /// Should the runtime accept a connection?
    pub fn accepts_connection(&self) -> bool {
        let free = matches!(self.phase, Phase::Waiting | Phase::Solo { unsure: false });
        free && !self.peer.is_connected()
    }

    /// A connection was accepted.
    ///
    /// # Panics
    /// If [`Primary::accepts_connection`] is false.
    pub fn handle_connected(&mut self, now: Time) {
        assert!(
            self.accepts_connection(),
            "one connection at a time, and only when it is of use"
        );
        self.peer.connect(&self.config.timing, HELLO_WAIT, now);
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
        match (&self.phase, message) {
            (
                Phase::Waiting | Phase::Solo { .. },
                Message::Hello {
                    protocol,
                    vm,
                    member,
                    host,
                },
            ) => match self.refusal(protocol, &vm, member, &host) {
                Some(reason) => self.refuse(reason),
                None if self.phase == Phase::Waiting => self.welcome(now, protocol, member),
                None => self.offer(now, protocol, member),
            },
            (Phase::Opening | Phase::Welcomed | Phase::Paired, Message::Heartbeat) => {}
            (Phase::Joined(_), message) => self.joining(now, message),
            (Phase::Welcomed, Message::Ready) => self.start(now),
            (Phase::Opening | Phase::Welcomed, Message::Refuse { reason }) => {
                self.lose(Loss::Refused(reason));
            }
            (
                Phase::Paired,
                Message::Ack {
                    received,
                    consumed,
                    executed,
                },
            ) => self.acknowledged(now, received, consumed, executed),
            (Phase::Paired, Message::Echo { number }) => self.answered(now, number),
            (Phase::Paired, Message::Request(request)) => {
                self.push(PrimaryTurn::Requested(request));
            }
            (Phase::Welcomed | Phase::Paired, Message::Leave) => self.lose(Loss::Left),
            (Phase::Paired, Message::Diverged { at, what }) => {
                self.lose(Loss::Diverged { at, what });
            }
            (Phase::HandedOver, message) => self.handed_over(message),
            (&Phase::Closing { closed, .. }, message) => self.parting(closed, message),
            (_, message) => self.lose(Loss::Broke(format!("{} out of turn", message.name()))),
        }
    }

    /// The backup is lost.
    fn lose(&mut self, loss: Loss) {
        self.disconnect();
        self.lag.clear();
        match self.phase {
            Phase::Waiting
            | Phase::Solo { .. }
            | Phase::Claiming { .. }
            | Phase::Fencing
            | Phase::Ended => {}
            Phase::Joined(_) => self.drop_transfer(loss),
            Phase::HandedOver if self.has(Mutant::ResumesWithoutRight) => self.take_back(),
            Phase::HandedOver => self.ask(Phase::Claiming { started: true }),
            Phase::Opening => self.push(PrimaryTurn::BackupLost(loss)),
            Phase::Welcomed | Phase::Paired => {
                let started = self.phase == Phase::Paired;
                self.push(PrimaryTurn::BackupLost(loss));
                if started && self.has(Mutant::SoloWithoutClaim) {
                    return self.go_solo(Time(0), true);
                }
                self.ask(Phase::Claiming { started });
            }
            Phase::Closing { closed, .. } => self.close_or_finish(closed, None),
        }
    }

    fn disconnect(&mut self) {
        if self.peer.disconnect() {
            self.push(PrimaryAction::Disconnect);
        }
    }

    fn push(&mut self, action: impl Into<PrimaryAction>) {
        self.actions.push_back(action.into());
    }

    /// This member.
    pub fn me(&self) -> MemberId {
        self.config.me
    }

    /// Its generation, or the one that it opens next.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The last generation that is its own, which must be closed at the end.
    pub fn last_opened(&self) -> u64 {
        self.last_own
    }

    /// How far the backup's execution is behind.
    pub fn lag(&self, now: Time) -> Duration {
        self.lag.lag(now)
    }

    /// The next tick is done this much later, because nothing is under way ([`Detector::put_off`]).
    ///
    /// [`Detector::put_off`]: crate::detector::Detector::put_off
    pub fn put_off_tick(&mut self, by: Duration) {
        self.peer.detector.put_off(by);
    }

    /// How long the backup has been silent, as a tick counts it; `None` without a backup.
    pub fn silence(&self, now: Time) -> Option<Duration> {
        self.peer.silence(now)
    }

    /// How much of its time the vCPU must rest so that the backup keeps up, percent.
    pub fn rest(&self) -> u32 {
        self.lag.rest()
    }

    /// Its state in a word or two, for operators.
    pub fn state(&self) -> &'static str {
        match &self.phase {
            Phase::Waiting => "waiting for a backup",
            Phase::Opening | Phase::Welcomed => "pairing",
            Phase::Paired => "protected",
            Phase::Claiming { .. } => "asking the arbiter",
            Phase::Fencing => "fencing",
            Phase::HandedOver => "handing over",
            Phase::Solo { .. } => "alone",
            Phase::Joined(Stage::Offering) => "alone, offering a copy",
            Phase::Joined(Stage::Copying) => "alone, copying",
            Phase::Joined(Stage::Proving(..)) => "alone, proving the copy",
            Phase::Joined(Stage::Opening(_) | Stage::Arming { .. }) => "alone, arming the copy",
            Phase::Closing { .. } | Phase::Ended => "ending",
        }
    }

    /// Does it run alone, by right? Also true while a joiner is not armed yet.
    pub fn is_solo(&self) -> bool {
        matches!(self.phase, Phase::Solo { .. } | Phase::Joined(_))
    }

    /// Does the log have a reader? Then its frames must be kept until they are sent.
    pub fn sends_log(&self) -> bool {
        !self.is_solo() || self.copied().is_some()
    }

    /// Number of outputs that wait for an acknowledgement.
    pub fn held_outputs(&self) -> usize {
        self.gate.held()
    }

    /// How often the vCPU was made to wait.
    pub fn stalls(&self) -> Stalls {
        self.stalls
    }
}

#[cfg(test)]
mod tests;
