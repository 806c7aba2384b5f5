//! The log under construction: entries are encoded once and handed on in chunks.

use super::recycle::Recycled;
use ft_protocol::log::codec::{BytesInput, encode_bytes, encode_entry};
use ft_protocol::log::{Check, Entry, Event, Position};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// A chunk is handed on at a position when it is this old, even if nothing waits for it: the backup may
/// not run beyond the last entry or progress mark that it has.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(1);
/// The same where no backup follows and the log is only recorded.
pub const RECORD_INTERVAL: Duration = Duration::from_millis(20);
/// A chunk is handed on when it is this long, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Buffers for chunks that are there from the start. They take memory as they are filled.
const BUFFERS: usize = 16;
/// Room in each: a long chunk, and what one position may add to it.
const BUFFER_BYTES: usize = CHUNK_BYTES + (128 << 10);

/// The log cannot be recorded.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// Several whole, encoded entries.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The frames, as they are on the wire and on disk. The buffer goes back to the journal once every
    /// consumer has dropped it.
    pub frames: Arc<Vec<u8>>,
    /// Sequence number of the last of them.
    pub last_seq: u64,
    /// Bytes of all frames so far, including this chunk's.
    pub total_bytes: u64,
}

/// Takes chunks: the writer of a file, or the logging channel.
pub trait Consumer: Send {
    /// Takes a chunk. May block; then the machine waits.
    fn take(&mut self, chunk: &Chunk) -> Result<(), JournalError>;
}

/// The log under construction. It is the vCPU thread's own.
pub struct Journal {
    next_seq: u64,
    total_bytes: u64,
    /// No entry before this position will be added: it is the position of the last entry or mark.
    horizon: Position,
    chunk: Vec<u8>,
    buffers: Recycled<Vec<u8>>,
    /// Length of the last input that was taken in.
    last_input: usize,
    consumers: Vec<Box<dyn Consumer>>,
}

/// A place in the journal to which it can go back until it is handed on.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    next_seq: u64,
    horizon: Position,
    len: usize,
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
            chunk: Vec::with_capacity(BUFFER_BYTES),
            buffers: Recycled::new(BUFFERS, || Vec::with_capacity(BUFFER_BYTES)),
            last_input: 0,
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
        let seq = self.advance(at);
        if !self.is_idle() {
            encode_entry(seq, &Entry { at, check, event }, &mut self.chunk);
        }
        seq
    }

    /// Adds an input that `fill` reads into a buffer of `room` bytes, which is the log's; it says how many
    /// they are. Gives where they are, for [`Journal::bytes`], until the chunk is handed on. None, and
    /// nothing is added, if there are none.
    pub fn take_in<E>(
        &mut self,
        (at, check): (Position, Check),
        input: BytesInput,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>,
    ) -> Result<Option<Range<usize>>, E> {
        let mark = self.mark();
        let entry = (self.advance(at), at, Some(check));
        let sizes = (room, self.last_input);
        let taken = match self.is_idle() {
            true => read_only(&mut self.chunk, room, fill),
            false => encode_bytes(entry, input, &mut self.chunk, sizes, fill),
        };
        match &taken {
            Ok(Some(bytes)) => self.last_input = bytes.len(),
            Ok(None) | Err(_) => self.back_to(mark),
        }
        taken
    }

    /// Bytes that were taken in.
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.chunk[place]
    }

    fn advance(&mut self, at: Position) -> u64 {
        assert!(
            at >= self.horizon,
            "an entry at {at} after the log promised none before {}",
            self.horizon
        );
        self.horizon = at;
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// Where it is now.
    pub fn mark(&self) -> Mark {
        Mark {
            next_seq: self.next_seq,
            horizon: self.horizon,
            len: self.chunk.len(),
        }
    }

    /// Takes back what was added since.
    pub fn back_to(&mut self, mark: Mark) {
        (self.next_seq, self.horizon) = (mark.next_seq, mark.horizon);
        self.chunk.truncate(mark.len);
    }

    /// Adds a mark that no entry before `at` will be added, unless the log says so already.
    pub fn progress(&mut self, at: Position) {
        if at > self.horizon {
            self.append(at, None, Event::Progress);
        }
    }

    /// Is there nothing to be handed on?
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Is the chunk as long as [`CHUNK_BYTES`]?
    pub fn is_long(&self) -> bool {
        self.chunk.len() >= CHUNK_BYTES
    }

    /// Drops the consumers. Entries that are added later are lost.
    pub fn close(&mut self) {
        self.consumers.clear();
        self.chunk.clear();
    }

    /// Hands on the entries that were added since the last time.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        if self.is_idle() {
            self.chunk.clear();
            return Ok(());
        }
        self.total_bytes += self.chunk.len() as u64;
        let make = || Vec::with_capacity(BUFFER_BYTES);
        let frames = self.buffers.share(&mut self.chunk, make);
        self.chunk.clear();
        let chunk = Chunk {
            frames,
            last_seq: self.next_seq - 1,
            total_bytes: self.total_bytes,
        };
        for consumer in &mut self.consumers {
            consumer.take(&chunk)?;
        }
        Ok(())
    }
}

