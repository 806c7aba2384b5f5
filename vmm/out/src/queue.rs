//! A bounded queue of text for a descriptor that may accept it late or never, with a thread that writes
//! it. Text for which there is no room, or which cannot be written, is dropped and counted.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most text that waits in one queue, bytes.
pub const QUEUE_BYTES: usize = 1 << 20;
/// Each line counts this many bytes in addition to its text, as many short lines take memory too.
const LINE_BYTES: usize = 64;
/// Pieces of text are joined up to this length, bytes.
const PIECE_BYTES: usize = 4096;
/// The reason for losses because the queue was full.
const UNREAD: &str = "nobody reads";

/// A descriptor, and how to report what was lost.
pub trait Target: Send + Sync + 'static {
    /// Name of the thread that writes to it.
    const THREAD: &'static str;
    /// Are lines added to the queue? Otherwise it is text, in pieces that may be joined.
    const LINES: bool = true;

    /// Where the text goes.
    fn fd(&self) -> BorrowedFd<'_>;

    /// The text to write in place of `count` lost lines; may be empty.
    fn gap(&self, count: u64, why: &str) -> Vec<u8>;

    /// Called when the first line is lost.
    fn failing(&self, _why: &str) {}

    /// Called when lines are written again, after `count` were lost.
    fn recovered(&self, _count: u64, _why: &str) {}
}

/// Lines for one descriptor. Adding one never waits for the descriptor.
#[derive(Debug)]
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    target: T,
    state: Mutex<State>,
    /// Signalled when there is something to write.
    filled: Condvar,
    /// Signalled when everything was written or dropped.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Bytes of the items, each with [`LINE_BYTES`].
    bytes: usize,
    /// Lines dropped since the last one that was queued.
    unread: u64,
    /// The thread is writing an item.
    writing: bool,
    started: bool,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// This many lines were dropped here.
    Gap(u64),
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue {
            shared: self.shared.clone(),
        }
    }
}

impl<T: Target> Queue<T> {
    /// An empty queue. Its thread starts with the first line: a drill must still have one thread only
    /// when it enters its own namespaces.
    pub fn new(target: T) -> Queue<T> {
        Queue {
            shared: Arc::new(Shared {
                target,
                state: Mutex::default(),
                filled: Condvar::new(),
                emptied: Condvar::new(),
            }),
        }
    }

    /// Adds a line, with its newline. Drops it if the queue is full.
    pub fn push(&self, line: Vec<u8>) {
        let mut state = self.shared.lock();
        let fails = state.push(line, T::LINES);
        self.start(&mut state);
        drop(state);
        self.shared.filled.notify_one();
        if fails {
            self.shared.target.failing(UNREAD);
        }
    }

    /// Waits until everything was written or dropped, until the deadline at most. Returns whether it
    /// was.
    pub fn settle(&self, deadline: Instant) -> bool {
        let state = self.shared.lock();
        let left = deadline.saturating_duration_since(Instant::now());
        let busy = |state: &mut State| state.started && !state.is_empty();
        let waited = self.shared.emptied.wait_timeout_while(state, left, busy);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_empty()
    }

    fn start(&self, state: &mut State) {
        if state.started {
            return;
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(T::THREAD.into());
        // If no thread can be started now, the next line tries again; until then the lines wait.
        state.started = thread.spawn(move || shared.write_all()).is_ok();
    }
}

impl State {
    /// Adds a line if there is room. Returns true if it is the first one that is dropped.
    fn push(&mut self, line: Vec<u8>, is_line: bool) -> bool {
        // Once lines were dropped, half of the queue must become free before lines are accepted again:
        // this makes one large gap instead of many small ones.
        let limit = match self.unread {
            0 => QUEUE_BYTES,
            _ => QUEUE_BYTES / 2,
        };
        if let Some(Item::Line(last)) = self.items.back_mut()
            && !is_line
            && self.unread == 0
            && last.len() < PIECE_BYTES
            && self.bytes.saturating_add(line.len()) <= limit
        {
            self.bytes += line.len();
            last.extend(line);
            return false;
        }
        let bytes = line.len().saturating_add(LINE_BYTES);
        if self.bytes.saturating_add(bytes) > limit {
            self.unread = self.unread.saturating_add(1);
            return self.unread == 1;
        }
        self.mark_gap();
        self.bytes += bytes;
        self.items.push_back(Item::Line(line));
        false
    }

