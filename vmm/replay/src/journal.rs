//! The log under construction: entries are encoded once and handed on in chunks.

use ft_protocol::log::codec::encode_entry;
use ft_protocol::log::{Check, Entry, Event, Position};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// A chunk is handed on at a position when it is this old, even if nothing waits for it: the backup may
/// not run beyond the last entry or progress mark that it has.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(1);
/// A chunk is handed on when it is this long, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;

/// The log cannot be recorded.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// Several whole, encoded entries.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The frames, in the format of the wire and of the disk.
    pub frames: Arc<[u8]>,
    /// Sequence number of the last entry in it.
    pub last_seq: u64,
    /// Bytes of all frames so far, including this chunk's.
    pub total_bytes: u64,
}

/// Takes chunks: the writer of a file, or the logging channel.
pub trait Consumer: Send {
    /// Takes a chunk. May block; then the machine waits.
    fn take(&mut self, chunk: &Chunk) -> Result<(), JournalError>;
}

/// The log under construction.
pub struct Journal {
    next_seq: u64,
    total_bytes: u64,
    /// No entry before this position will be added: it is the position of the last entry or mark.
    horizon: Position,
    chunk: Vec<u8>,
    flushed: Instant,
    consumers: Vec<Box<dyn Consumer>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("next_seq", &self.next_seq)
            .field("horizon", &self.horizon)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// A log whose next entry is `next_seq` (1 for a new one).
    pub fn new(next_seq: u64, consumers: Vec<Box<dyn Consumer>>) -> Journal {
        Journal {
            next_seq,
            total_bytes: 0,
            horizon: Position::START,
            chunk: Vec::new(),
            flushed: Instant::now(),
            consumers,
        }
    }

    /// Sequence number of the last entry.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Does it have no consumer?
    pub fn is_idle(&self) -> bool {
        self.consumers.is_empty()
    }

    /// Adds an entry. Returns its sequence number.
    pub fn append(&mut self, at: Position, check: Option<Check>, event: Event) -> u64 {
        assert!(
            at >= self.horizon,
            "an entry at {at} after the log promised none before {}",
            self.horizon
        );
        self.horizon = at;
        let seq = self.next_seq;
        self.next_seq += 1;
        if !self.is_idle() {
            encode_entry(seq, &Entry { at, check, event }, &mut self.chunk);
        }
        seq
    }

    /// Adds a mark that no entry before `at` will be added, unless the log says so already.
    pub fn progress(&mut self, at: Position) {
        if at > self.horizon {
            self.append(at, None, Event::Progress);
        }
    }

    /// Is it time to hand the chunk on?
    pub fn due(&self) -> bool {
        self.chunk.len() >= CHUNK_BYTES || self.flushed.elapsed() >= FLUSH_INTERVAL
    }

    /// Drops the consumers. Entries that are added later are lost.
    pub fn close(&mut self) {
        self.consumers.clear();
        self.chunk.clear();
    }

    /// Hands on the entries that were added since the last time.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.flushed = Instant::now();
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.total_bytes += self.chunk.len() as u64;
        let chunk = Chunk {
            frames: std::mem::take(&mut self.chunk).into(),
            last_seq: self.next_seq - 1,
            total_bytes: self.total_bytes,
        };
        for consumer in &mut self.consumers {
            consumer.take(&chunk)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Kept(Arc<Mutex<Vec<Chunk>>>);

    impl Consumer for Kept {
        fn take(&mut self, chunk: &Chunk) -> Result<(), JournalError> {
            self.0.lock().unwrap().push(chunk.clone());
            Ok(())
        }
    }

    #[test]
    fn chunks_count_entries_and_bytes() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut journal = Journal::new(1, vec![Box::new(Kept(kept.clone()))]);
        journal.progress(Position::exit(4));
        journal.progress(Position::exit(4));
        journal.append(Position::exit(4), None, Event::Clock { ns: 1 });
        journal.flush().unwrap();
        journal.flush().unwrap();
        journal.progress(Position::exit(5));
        journal.flush().unwrap();
        let kept = kept.lock().unwrap();
        assert_eq!(kept.len(), 2);
        assert_eq!((kept[0].last_seq, kept[1].last_seq), (2, 3));
        let lengths: usize = kept.iter().map(|c| c.frames.len()).sum();
        assert_eq!(kept[1].total_bytes, lengths as u64);
    }

    #[test]
    #[should_panic(expected = "promised none before 5")]
    fn an_entry_behind_the_progress_mark_is_a_bug() {
        let mut journal = Journal::new(1, Vec::new());
        journal.progress(Position::exit(5));
        journal.append(Position::exit(4), None, Event::Clock { ns: 1 });
    }
}
