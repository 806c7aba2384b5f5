//! The vCPU's thread of a machine with live inputs, and what it hands to the runtime.

use super::copy::{Captured, CopyError};
use crate::MachineFailed;
use crate::cuts::{CutPoint, Cuts};
use crate::outputs::{AtGate, Batch};
use crate::pace::Pace;
use crate::primary::marks::Marks;
use ft_protocol::log::{EndReason, Event};
use lockstep_backends::Live;
use lockstep_devices::Output;
use lockstep_machine::Machine;
use lockstep_machine::drive::{Driven, drive};
use lockstep_machine::world::Outlet;
use lockstep_pulse::{Pulse, PulseWatch};
use lockstep_replay::journal::{Chunk, Journal, JournalError};
use lockstep_replay::record::{Controls, Recorder};
use lockstep_replay::{Consumer, Recycled};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Messages from the vCPU's thread. The pace limits them: a vCPU whose messages are not read waits.
#[derive(Debug)]
pub enum News {
    /// A chunk was added to the log.
    Chunk(Chunk),
    /// The guest emitted these; the log that leads to them comes next.
    Outputs(Arc<Batch>),
    /// The machine rests, as it was asked to. This is the last entry of its log.
    Parked {
        /// The entry.
        seq: u64,
    },
    /// The machine was stopped and copied for the copy with this number, or could not be copied.
    Captured(u64, Result<Box<Captured>, CopyError>),
    /// The machine ended, with this last entry of its log, or failed.
    Ended(Result<(EndReason, u64), MachineFailed>),
}

/// Buffers for outputs on their way that are there from the start.
const BATCHES: usize = 16;

/// How much a message counts besides its content, bytes.
const NEWS_BYTES: usize = 64;

impl News {
    /// How much it counts for the pace, bytes.
    pub fn weight(&self) -> usize {
        match self {
            News::Chunk(chunk) => NEWS_BYTES + chunk.frames.len(),
            // It also waits with the runtime, until the gate counts it.
            News::Outputs(batch) => {
                let (outputs, bytes) = batch.size();
                NEWS_BYTES * outputs + bytes
            }
            // A copy comes once, and has its own limit.
            News::Parked { .. } | News::Captured(..) | News::Ended(_) => NEWS_BYTES,
        }
    }
}

/// The runtime's handle of the vCPU's thread.
pub struct Vcpu {
    /// The thread's messages.
    pub news: UnboundedReceiver<News>,
    /// Outputs that were not released.
    pub held: AtGate,
    /// The thread's brake.
    pub pace: Arc<Pace>,
    /// Requests to the machine.
    pub controls: Arc<Controls>,
    /// When the log has to be handed on while the guest runs.
    pub marks: Marks,
    /// Watches whether the thread answers.
    pub watch: PulseWatch,
    /// The log, until the thread has it.
    journal: Option<Journal>,
    pulse: Pulse,
    to_runtime: ToRuntime,
}

/// By this the vCPU's thread hands over its messages.
#[derive(Clone)]
pub struct ToRuntime {
    news: UnboundedSender<News>,
    pace: Arc<Pace>,
    cuts: Cuts,
}

impl ToRuntime {
    /// Hands over a message.
    pub fn hand(&self, news: News) {
        self.pace.handed(news.weight());
        // If the runtime is gone, the process is about to end.
        let _gone = self.news.send(news);
    }
}

impl Consumer for ToRuntime {
    fn take(&mut self, chunk: &Chunk) -> Result<(), JournalError> {
        self.cuts.pass(CutPoint::EntryLogged);
        self.hand(News::Chunk(chunk.clone()));
        Ok(())
    }
}

/// Keeps every output until the runtime releases it.
struct Gated {
    batch: Batch,
    batches: Recycled<Batch>,
    runtime: ToRuntime,
    marks: Marks,
}

impl Outlet for Gated {
    fn emit(&mut self, number: u64, seq: u64, output: &Output) -> io::Result<()> {
        self.batch.push(number, seq, output);
        Ok(())
    }

    fn needs_log(&self) -> bool {
        true
    }

    fn hand_on(&mut self) {
        if !self.batch.is_empty() {
            let batch = self.batches.share(&mut self.batch, Batch::default);
            self.batch.clear();
            self.runtime.hand(News::Outputs(batch));
        }
    }

    fn log_waits(&self) {
        self.marks.wake();
    }

    fn holds(&self) -> bool {
        self.runtime.pace.holds()
    }

