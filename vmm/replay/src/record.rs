//! The recording edge: inputs come from live backends, outputs go to them, and everything that a replay
//! needs goes into the journal. A machine that is not recorded uses this edge too, with a journal
//! without consumers.

use super::journal::{FLUSH_INTERVAL, Journal, JournalError, RECORD_INTERVAL};
use ft_protocol::log::codec::BytesInput;
use ft_protocol::log::{End, EndReason, Event, MachineDigest, OutputMark, OutputPort, Position};
use lockstep_devices::Output;
use lockstep_devices::virtio::net::MAX_FRAME;
use lockstep_machine::world::{Inputs, Looked, Outlet};
use lockstep_machine::{Input, Machine, Moment, Next, Sink, Source, View, output_hash};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use thiserror::Error;

/// Time between two digests of the whole machine while it is recorded.
pub const DIGEST_INTERVAL: Duration = Duration::from_secs(1);

/// Room for inputs of one position from the start: all frames that a look gives, and the rest.
const QUEUE: usize = 72;

/// Why recording stopped.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The log cannot be recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A backend failed.
    #[error("the guest's devices failed on the host: {0}")]
    Backend(#[from] std::io::Error),
}

/// What other threads may ask of a recording machine, and what it tells them.
#[derive(Default)]
pub struct Controls {
    /// End the machine at the next position.
    pub stop: AtomicBool,
    /// Rest at the next position, once.
    pub park: AtomicBool,
    /// Stop driving as soon as the vCPU's thread is kicked out of the guest: it reaches no position.
    pub cut_off: AtomicBool,
    /// The log has something that is not handed on, and the guest runs.
    log_waits: AtomicBool,
    /// A visitor waits for the machine.
    visited: AtomicBool,
    visit: Mutex<Option<Visit>>,
}

/// What a visitor does with the machine at a position, on the machine's thread: the vCPU's instruction
/// is complete and the log was handed on.
pub type Visit = Box<dyn FnOnce(&mut Machine, Visited) + Send>;

/// The state of the log during a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visited {
    /// Sequence number of its last entry.
    pub seq: u64,
    /// Number of the last output.
    pub outputs: u64,
}

impl std::fmt::Debug for Controls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controls").finish_non_exhaustive()
    }
}

impl Controls {
    /// Lets `visit` see the machine at its next position. If [`Controls::stop_visits`] was called for
    /// `stopped`, `visit` is dropped. The caller may have to wake the machine.
    pub fn visit(&self, stopped: &AtomicBool, visit: Visit) {
        let mut visits = self.visits();
        if !stopped.load(Ordering::Acquire) {
            *visits = Some(visit);
            self.visited.store(true, Ordering::Release);
        }
    }

    /// From now on no visit with this `stopped` happens.
    pub fn stop_visits(&self, stopped: &AtomicBool) {
        let mut visits = self.visits();
        stopped.store(true, Ordering::Release);
        *visits = None;
        self.visited.store(false, Ordering::Release);
    }

    /// Does the guest run while a part of the log, at least a progress mark, is not handed on? A vCPU's
    /// thread that is kicked out of the guest hands it on.
    pub fn log_waits(&self) -> bool {
        self.log_waits.load(Ordering::SeqCst)
    }

    fn is_visited(&self) -> bool {
        self.visited.load(Ordering::Acquire)
    }

    fn take_visit(&self) -> Option<Visit> {
        let mut visits = self.visits();
        self.visited.store(false, Ordering::Release);
        visits.take()
    }

    fn visits(&self) -> MutexGuard<'_, Option<Visit>> {
        self.visit.lock().expect("nobody panics with this lock")
    }
}

/// An input that was gathered and logged, and is to be applied.
#[derive(Clone, Debug)]
enum Queued {
    Clock {
        ns: u64,
    },
    Bytes {
        kind: BytesInput,
        place: Range<usize>,
    },
}

/// The recording edge. What it does at each position takes no lock, no memory and one look at the clock.
pub struct Recorder<I, O> {
    inputs: I,
    outlet: O,
    journal: Journal,
    controls: Arc<Controls>,
    queue: VecDeque<Queued>,
    /// Where inputs were gathered last: once per position is enough while the guest runs.
    gathered: Option<Position>,
    /// Guest time when that was.
    now_ns: u64,
    /// The position that was left last.
    left: Position,
    outputs: u64,
    /// An event to log at the first position.
    first: Option<Event>,
    /// An output waits for the log to be handed on.
    output_waits: bool,
    /// As in the controls.
    log_waits: bool,
    /// Guest time when the machine was digested, and the log handed on.
    digested_ns: u64,
    flushed_ns: u64,
    /// The age at which the log is handed on if nothing waits for it, nanoseconds.
    interval_ns: u64,
    /// The journal has a consumer.
    recorded: bool,
}

