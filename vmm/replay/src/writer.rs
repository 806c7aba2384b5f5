//! What waits between the journal and the disk, and the thread that writes it.
//!
//! A chunk comes whenever an output needs its log. The thread writes all chunks that have gathered in one
//! call.

use super::journal::{Chunk, Consumer, JournalError};
use ft_protocol::log::LogWriter;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Bytes of the log that may wait for the disk.
pub const WRITE_BACKLOG_BYTES: usize = 64 << 20;
/// Time between two writes: all chunks that come in between are written together.
pub const WRITE_INTERVAL: Duration = Duration::from_millis(20);
/// More than this is written at once, bytes.
const WRITE_BYTES: usize = 256 << 10;
/// Chunks written by one call, at most: no more than the host takes.
const WRITE_CHUNKS: usize = 256;
/// Room for chunks from the start.
const ROOM: usize = 1024;

/// What happens when the disk fails or does not keep up with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfSlow {
    /// The machine waits, and fails with the disk: the recording is what it runs for.
    Wait,
    /// The recording ends there, and the machine runs on: a protected VM outlives its disk.
    GiveUp,
}

/// What waits for the disk; a handle for both of its ends.
#[derive(Clone, Debug, Default)]
pub struct LogQueue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    filled: Condvar,
    /// Wakes a consumer that waits for room.
    fell: Condvar,
    failed: OnceLock<String>,
    /// The recording may end before its machine.
    gives_up: AtomicBool,
}

#[derive(Debug)]
struct State {
    chunks: Vec<Chunk>,
    /// Bytes of those, and of what is being written.
    bytes: usize,
    /// The writer sleeps until something comes.
    sleeps: bool,
    /// A consumer waits for room.
    full: bool,
    closed: bool,
}

impl Default for State {
    fn default() -> State {
        State {
            chunks: Vec::with_capacity(ROOM),
            bytes: 0,
            sleeps: false,
            full: false,
            closed: false,
        }
    }
}

impl LogQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.expect("nobody panics with this lock")
    }

    /// Nothing more is taken, and the writer ends once it has written what is there.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.filled.notify_all();
        self.shared.fell.notify_all();
    }

    /// Why nothing is written any more, if that is so.
    pub fn failed(&self) -> Option<&str> {
        self.shared.failed.get().map(String::as_str)
    }

    /// Does a consumer wait for room?
    pub fn is_full(&self) -> bool {
        self.lock().full
    }

    pub(super) fn fail(&self, message: String) {
        let held = self.lock();
        let why = self.shared.failed.get_or_init(|| message);
        self.shared.fell.notify_all();
        drop(held);
        // At once: the guest may log nothing more for a long time.
        if self.shared.gives_up.load(Ordering::Acquire) {
            report_end(why);
        }
    }

    pub(super) fn consumer(&self, if_slow: IfSlow) -> Box<dyn Consumer> {
        if if_slow == IfSlow::GiveUp {
            self.shared.gives_up.store(true, Ordering::Release);
        }
        Box::new(LogDirConsumer {
            queue: Some(self.clone()),
            if_slow,
        })
    }

    /// Takes a chunk. Returns false if there is no room and `wait` is not set, or if writing has failed.
    fn push(&self, chunk: &Chunk, wait: bool) -> bool {
        let mut state = self.lock();
        while state.bytes >= WRITE_BACKLOG_BYTES && self.failed().is_none() && !state.closed {
            if !wait {
                return false;
            }
            state.full = true;
            let fell = self.shared.fell.wait(state);
            state = fell.expect("nobody panics with this lock");
            state.full = false;
        }
        if state.closed {
            return true;
        }
        let before = state.bytes;
        state.bytes += chunk.frames.len();
        state.chunks.push(chunk.clone());
        let much = before < WRITE_BYTES && state.bytes >= WRITE_BYTES;
        let wake = std::mem::take(&mut state.sleeps) || much;
        drop(state);
        if wake {
            self.shared.filled.notify_one();
        }
        self.failed().is_none()
    }

    /// Waits until there is something to write, and takes it; nothing at the end. Waits until `earliest`,
    /// unless more than [`WRITE_BYTES`] come.
    fn take(&self, chunks: &mut Vec<Chunk>, earliest: Instant) {
        let mut state = self.lock();
        while state.chunks.is_empty() && !state.closed {
            state.sleeps = true;
            let filled = self.shared.filled.wait(state);
            state = filled.expect("nobody panics with this lock");
        }
        while state.bytes < WRITE_BYTES && !state.closed {
            let left = earliest.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let filled = self.shared.filled.wait_timeout(state, left);
            (state, _) = filled.expect("nobody panics with this lock");
        }
        state.sleeps = false;
        std::mem::swap(&mut state.chunks, chunks);
    }

    /// Writes what comes until the queue is closed. On the writer's thread.
    pub(super) fn write_to<W: Write>(&self, mut log: LogWriter<W>) -> io::Result<()> {
        let mut chunks = Vec::with_capacity(ROOM);
        let mut earliest = Instant::now();
        loop {
            self.take(&mut chunks, earliest);
            earliest = Instant::now() + WRITE_INTERVAL;
            if chunks.is_empty() {
                return log.flush();
            }
            for some in chunks.chunks(WRITE_CHUNKS) {
                let pieces: Vec<(&[u8], u64)> = some
                    .iter()
                    .map(|chunk| (&chunk.frames[..], chunk.last_seq))
                    .collect();
                log.append_pieces(&pieces)?;
                let bytes: usize = pieces.iter().map(|(frames, _)| frames.len()).sum();
                self.lock().bytes -= bytes;
                self.shared.fell.notify_all();
            }
            chunks.clear();
        }
    }
}

