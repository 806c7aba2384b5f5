//! Text on its way to a descriptor that may take it late, or never: a bounded queue, and a thread of
//! its own that writes. What finds no room, or cannot be written, is dropped and counted.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Text that may wait in one queue, bytes.
pub const QUEUE_BYTES: usize = 1 << 20;
/// What a line counts besides its text, bytes: many short ones take memory too.
const LINE_BYTES: usize = 64;
/// Pieces of text are put together up to here, bytes.
const PIECE_BYTES: usize = 4096;
/// What nobody takes has this reason.
const UNREAD: &str = "nobody reads";

/// A descriptor, and how its losses are told.
pub trait Target: Send + Sync + 'static {
    /// Name of the thread that writes.
    const THREAD: &'static str;
    /// Whether what is added are lines; text otherwise, in pieces that mean nothing.
    const LINES: bool = true;

    /// Where the text goes.
    fn fd(&self) -> BorrowedFd<'_>;

    /// What stands in the text where `count` lines were lost, for this reason; empty for nothing.
    fn gap(&self, count: u64, why: &str) -> Vec<u8>;

    /// Lines begin to be lost, for this reason.
    fn failing(&self, _why: &str) {}

    /// So many lines were lost, for this reason; from here on lines are written again.
    fn recovered(&self, _count: u64, _why: &str) {}
}

/// Lines for one descriptor. Nobody who adds one waits for it.
#[derive(Debug)]
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    target: T,
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything was written or given up.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// What the items count.
    bytes: usize,
    /// Lines that found no room since the last that did.
    unread: u64,
    /// The thread has something in its hands.
    writing: bool,
    started: bool,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// So many lines found no room here.
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
    /// An empty queue. Its thread starts with the first line: a drill may have no second one before it
    /// is in its own namespaces.
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

    /// Adds a line, with its end; drops it if too much waits.
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

    /// Waits until everything was written or given up, to the deadline at most; whether it was.
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
        // What waits is written once there can be a thread: the next line tries again.
        state.started = thread.spawn(move || shared.write_all()).is_ok();
    }
}

impl State {
    /// Adds a line if there is room; whether it is the first one that found none.
    fn push(&mut self, line: Vec<u8>, is_line: bool) -> bool {
        // Once lines were dropped, some at a time are taken again: one gap is told, not many.
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

    /// Notes where lines were dropped.
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
        // A thread that panicked is about to end the process, and says so through here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: writes for as long as the process lives.
    fn write_all(&self) {
        let mut writer = Writer::default();
        loop {
            let item = self.next();
            writer.write(&self.target, item);
        }
    }

    /// The next thing to write; the last one is done.
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
    /// Lines that were lost and not told yet, and why the last was.
    lost: u64,
    why: String,
    /// The last line was written in part: the next one begins anew.
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

    /// The line with what has to come before it.
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

    /// What was to be told was told.
    fn written<T: Target>(&mut self, target: &T) {
        if self.lost > 0 {
            target.recovered(self.lost, &self.why);
        }
        *self = Writer::default();
    }
}

/// Writes a line, in one call where the descriptor takes it so; waits for it. An error tells how much
/// was written before.
fn write_whole(fd: BorrowedFd<'_>, line: &[u8]) -> Result<(), (usize, Errno)> {
    let mut count = 0;
    while count < line.len() {
        match rustix::io::write(fd, &line[count..]) {
            // No descriptor does that; one that did would be asked for ever.
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