    /// Queues a mark where lines were dropped.
    fn mark_gap(&mut self) {
        if self.unread > 0 {
            self.items.push_back(Item::Gap(self.unread));
            self.unread = 0;
        }
    }

    fn pop(&mut self) -> Option<Item> {
        if self.items.is_empty() {
            self.mark_gap();
        }
        let item = self.items.pop_front()?;
        if let Item::Line(line) = &item {
            self.bytes = self.bytes.saturating_sub(line.len() + LINE_BYTES);
        }
        Some(item)
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.unread == 0 && !self.writing
    }
}

impl<T: Target> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panicked thread is about to end the process, and its message still has to get through here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: writes as long as the process lives.
    fn write_all(&self) {
        let mut writer = Writer::default();
        loop {
            let item = self.next();
            writer.write(&self.target, item);
        }
    }

    /// Marks the last item as done, and waits for the next.
    fn next(&self) -> Item {
        let mut state = self.lock();
        loop {
            state.writing = false;
            if let Some(item) = state.pop() {
                state.writing = true;
                return item;
            }
            self.emptied.notify_all();
            let filled = self.filled.wait(state);
            state = filled.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What the writing thread remembers.
#[derive(Debug, Default)]
struct Writer {
    /// Lines that were lost and not reported yet, and the reason for the last loss.
    lost: u64,
    why: String,
    /// The last line was written only in part, so that the next one must begin on a new line.
    torn: bool,
}

impl Writer {
    fn write<T: Target>(&mut self, target: &T, item: Item) {
        let line = match item {
            Item::Line(line) => Some(line),
            Item::Gap(count) => {
                self.lost = self.lost.saturating_add(count);
                self.why = UNREAD.into();
                None
            }
        };
        let is_line = line.is_some();
        let text = self.lead(target, line.unwrap_or_default());
        if text.is_empty() {
            return;
        }
        match write_whole(target.fd(), &text) {
            Ok(()) => self.written(target),
            Err((count, e)) => {
                let why = io::Error::from(e).to_string();
                if self.lost == 0 {
                    target.failing(&why);
                }
                self.why = why;
                self.torn |= count > 0;
                self.lost = self.lost.saturating_add(u64::from(is_line));
            }
        }
    }

    /// The line, with the text that must come before it.
    fn lead<T: Target>(&self, target: &T, line: Vec<u8>) -> Vec<u8> {
        let end: &[u8] = match self.torn && T::LINES {
            true => b"\n",
            false => b"",
        };
        let gap = match self.lost {
            0 => Vec::new(),
            lost => target.gap(lost, &self.why),
        };
        match end.is_empty() && gap.is_empty() {
            true => line,
            false => [end, &gap, &line].concat(),
        }
    }

    /// The text was written, and with it the report of losses.
    fn written<T: Target>(&mut self, target: &T) {
        if self.lost > 0 {
            target.recovered(self.lost, &self.why);
        }
        *self = Writer::default();
    }
}

/// Writes a line, in one call if the descriptor accepts it; waits for the descriptor. An error says how
/// many bytes were written before.
fn write_whole(fd: BorrowedFd<'_>, line: &[u8]) -> Result<(), (usize, Errno)> {
    let mut count = 0;
    while count < line.len() {
        match rustix::io::write(fd, &line[count..]) {
            // No descriptor does that; but if one did, this loop would never end.
            Ok(0) => return Err((count, Errno::IO)),
            Ok(written) => count += written,
            Err(Errno::INTR) => {}
            // Another process may have made it non-blocking.
            Err(Errno::AGAIN) => await_room(fd).map_err(|e| (count, e))?,
            Err(e) => return Err((count, e)),
        }
    }
    Ok(())
}

fn await_room(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fd = fd.as_fd();
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
