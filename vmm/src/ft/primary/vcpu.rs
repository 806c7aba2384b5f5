//! The primary's vCPU thread, and what it hands to the runtime.

use crate::backends::Live;
use crate::cpu::{Pulse, PulseWatch};
use crate::devices::Output;
use crate::ft::cuts::{CutPoint, Cuts};
use crate::ft::outputs::HeldOutputs;
use crate::ft::pace::Pace;
use crate::machine::Machine;
use crate::machine::drive::{Driven, drive};
use crate::replay::journal::{Chunk, Journal, JournalError};
use crate::replay::record::{Controls, Recorder};
use crate::replay::{Consumer, Outlet};
use ft_protocol::log::EndReason;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// News from the vCPU's thread. Bounded by the pace: a vCPU whose news is not looked at waits.
#[derive(Debug)]
pub enum News {
    /// The log grew.
    Chunk(Chunk),
    /// The guest emitted output `number`, which the log has as entry `seq`.
    Output {
        /// Its number.
        number: u64,
        /// Its entry.
        seq: u64,
    },
    /// The machine rests, as it was told to; its log goes to this entry.
    Parked {
        /// The entry.
        seq: u64,
    },
    /// The machine ended, or failed.
    Ended(Result<EndReason, String>),
}

/// What news weighs besides what it carries, bytes.
const NEWS_BYTES: usize = 64;

impl News {
    /// What it counts for the pace, bytes.
    pub fn weight(&self) -> usize {
        match self {
            News::Chunk(chunk) => NEWS_BYTES + chunk.frames.len(),
            // Its bytes are in the log too, as a frame that was answered or as a mark.
            News::Output { .. } | News::Parked { .. } | News::Ended(_) => NEWS_BYTES,
        }
    }
}

/// The runtime's hold on the vCPU's thread.
pub struct Vcpu {
    pub news: UnboundedReceiver<News>,
    pub held: HeldOutputs,
    pub pace: Arc<Pace>,
    pub controls: Arc<Controls>,
    pub journal: Arc<Mutex<Journal>>,
    pub watch: PulseWatch,
    pulse: Pulse,
    sender: UnboundedSender<News>,
    cuts: Cuts,
}

struct ToRuntime {
    news: UnboundedSender<News>,
    pace: Arc<Pace>,
    cuts: Cuts,
}

impl ToRuntime {
    fn hand(&self, news: News) {
        self.pace.handed(news.weight());
        // A runtime that is gone needs no news; the process is about to end.
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

/// Keeps every output until the runtime lets it go.
struct Gated {
    held: HeldOutputs,
    runtime: ToRuntime,
}

impl Outlet for Gated {
    fn emit(&mut self, number: u64, seq: u64, output: Output) -> io::Result<()> {
        self.held.push(number, output);
        self.runtime.hand(News::Output { number, seq });
        Ok(())
    }

    fn holds(&self) -> bool {
        self.runtime.pace.holds()
    }

    fn wait(&self) {
        self.runtime.pace.wait();
    }

    fn park(&self, seq: u64) {
        let tell = || self.runtime.hand(News::Parked { seq });
        self.runtime.pace.park(tell);
    }
}

impl Vcpu {
    /// A journal and queues for a machine that does not run yet.
    pub fn new(recording: Option<Box<dyn Consumer>>, cuts: Cuts) -> Vcpu {
        let (sender, news) = unbounded_channel();
        let pulse = cuts.pulse();
        let pace = Arc::new(Pace::new(pulse.clone()));
        let mut consumers: Vec<Box<dyn Consumer>> = vec![Box::new(ToRuntime {
            news: sender.clone(),
            pace: pace.clone(),
            cuts: cuts.clone(),
        })];
        consumers.extend(recording);
        Vcpu {
            news,
            held: HeldOutputs::default(),
            pace,
            controls: Arc::new(Controls::default()),
            journal: Arc::new(Mutex::new(Journal::new(1, consumers))),
            watch: PulseWatch::new(pulse.clone()),
            pulse,
            sender,
            cuts,
        }
    }

    /// Starts the thread.
    pub fn start(&mut self, mut machine: Machine, mut live: Live) -> io::Result<()> {
        machine.set_pulse(self.pulse.clone());
        live.set_pulse(self.pulse.clone());
        let runtime = |sender: &UnboundedSender<News>| ToRuntime {
            news: sender.clone(),
            pace: self.pace.clone(),
            cuts: self.cuts.clone(),
        };
        let gated = Gated {
            held: self.held.clone(),
            runtime: runtime(&self.sender),
        };
        let (journal, controls) = (self.journal.clone(), self.controls.clone());
        let ending = runtime(&self.sender);
        let thread = std::thread::Builder::new()
            .name("vcpu".into())
            .spawn(move || {
                let mut machine = machine;
                let mut recorder = Recorder::new(live, gated, journal, controls, 0);
                ending.hand(News::Ended(match drive(&mut machine, &mut recorder) {
                    Ok(Driven::Ended(reason)) => Ok(reason),
                    Ok(Driven::Stopped) => Err("the machine stopped unasked".into()),
                    Err(error) => Err(error.to_string()),
                }));
            })?;
        self.watch.attach(thread);
        Ok(())
    }
}