impl<I: Inputs, O: Outlet> Recorder<I, O> {
    /// An edge that adds to `journal`; `outputs` is the number of the last output so far.
    pub fn new(
        mut inputs: I,
        outlet: O,
        journal: Journal,
        controls: Arc<Controls>,
        outputs: u64,
    ) -> Recorder<I, O> {
        let now_ns = inputs.now_ns();
        let interval = match outlet.needs_log() {
            true => FLUSH_INTERVAL,
            false => RECORD_INTERVAL,
        };
        Recorder {
            interval_ns: interval.as_nanos() as u64,
            recorded: !journal.is_idle(),
            inputs,
            outlet,
            journal,
            controls,
            queue: VecDeque::with_capacity(QUEUE),
            gathered: None,
            now_ns,
            left: Position::START,
            outputs,
            first: None,
            output_waits: false,
            log_waits: false,
            digested_ns: now_ns,
            flushed_ns: now_ns,
        }
    }

    /// The same, for a machine between two positions: `event` is logged at the next one.
    pub fn with_first(mut self, event: Option<Event>) -> Recorder<I, O> {
        self.first = event;
        self
    }

    /// Hands on the rest of the log and drops its consumers.
    pub fn close(&mut self) -> Result<(), JournalError> {
        let flushed = self.journal.flush();
        self.journal.close();
        flushed
    }

    /// Sequence number of the log's last entry.
    pub fn last_seq(&self) -> u64 {
        self.journal.last_seq()
    }

    fn log(&mut self, moment: Moment, event: Event) -> u64 {
        self.journal.append(moment.at, Some(moment.check), event)
    }

    /// Hands the log on, with a mark that no entry before `horizon` will follow. Returns the last
    /// sequence number.
    fn flush(&mut self, horizon: Position) -> Result<u64, JournalError> {
        self.output_waits = false;
        self.flushed_ns = self.now_ns;
        self.outlet.hand_on();
        self.journal.progress(horizon);
        self.journal.flush()?;
        if std::mem::take(&mut self.log_waits) {
            self.controls.log_waits.store(false, Ordering::SeqCst);
        }
        Ok(self.journal.last_seq())
    }

    /// Is it time to hand the log on?
    fn flush_is_due(&self) -> bool {
        let age = self.now_ns.saturating_sub(self.flushed_ns);
        self.journal.is_long() || age >= self.interval_ns
    }

    /// The guest is about to wait here: until when it may. None: not yet.
    ///
    /// A backup must not wait for entries that exist already, so all of them are handed on. If the log is
    /// only recorded, that is done when it is old enough. The brake holds here too: inputs that do not end
    /// the guest's wait make entries although it never leaves.
    fn before_wait(&mut self, here: Position) -> Result<Option<u64>, RecordError> {
        if self.outlet.needs_log() || self.flush_is_due() {
            self.flush(here)?;
        }
        if self.outlet.wait() {
            // Time has passed since the first look here.
            return Ok(None);
        }
        Ok(Some(match self.journal.is_empty() {
            true => u64::MAX,
            false => self.flushed_ns + self.interval_ns,
        }))
    }

    /// Logs what has come for this position, the time first, and queues it to be applied.
    fn gather(&mut self, view: &View, wait_until: Option<u64>) -> Result<(), RecordError> {
        let looked = self.inputs.look(view, wait_until)?;
        if wait_until.is_some() {
            let idle = looked.now_ns.saturating_sub(self.now_ns);
            self.outlet.idled(Duration::from_nanos(idle));
        }
        self.now_ns = looked.now_ns;
        let comes = looked.frames > 0 || looked.console > 0 || view.entropy_wanted > 0;
        if !comes && !looked.clock {
            return Ok(());
        }
        // The time is for what comes with it: nothing may come.
        let (mark, ns) = (self.journal.mark(), looked.now_ns);
        self.log(view.moment, Event::Clock { ns });
        self.queue.push_back(Queued::Clock { ns });
        self.take_in(view, &looked)?;
        if self.queue.len() == 1 && !looked.clock {
            self.queue.clear();
            self.journal.back_to(mark);
        }
        Ok(())
    }

    /// Reads frames, console input and random bytes, each into its entry.
    fn take_in(&mut self, view: &View, looked: &Looked) -> Result<(), std::io::Error> {
        let at = (view.moment.at, view.moment.check);
        let (journal, inputs, queue) = (&mut self.journal, &mut self.inputs, &mut self.queue);
        let mut queued = |kind, taken: Option<Range<usize>>| {
            let came = taken.is_some();
            queue.extend(taken.map(|place| Queued::Bytes { kind, place }));
            came
        };
        for _ in 0..looked.frames {
            let (kind, room) = (BytesInput::Frame, MAX_FRAME + 1);
            if !queued(kind, journal.take_in(at, kind, room, |b| inputs.frame(b))?) {
                break;
            }
        }
        if looked.console > 0 {
            let (kind, room) = (BytesInput::Console, looked.console);
            queued(
                kind,
                journal.take_in(at, kind, room, |b| inputs.console(b))?,
            );
        }
        if view.entropy_wanted > 0 {
            let (kind, room) = (BytesInput::Entropy, view.entropy_wanted);
            let fill = |bytes: &mut [u8]| {
                inputs.entropy(bytes);
                Ok::<_, std::io::Error>(Some(bytes.len()))
            };
            queued(kind, journal.take_in(at, kind, room, fill)?);
        }
        Ok(())
    }

