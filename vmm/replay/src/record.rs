//! The recording edge: inputs come from live backends, outputs go to them, and everything that a replay
//! needs goes into the journal. A machine that is not recorded uses this edge too, with a journal
//! without consumers.

use super::journal::{Journal, JournalError};
use ft_protocol::log::{End, EndReason, Event, MachineDigest, OutputMark, Position};
use lockstep_devices::Output;
use lockstep_machine::world::{Inputs, Outlet};
use lockstep_machine::{Input, Machine, Moment, Next, Sink, Source, View, output_hash};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Time between two digests of the whole machine while it is recorded.
pub const DIGEST_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The vCPU's thread will add no entry before this position.
    horizon: AtomicU64,
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

/// The recording edge.
pub struct Recorder<I, O> {
    inputs: I,
    outlet: O,
    journal: Arc<Mutex<Journal>>,
    controls: Arc<Controls>,
    queue: VecDeque<Input>,
    /// The position at which inputs were gathered last: once per position is enough while the guest
    /// runs.
    gathered: Option<Position>,
    outputs: u64,
    /// An event to log at the first position.
    first: Option<Event>,
    /// The journal has an output that was not handed on yet.
    output_waits: bool,
    digested: Instant,
    /// The journal has a consumer.
    recorded: bool,
}

impl<I: Inputs, O: Outlet> Recorder<I, O> {
    /// An edge that adds to `journal`; `outputs` is the number of the last output so far.
    pub fn new(
        inputs: I,
        outlet: O,
        journal: Arc<Mutex<Journal>>,
        controls: Arc<Controls>,
        outputs: u64,
    ) -> Recorder<I, O> {
        let recorded = !lock(&journal).is_idle();
        Recorder {
            recorded,
            inputs,
            outlet,
            journal,
            controls,
            queue: VecDeque::new(),
            gathered: None,
            outputs,
            first: None,
            output_waits: false,
            digested: Instant::now(),
        }
    }

    /// The same, for a machine between two positions: `event` is logged at the next one.
    pub fn with_first(mut self, event: Option<Event>) -> Recorder<I, O> {
        self.first = event;
        self
    }

    /// Hands on the rest of the log and drops its consumers.
    pub fn close(&mut self) -> Result<(), JournalError> {
        let mut journal = self.journal();
        let flushed = journal.flush();
        journal.close();
        flushed
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    fn log(&self, moment: Moment, event: Event) -> u64 {
        self.journal().append(moment.at, Some(moment.check), event)
    }

    /// Hands the log on, with a mark that no entry before `horizon` will follow. Returns the last
    /// sequence number.
    fn flush(&mut self, horizon: Position) -> Result<u64, JournalError> {
        self.output_waits = false;
        let mut journal = self.journal();
        journal.progress(horizon);
        journal.flush()?;
        Ok(journal.last_seq())
    }
}

/// A poisoned journal means that a thread panicked while it wrote the log: the log cannot go on.
fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().expect("the journal's writer panicked")
}

/// Adds the progress mark that a vCPU cannot add while it computes for long, and hands the log on. The
/// primary's runtime calls this every millisecond.
pub fn mark_progress(journal: &Mutex<Journal>, controls: &Controls) -> Result<(), JournalError> {
    // The thread that holds the lock is about to hand the log on.
    let Ok(mut journal) = journal.try_lock() else {
        return Ok(());
    };
    if journal.due() {
        journal.progress(Position::exit(controls.horizon.load(Ordering::Acquire)));
        journal.flush()?;
    }
    Ok(())
}

fn event(input: &Input) -> Event {
    match input {
        Input::Clock { ns } => Event::Clock { ns: *ns },
        Input::Frame { data } => Event::Frame { data: data.clone() },
        Input::Console { data } => Event::ConsoleInput { data: data.clone() },
        Input::Entropy { data } => Event::Entropy { data: data.clone() },
    }
}

impl<I: Inputs, O: Outlet> Source for Recorder<I, O> {
    type Error = RecordError;

    fn next(&mut self, view: &View) -> Result<Next, RecordError> {
        if let Some(event) = self.first.take() {
            self.log(view.moment, event);
        }
        loop {
            if let Some(input) = self.queue.pop_front() {
                self.log(view.moment, event(&input));
                return Ok(Next::Apply(input));
            }
            if let Some(reason) = view.ended {
                return Ok(Next::Finish(reason));
            }
            if self.controls.stop.load(Ordering::Acquire) {
                return Ok(Next::Finish(EndReason::Stopped));
            }
            if self.controls.park.swap(false, Ordering::AcqRel) {
                let seq = self.flush(view.moment.at)?;
                self.outlet.park(seq);
            }
            if self.recorded && self.digested.elapsed() >= DIGEST_INTERVAL {
                self.digested = Instant::now();
                return Ok(Next::Digest);
            }
            let here = Some(view.moment.at);
            if view.wait.is_some() && self.controls.is_visited() {
                return Ok(Next::Capture);
            }
            if view.wait.is_none() && self.gathered == here {
                return Ok(Next::Leave);
            }
            if view.wait.is_some() && self.gathered == here {
                // The guest is about to wait. The log is handed on first, as the backup must not wait
                // for entries that exist already. The brake holds here too: inputs that do not end the
                // guest's wait make entries although it never leaves.
                self.flush(view.moment.at)?;
                self.outlet.wait();
            }
            // The first look at a position never waits, even if the guest does.
            let may_wait = self.gathered == here;
            self.gathered = here;
            self.inputs.gather(view, may_wait, &mut self.queue)?;
        }
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

    fn output(&mut self, moment: Moment, output: Output) -> Result<(), RecordError> {
        self.outputs += 1;
        let mark = OutputMark {
            number: self.outputs,
            port: output.port,
            len: output.data.len() as u32,
            hash: output_hash(&output.data),
        };
        let seq = self.log(moment, Event::Output(mark));
        self.output_waits = true;
        self.outlet.emit(self.outputs, seq, output)?;
        Ok(())
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), RecordError> {
        if let Some(vector) = vector {
            self.log(moment, Event::Interrupt { vector });
        }
        let next = moment.at.next();
        self.controls.horizon.store(next.exit, Ordering::Release);
        if self.outlet.holds() {
            self.flush(next)?;
            self.outlet.wait();
        } else if self.output_waits || self.journal().due() {
            self.flush(next)?;
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