    fn idled(&self, time: Duration) {
        self.runtime.pace.idled(time);
    }

    fn wait(&self) -> bool {
        self.runtime.pace.wait()
    }

    fn park(&self, seq: u64) {
        let tell = || self.runtime.hand(News::Parked { seq });
        self.runtime.pace.park(tell);
    }
}

/// The place of a machine with live inputs: everything that its thread shares with the runtime.
pub struct Seat {
    gated: Gated,
    journal: Journal,
    controls: Arc<Controls>,
    pulse: Pulse,
    outputs: u64,
}

impl Seat {
    /// The log under construction.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Runs the machine to its end on this thread, and reports the end. `first` is logged at the first
    /// position that it reaches.
    pub fn drive(self, mut machine: Machine, mut live: Live, first: Option<Event>) {
        machine.set_pulse(self.pulse.clone());
        live.set_pulse(self.pulse.clone());
        let runtime = self.gated.runtime.clone();
        let mut recorder =
            Recorder::new(live, self.gated, self.journal, self.controls, self.outputs)
                .with_first(first);
        let ended = match drive(&mut machine, &mut recorder) {
            Ok(Driven::Ended(reason)) => Ok((reason, recorder.last_seq())),
            Ok(Driven::Stopped) => Err(MachineFailed::Unasked),
            Err(error) => Err(error.into()),
        };
        runtime.hand(News::Ended(ended));
        // It takes time to give a large memory back, and nothing waits for this thread any more.
        let _rest = self.pulse.rest();
        drop(machine);
    }
}

impl Vcpu {
    /// A journal that goes on after entry `seq`, and queues, for a machine that does not run yet, or
    /// that follows a log until now.
    pub fn new(
        seq: u64,
        recording: Option<Box<dyn Consumer>>,
        controls: Arc<Controls>,
        watch: PulseWatch,
        cuts: Cuts,
    ) -> Vcpu {
        let (sender, news) = unbounded_channel();
        let pulse = watch.pulse();
        let pace = Arc::new(Pace::new(pulse.clone()));
        let to_runtime = ToRuntime {
            news: sender,
            pace: pace.clone(),
            cuts,
        };
        let mut consumers: Vec<Box<dyn Consumer>> = vec![Box::new(to_runtime.clone())];
        consumers.extend(recording);
        Vcpu {
            news,
            held: AtGate::default(),
            pace,
            controls,
            marks: Marks::default(),
            journal: Some(Journal::new(seq + 1, consumers)),
            watch,
            pulse,
            to_runtime,
        }
    }

    /// By this the vCPU's thread hands over its messages.
    pub fn to_runtime(&self) -> ToRuntime {
        self.to_runtime.clone()
    }

    /// The place of a machine that has emitted `outputs` outputs. There is only one.
    pub fn seat(&mut self, outputs: u64) -> Seat {
        Seat {
            gated: Gated {
                batch: Batch::default(),
                batches: Recycled::new(BATCHES, Batch::default),
                runtime: self.to_runtime(),
                marks: self.marks.clone(),
            },
            journal: self.journal.take().expect("a machine is seated once"),
            controls: self.controls.clone(),
            pulse: self.pulse.clone(),
            outputs,
        }
    }

    /// Starts the thread.
    pub fn start(&mut self, machine: Machine, live: Live) -> io::Result<()> {
        let seat = self.seat(0);
        let thread = std::thread::Builder::new()
            .name("vcpu".into())
            .spawn(move || seat.drive(machine, live, None))?;
        self.watch.attach(thread);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::MAX_UNSEEN_BYTES;
    use ft_protocol::log::OutputPort;

    #[test]
    fn a_guest_with_large_outputs_waits_for_a_runtime_that_does_not_look() {
        const LARGE: usize = 64 << 10;
        let watch = PulseWatch::new(Pulse::default());
        let mut vcpu = Vcpu::new(0, None, Arc::default(), watch, Cuts::default());
        let mut gated = vcpu.seat(0).gated;
        let mut number = 0;
        while !gated.holds() {
            number += 1;
            let output = Output {
                port: OutputPort::Net,
                data: vec![0; LARGE],
            };
            gated.emit(number, number, &output).expect("it is kept");
            gated.hand_on();
            assert!(number as usize * LARGE <= MAX_UNSEEN_BYTES, "{number}");
        }
        while let Ok(news) = vcpu.news.try_recv() {
            vcpu.pace.seen(news.weight());
        }
        assert!(!gated.holds(), "the runtime has looked");
    }
}
