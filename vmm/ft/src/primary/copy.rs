//! Copies the running machine to a joiner: memory in rounds while the guest runs, then the rest in a
//! short stop.
//!
//! A separate thread does the rounds: each sends the pages that were written since the round before.
//! When the rest can be copied within the permitted pause, or the rounds make no progress, the vCPU's
//! thread copies the rest at the machine's position, and runs on. Nothing is sent during the stop, so
//! the stop takes only as long as compressing and hashing the rest; for a guest that writes faster than
//! it is copied, that is as much as it writes in a round.

use super::vcpu::{News, ToRuntime};
use crate::errands::Errands;
use crate::state_digest;
use ft_protocol::transfer::Capture;
use ft_protocol::wire::Message;
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

/// The machine is stopped when copying the rest is estimated to take no longer than this.
pub const PAUSE_BUDGET: Duration = Duration::from_millis(2);
/// Most rounds; then the machine is stopped, however much is left.
pub const MAX_ROUNDS: u32 = 30;
/// A round that leaves more than this part of what the one before left, percent, makes no progress.
const SHRINKS_TO: usize = 90;
/// After this many rounds in a row without progress the machine is stopped.
const STUCK_ROUNDS: u32 = 3;
/// Niceness of the copying thread.
const NICE: i32 = 10;
/// Most pieces of the copy that wait for the runtime; then the thread waits.
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

/// A result of copying.
#[derive(Debug)]
pub enum FromCopy {
    /// A piece of the memory.
    Piece(Vec<u8>),
    /// A round begins.
    Round(CopyProgress),
}

/// The machine at the position where it was stopped.
#[derive(Debug)]
pub struct Captured {
    /// Pages that the rounds left, in chunks.
    pub pages: Vec<Vec<u8>>,
    /// The rest of the machine, which is sent last.
    pub state: Message,
    /// What the protocol needs.
    pub capture: Capture,
    /// How long the machine was stopped.
    pub pause: Duration,
    /// The progress of the copy, including this.
    pub progress: CopyProgress,
}

/// The runtime's handle of a copy. Dropping it ends the copy.
#[derive(Debug)]
pub struct Copy {
    id: u64,
    pieces: Receiver<FromCopy>,
    /// Pieces that were not sent yet, in order, and what follows the last one.
    unsent: VecDeque<Vec<u8>>,
    state: Option<Message>,
    stop: Arc<AtomicBool>,
    controls: Arc<Controls>,
}

impl Copy {
    /// The thread for copies. One that was ended may still be ending when the next begins, which waits.
    pub fn thread() -> io::Result<Errands> {
        Errands::start("copy", 1)
    }

    /// Begins a copy on its thread.
    pub fn start(
        id: u64,
        controls: Arc<Controls>,
        waker: Waker,
        runtime: ToRuntime,
        thread: &Errands,
    ) -> Copy {
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
        thread.run_next(move || copier.run());
        Copy {
            id,
            pieces,
            unsent: VecDeque::new(),
            state: None,
            stop,
            controls,
        }
    }

    /// What comes of it next. Cancel-safe.
    pub async fn next(copy: &mut Option<Copy>) -> FromCopy {
        if let Some(copy) = copy
            && let Some(piece) = copy.pieces.recv().await
        {
            return piece;
        }
        // Nothing is copied, or the thread has said everything.
        std::future::pending().await
    }

    /// Keeps a piece until it is to be sent; how many bytes it has.
    pub fn keep(&mut self, pages: Vec<u8>) -> u64 {
        let bytes = pages.len() as u64;
        self.unsent.push_back(pages);
        bytes
    }

    /// The first piece that was not sent yet.
    pub fn take_piece(&mut self) -> Option<Vec<u8>> {
        self.unsent.pop_front()
    }

    /// What follows the last piece.
    pub fn take_state(&mut self) -> Option<Message> {
        self.state.take()
    }

    /// Is `id` the number of this copy, and not of one that was given up?
    pub fn is(&self, id: u64) -> bool {
        self.id == id
    }

    /// The machine was captured; the pieces that come before the rest, of which the thread has made the first.
    pub fn take(&mut self, captured: &mut Captured) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        while let Ok(from) = self.pieces.try_recv() {
            if let FromCopy::Piece(pages) = from {
                pieces.push(pages);
            }
        }
        pieces.append(&mut captured.pages);
        self.state = Some(captured.state.clone());
        pieces
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.controls.stop_visits(&self.stop);
    }
}

/// The copying thread.
struct Copier {
    id: u64,
    pieces: Sender<FromCopy>,
    stop: Arc<AtomicBool>,
    controls: Arc<Controls>,
    waker: Waker,
    runtime: ToRuntime,
}

/// From what it copies.
struct Source {
    dirty: DirtyReader,
    /// Pages that were reported as written and are not copied yet.
    left: PageSet,
    sender: PageSender,
    progress: CopyProgress,
    /// Time that copying took, without sending.
    worked: Duration,
    worked_pages: u64,
}

impl Copier {
    fn run(self) {
        // On Linux this is the niceness of this thread alone. The guest and its clients come first.
        if let Err(e) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!("the copy runs with the guest's priority ({e})");
        }
        let Some(source) = self.begin() else { return };
        match self.rounds(source) {
            Ok(Some(source)) => self.capture(source),
            // The copy was given up.
            Ok(None) => {}
            Err(why) => self.runtime.hand(News::Captured(self.id, Err(why))),
        }
    }

    /// Visits the machine to begin. `None` if the copy was given up.
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
            // If the copy was given up meanwhile, nothing needs the answer.
            let _gone = sender.send(source);
        });
        self.controls.visit(&self.stop, visit);
        self.waker.wake();
        found.recv().ok()
    }

    /// Sends the pages that were written since, again and again, until the rest is small. `None` if the
    /// copy was given up.
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

    /// One round. Returns false if the copy was given up.
    fn round(&self, source: &mut Source, pages: &PageSet) -> bool {
        let pages: Vec<usize> = pages.iter().collect();
        for some in pages.chunks(CHUNK_PAGES) {
            let piece = FromCopy::Piece(source.encode(some));
            if self.stop.load(Ordering::Acquire) || self.pieces.blocking_send(piece).is_err() {
                return false;
            }
        }
        true
    }

    /// Copies the rest on the vCPU's thread, at the machine's position.
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
        // A guest that writes faster than it is copied leaves a lot. To copy it is work, so the thread
        // beats.
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
