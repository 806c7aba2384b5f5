//! Copying the machine that runs to whoever joins: memory in rounds while the guest runs, then a short
//! stop for the rest.
//!
//! A thread of its own does the rounds: each sends the pages that were written since the one before.
//! When what is left can be copied within the pause that is allowed, or the rounds do not get any
//! further, the vCPU's thread copies the rest where the machine stands, and runs on. Nothing is sent
//! during the stop, so it takes no longer than packing and hashing what is left: for a guest that writes
//! faster than it is copied, that is what it writes in a round.

use super::vcpu::{News, ToRuntime};
use crate::state_digest;
use ft_protocol::transfer::Capture;
use ft_protocol::wire::{COPY_WINDOW_BYTES, Message};
use lockstep_backends::Waker;
use lockstep_events::CopyProgress;
use lockstep_machine::{Machine, MachineError};
use lockstep_memory::pages::CHUNK_PAGES;
use lockstep_memory::ram::PAGE;
use lockstep_memory::{PageSender, PageSet};
use lockstep_replay::record::{Controls, Visited};
use lockstep_vcpu::{CpuError, DirtyReader};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The machine is stopped once copying the rest takes no longer than this, as far as can be told.
pub const PAUSE_BUDGET: Duration = Duration::from_millis(2);
/// Rounds, at most: then it is stopped however much is left.
pub const MAX_ROUNDS: u32 = 30;
/// A round that leaves more than this share of the one before, percent, gets no further.
const SHRINKS_TO: usize = 90;
/// Rounds in a row that get no further before the machine is stopped.
const STUCK_ROUNDS: u32 = 3;
/// Niceness of the thread that copies.
const NICE: i32 = 10;
/// Pieces of the copy that wait for the runtime; then the thread waits.
const WAITING_PIECES: usize = 4;