    /// What was queued, as the machine takes it.
    fn input(&self, queued: Queued) -> Input<'_> {
        let (kind, data) = match queued {
            Queued::Clock { ns } => return Input::Clock { ns },
            Queued::Bytes { kind, place } => (kind, self.journal.bytes(place)),
        };
        match kind {
            BytesInput::Frame => Input::Frame { data },
            BytesInput::Console => Input::Console { data },
            BytesInput::Entropy => Input::Entropy { data },
        }
    }

    /// Is the machine to be digested here?
    fn digest_is_due(&mut self) -> bool {
        let age = self.now_ns.saturating_sub(self.digested_ns);
        let due = self.recorded && age >= DIGEST_INTERVAL.as_nanos() as u64;
        if due {
            self.digested_ns = self.now_ns;
        }
        due
    }
}

impl<I: Inputs, O: Outlet> Source for Recorder<I, O> {
    type Error = RecordError;

    fn next(&mut self, view: &View) -> Result<Next<'_>, RecordError> {
        if let Some(event) = self.first.take() {
            self.log(view.moment, event);
        }
        loop {
            if let Some(queued) = self.queue.pop_front() {
                return Ok(Next::Apply(self.input(queued)));
            }
            if let Some(reason) = view.ended {
                return Ok(Next::Finish(reason));
            }
            if self.controls.stop.load(Ordering::Acquire) {
                return Ok(Next::Finish(EndReason::Stopped));
            }
            let park = &self.controls.park;
            if park.load(Ordering::Relaxed) && park.swap(false, Ordering::AcqRel) {
                let seq = self.flush(view.moment.at)?;
                self.outlet.park(seq);
            }
            if self.digest_is_due() {
                return Ok(Next::Digest);
            }
            let here = Some(view.moment.at);
            if view.wait.is_some() && self.controls.is_visited() {
                return Ok(Next::Capture);
            }
            if view.wait.is_none() && self.gathered == here {
                return Ok(Next::Leave);
            }
            // The first look at a position does not wait, even if the guest does.
            let wait_until = match self.gathered == here {
                true => self.before_wait(view.moment.at)?,
                false => None,
            };
            self.gathered = here;
            self.gather(view, wait_until)?;
        }
    }

    /// After a kick the log is handed on: the guest may compute for ever, and the backup must not wait.
    fn is_over(&mut self, kicked: bool) -> Result<bool, RecordError> {
        if !kicked {
            return Ok(false);
        }
        if self.log_waits {
            self.flush(self.left.next())?;
        }
        Ok(self.controls.cut_off.load(Ordering::Acquire))
    }

    fn wants_state(&self) -> bool {
        self.controls.is_visited()
    }

    fn take_state(&mut self, machine: &mut Machine) -> Result<(), RecordError> {
        let Some(visit) = self.controls.take_visit() else {
            return Ok(());
        };
        let horizon = match machine.left() {
            true => machine.position().next(),
            false => machine.position(),
        };
        let seq = self.flush(horizon)?;
        visit(
            machine,
            Visited {
                seq,
                outputs: self.outputs,
            },
        );
        Ok(())
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, RecordError> {
        let ns = self.inputs.now_ns();
        self.log(moment, Event::Time { ns });
        Ok(Some(ns))
    }
}

impl<I: Inputs, O: Outlet> Sink for Recorder<I, O> {
    type Error = RecordError;

    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), RecordError> {
        self.outputs += 1;
        let mark = OutputMark {
            number: self.outputs,
            port: output.port,
            len: output.data.len() as u32,
            // Without a consumer of the log it is not compared.
            hash: if self.recorded {
                output_hash(&output.data)
            } else {
                0
            },
        };
        let seq = self.log(moment, Event::Output(mark));
        // What a guest prints may be its last output before it computes for ever.
        self.output_waits |= self.outlet.needs_log() || output.port == OutputPort::Console;
        self.outlet.emit(self.outputs, seq, output)?;
        Ok(())
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), RecordError> {
        if let Some(vector) = vector {
            self.log(moment, Event::Interrupt { vector });
        }
        self.left = moment.at;
        if self.outlet.holds() {
            self.flush(moment.at.next())?;
            self.outlet.wait();
        } else if self.output_waits || self.flush_is_due() {
            self.flush(moment.at.next())?;
        } else if self.recorded && !self.log_waits {
            self.log_waits = true;
            self.controls.log_waits.store(true, Ordering::SeqCst);
            self.outlet.log_waits();
        }
        Ok(())
    }

    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), RecordError> {
        self.log(moment, Event::Digest(digest));
        Ok(())
    }

    fn end(&mut self, moment: Moment, end: End) -> Result<(), RecordError> {
        self.log(moment, Event::End(end));
        self.flush(moment.at)?;
        Ok(())
    }
}