/// Appends what `fill` gives, without an entry around it: the log has no consumer.
fn read_only<E>(
    out: &mut Vec<u8>,
    room: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>,
) -> Result<Option<Range<usize>>, E> {
    let start = out.len();
    out.resize(start + room, 0);
    let used = fill(&mut out[start..])?;
    out.truncate(start + used.unwrap_or(0));
    Ok(used.map(|used| start..start + used))
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
    fn what_is_taken_back_was_never_there() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut journal = Journal::new(1, vec![Box::new(Kept(kept.clone()))]);
        let here = (Position::exit(7), Check::default());
        let input = BytesInput::Frame;
        let take = |journal: &mut Journal, used: Option<usize>| {
            let taken = journal.take_in(here, input, 100, |_| Ok::<_, ()>(used));
            taken.expect("it cannot fail")
        };
        journal.progress(Position::exit(4));
        let mark = journal.mark();
        journal.append(here.0, None, Event::Clock { ns: 1 });
        assert_eq!(take(&mut journal, None), None);
        assert_eq!(journal.last_seq(), 2);
        assert_eq!(take(&mut journal, Some(60)).expect("it came").len(), 60);
        assert_eq!(journal.last_seq(), 3);
        journal.back_to(mark);
        // An earlier position than what was taken back.
        assert_eq!(journal.append(Position::exit(5), None, Event::Progress), 2);
        journal.flush().unwrap();
        assert_eq!(kept.lock().unwrap()[0].last_seq, 2);
    }

    #[test]
    fn a_buffer_is_used_again_once_nobody_holds_it() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut journal = Journal::new(1, vec![Box::new(Kept(kept.clone()))]);
        let mut flush = |ns| {
            journal.append(Position::exit(ns), None, Event::Clock { ns });
            journal.flush().unwrap();
            let chunk = kept.lock().unwrap().pop().expect("it was handed on");
            (Arc::as_ptr(&chunk.frames), chunk)
        };
        let (first, held) = flush(1);
        let content = held.frames.clone();
        drop(held);
        let others: Vec<_> = (2..2 + BUFFERS as u64).map(|ns| flush(ns).0).collect();
        assert!(!others.contains(&first), "it is held");
        assert_eq!(content[4], 1, "and has not changed");
        drop(content);
        let again: Vec<_> = (100..200).map(|ns| flush(ns).0).collect();
        assert!(again.contains(&first));
        assert!(again.iter().all(|it| *it == first || others.contains(it)));
    }

    #[test]
    #[should_panic(expected = "promised none before 5")]
    fn an_entry_behind_the_progress_mark_is_a_bug() {
        let mut journal = Journal::new(1, Vec::new());
        journal.progress(Position::exit(5));
        journal.append(Position::exit(4), None, Event::Clock { ns: 1 });
    }
}