fn report_end(why: &str) {
    tracing::error!("recording ends here, the VM runs on: {why}");
}

struct LogDirConsumer {
    /// None once it was given up.
    queue: Option<LogQueue>,
    if_slow: IfSlow,
}

impl Consumer for LogDirConsumer {
    fn take(&mut self, chunk: &Chunk) -> Result<(), JournalError> {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        if queue.push(chunk, self.if_slow == IfSlow::Wait) {
            return Ok(());
        }
        let (slow, failed) = ("the disk does not keep up with the log", queue.failed());
        match self.if_slow {
            IfSlow::Wait => Err(JournalError(failed.unwrap_or(slow).to_string())),
            IfSlow::GiveUp => {
                // The writer has reported its own failure.
                if failed.is_none() {
                    report_end(slow);
                }
                self.queue = None;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Journal;
    use ft_protocol::log::file::read_all;
    use ft_protocol::log::{Event, GuestImage, Header, HostPrint, MachineConfig, Position, Tail};
    use std::thread::JoinHandle;

    /// A disk that takes a few bytes at a time.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<Vec<u8>>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let some = &bytes[..bytes.len().min(1000)];
            self.0.lock().unwrap().extend_from_slice(some);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(queue: &LogQueue, disk: &Disk) -> JoinHandle<()> {
        let header = Header {
            vm: "test".into(),
            machine: MachineConfig::new(16),
            guest: GuestImage {
                name: "none".into(),
                hash: 0,
            },
            host: HostPrint {
                exits: 0,
                cpu: String::new(),
            },
            started_ns: 0,
        };
        let log = LogWriter::create(disk.clone(), &header).unwrap();
        let queue = queue.clone();
        std::thread::spawn(move || queue.write_to(log).unwrap())
    }

    #[test]
    fn all_that_was_taken_is_written_in_order_before_the_end() {
        let (queue, disk) = (LogQueue::default(), Disk::default());
        let thread = writer(&queue, &disk);
        let mut journal = Journal::new(1, vec![queue.consumer(IfSlow::Wait)]);
        // More than is written by one call.
        let count = 3 * WRITE_CHUNKS as u64;
        for ns in 1..=count {
            journal.append(Position::exit(ns), None, Event::Clock { ns });
            journal.flush().unwrap();
        }
        queue.close();
        thread.join().unwrap();
        let (_, entries, tail) = read_all(&disk.0.lock().unwrap()[..]).unwrap();
        assert_eq!(tail, Tail::Open);
        let written = entries.iter().map(|entry| entry.at.exit);
        assert!(written.eq(1..=count));
        // What comes after the end is dropped.
        journal.append(Position::exit(count + 1), None, Event::Progress);
        journal.flush().unwrap();
    }

    #[test]
    fn who_waits_for_room_gets_it_and_who_does_not_gives_up() {
        let queue = LogQueue::default();
        let full = Chunk {
            frames: Arc::new(vec![0; WRITE_BACKLOG_BYTES]),
            last_seq: 0,
            total_bytes: 0,
        };
        assert!(queue.push(&full, false), "there was room");
        assert!(!queue.push(&full, false));
        queue.lock().chunks.clear();
        let waiting = queue.clone();
        let waits = std::thread::spawn(move || waiting.push(&full, true));
        while !queue.is_full() {
            std::thread::yield_now();
        }
        assert!(!waits.is_finished());
        queue.lock().bytes = 0;
        queue.shared.fell.notify_all();
        assert!(waits.join().unwrap());
    }
}