/// Why a machine cannot be copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// Nobody knows what it has written.
    #[error(transparent)]
    Dirty(#[from] CpuError),
    /// It cannot be looked at.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// What comes of copying.
#[derive(Debug)]
pub enum FromCopy {
    /// To be sent.
    Send(Message),
    /// A round begins.
    Round(CopyProgress),
}

/// The machine as it was where it was stopped.
#[derive(Debug)]
pub struct Captured {
    /// Pages that the rounds left, in pieces.
    pub pages: Vec<Vec<u8>>,
    /// The rest, which is sent last.
    pub state: Message,
    /// For the protocol.
    pub capture: Capture,
    /// How long the machine was stopped.
    pub pause: Duration,
    /// How far the copy is with that.
    pub progress: CopyProgress,
}

/// The runtime's hold on a copy. Dropping it ends the copy.
#[derive(Debug)]
pub struct Copy {
    id: u64,
    pieces: Receiver<FromCopy>,
    /// What must be sent in this order.
    outbox: VecDeque<Message>,
    sent: u64,
    stop: Arc<AtomicBool>,
    controls: Arc<Controls>,
}

impl Copy {
    /// Begins a copy.
    pub fn start(
        id: u64,
        controls: Arc<Controls>,
        waker: Waker,
        runtime: ToRuntime,
    ) -> io::Result<Copy> {
        let (sender, pieces) = channel(WAITING_PIECES);
        let stop = Arc::new(AtomicBool::new(false));
        let copier = Copier {
            id,
            pieces: sender,
            stop: stop.clone(),
            controls: controls.clone(),
            waker,
            runtime,
        };
        std::thread::Builder::new()
            .name("copy".into())
            .spawn(move || copier.run())?;
        Ok(Copy {
            id,
            pieces,
            outbox: VecDeque::new(),
            sent: 0,
            stop,
            controls,
        })
    }

    /// What to do next, while no more than the window is under way. Cancel-safe.
    pub async fn next(copy: &mut Option<Copy>, loaded: u64) -> FromCopy {
        let Some(copy) = copy else {
            return std::future::pending().await;
        };
        let room = copy.sent < loaded.saturating_add(COPY_WINDOW_BYTES);
        let memory = matches!(copy.outbox.front(), Some(Message::Memory { .. }));
        if let Some(message) = copy.outbox.pop_front_if(|_| room || !memory) {
            return FromCopy::Send(message);
        }
        if room
            && copy.outbox.is_empty()
            && let Some(piece) = copy.pieces.recv().await
        {
            return piece;
        }
        // No room, or a thread that has said everything.
        std::future::pending().await
    }

    /// Whether something waits that has to be sent first.
    pub fn waits(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends this after what waits.
    pub fn push(&mut self, message: Message) {
        self.outbox.push_back(message);
    }

    /// What still waits, in order.
    pub fn into_outbox(mut self) -> Vec<Message> {
        std::mem::take(&mut self.outbox).into()
    }

    /// This is sent; how much of the memory is with that, bytes.
    pub fn note_sent(&mut self, message: &Message) -> u64 {
        if let Message::Memory { pages } = message {
            self.sent += pages.len() as u64;
        }
        self.sent
    }

    /// Whether this is of this copy, and not of one that was given up.
    pub fn is(&self, id: u64) -> bool {
        self.id == id
    }

    /// The machine was captured: the rest follows what waits.
    pub fn take(&mut self, captured: &mut Captured) {
        // The thread has handed over everything else before.
        while let Ok(piece) = self.pieces.try_recv() {
            if let FromCopy::Send(message) = piece {
                self.outbox.push_back(message);
            }
        }
        let pages = captured.pages.drain(..);
        self.outbox
            .extend(pages.map(|pages| Message::Memory { pages }));
        self.outbox.push_back(captured.state.clone());
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.controls.stop_visits(&self.stop);
    }
}

/// The thread.
struct Copier {
    id: u64,
    pieces: Sender<FromCopy>,
    stop: Arc<AtomicBool>,
    controls: Arc<Controls>,
    waker: Waker,
    runtime: ToRuntime,
}

/// What it copies from.
struct Source {
    dirty: DirtyReader,
    /// Taken and not copied yet.
    left: PageSet,
    sender: PageSender,
    progress: CopyProgress,
    /// Time that copying took, without sending.
    worked: Duration,
    worked_pages: u64,
}

impl Copier {
    fn run(self) {
        // On Linux this is the thread's own. The guest and its clients come first.
        if let Err(e) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!("the copy runs with the guest's priority ({e})");
        }
        let Some(source) = self.begin() else { return };
        match self.rounds(source) {
            Ok(Some(source)) => self.capture(source),
            // Nobody is interested any more.
            Ok(None) => {}
            Err(why) => self.runtime.hand(News::Captured(self.id, Err(why))),
        }
    }

    /// Goes to see the machine. None: the copy was given up.
    fn begin(&self) -> Option<Source> {
        let (sender, found) = std::sync::mpsc::channel();
        let visit = Box::new(move |machine: &mut Machine, _| {
            let source = Source {
                dirty: machine.dirty_pages(),
                left: PageSet::empty(machine.ram().pages()),
                sender: PageSender::new(machine.ram()),
                progress: CopyProgress::default(),
                worked: Duration::ZERO,
                worked_pages: 0,
            };
            // A copy that was given up meanwhile needs none.
            let _gone = sender.send(source);
        });
        self.controls.visit(&self.stop, visit);
        self.waker.wake();
        found.recv().ok()
    }

    /// Sends what was written since, again and again, until the rest is small. None: given up.
    fn rounds(&self, mut source: Source) -> Result<Option<Source>, CopyError> {
        let mut stuck = 0;
        let mut before = usize::MAX;
        let mut began = Instant::now();
        let mut left = source.take()?;
        loop {
            source.progress.round += 1;
            source.progress.pages = left.len() as u64;
            if self
                .pieces
                .blocking_send(FromCopy::Round(source.progress))
                .is_err()
            {
                return Ok(None);
            }
            if !self.round(&mut source, &left) {
                return Ok(None);
            }
            let took = began.elapsed().as_secs_f64().max(1e-6);
            began = Instant::now();
            let sent = left.len();
            left = source.take()?;
            source.note_round(took, sent, left.len());
            stuck = match left.len() * 100 > before.saturating_mul(SHRINKS_TO) {
                true => stuck + 1,
                false => 0,
            };
            before = left.len();
            let fits = source.progress.estimated_pause_ms <= PAUSE_BUDGET.as_secs_f64() * 1e3;
            if fits || stuck >= STUCK_ROUNDS || source.progress.round >= MAX_ROUNDS {
                source.left = left;
                return Ok(Some(source));
            }
        }
    }

    /// One round; false: given up.
    fn round(&self, source: &mut Source, pages: &PageSet) -> bool {
        let pages: Vec<usize> = pages.iter().collect();
        for some in pages.chunks(CHUNK_PAGES) {
            let pages = source.encode(some);
            let piece = FromCopy::Send(Message::Memory { pages });
            if self.stop.load(Ordering::Acquire) || self.pieces.blocking_send(piece).is_err() {
                return false;
            }
        }
        true
    }

    /// Copies the rest on the vCPU's thread, where the machine stands.
    fn capture(self, source: Source) {
        let (id, runtime) = (self.id, self.runtime);
        let visit = Box::new(move |machine: &mut Machine, at| {
            let captured = source.capture(machine, at);
            runtime.hand(News::Captured(id, captured.map(Box::new)));
        });
        self.controls.visit(&self.stop, visit);
        self.waker.wake();
    }
}

impl Source {
    fn take(&self) -> Result<PageSet, CpuError> {
        self.dirty.take()
    }

    fn encode(&mut self, pages: &[usize]) -> Vec<u8> {
        let began = Instant::now();
        let piece = self.sender.chunk(pages);
        self.worked += began.elapsed();
        self.worked_pages += pages.len() as u64;
        let stats = self.sender.stats();
        self.progress.pages_sent = stats.pages;
        self.progress.zero_pages = stats.zero_pages;
        self.progress.bytes_sent = stats.chunk_bytes;
        piece
    }

    fn note_round(&mut self, seconds: f64, sent: usize, left: usize) {
        let mib = |pages: usize| (pages * PAGE) as f64 / f64::from(1 << 20);
        let page_ms = self.worked.as_secs_f64() * 1e3 / self.worked_pages.max(1) as f64;
        self.progress.rate_mib_s = mib(sent) / seconds;
        self.progress.dirty_mib_s = mib(left) / seconds;
        self.progress.estimated_pause_ms = left as f64 * page_ms;
    }

    fn capture(mut self, machine: &mut Machine, at: Visited) -> Result<Captured, CopyError> {
        let began = Instant::now();
        let mut left = self.take()?;
        left.merge(&self.left);
        let left: Vec<usize> = left.iter().collect();
        // A guest that writes faster than it is copied leaves a lot: this is work, and no thread that hangs.
        let pulse = machine.pulse();
        let encode = |some| {
            pulse.beat();
            self.encode(some)
        };
        let pages = left.chunks(CHUNK_PAGES).map(encode).collect();
        let state = machine.save()?;
        let memory = machine.memory_digest()?;
        Ok(Captured {
            pages,
            state: Message::State {
                seq: at.seq,
                at: machine.position(),
                outputs: at.outputs,
                state: state.encode(),
            },
            capture: Capture {
                seq: at.seq,
                outputs: at.outputs,
                digest: state_digest(&state.parts(memory)),
            },
            pause: began.elapsed(),
            progress: self.progress,
        })
    }
}
