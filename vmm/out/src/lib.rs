//! The one module that writes to standard output and standard error.
//!
//! Messages go to standard error through a queue and a thread, so that a reader who does not read
//! cannot block a thread of the VMM, and a reader who is gone cannot make one fail. Results go to
//! standard output; they are written at once, and the caller gets the error. The text of a panic goes
//! through the queue too, before the panic ends the process.

mod open;
mod queue;

pub use open::append_to;
pub use queue::{QUEUE_BYTES, Queue, Target};

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// How long the end of the process waits for the last messages and events to be written.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// The same after a panic. It is shorter, as the other side of a pair must notice the end soon.
pub const PANIC_FLUSH_LIMIT: Duration = Duration::from_millis(100);

/// Standard error.
#[derive(Debug)]
struct Stderr(io::Stderr);

impl Target for Stderr {
    const THREAD: &'static str = "messages";

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn gap(&self, count: u64, why: &str) -> Vec<u8> {
        format!("lockstep: {count} messages were lost here ({why})\n").into_bytes()
    }
}

static MESSAGES: LazyLock<Queue<Stderr>> = LazyLock::new(|| Queue::new(Stderr(io::stderr())));

/// Waits for a queue until a deadline. Returns whether it became empty.
type Settle = Box<dyn Fn(Instant) -> bool + Send>;

/// The queues besides [`MESSAGES`].
static OTHERS: Mutex<Vec<Settle>> = Mutex::new(Vec::new());

/// Writes one line to standard error.
pub fn say(line: impl Display) {
    MESSAGES.push(format!("{line}\n").into_bytes());
}

/// Writes a sentence to standard error, as `lockstep: …`.
pub fn tell(sentence: impl Display) {
    say(format_args!("lockstep: {sentence}"));
}

/// Prints a line of results on standard output.
///
/// # Errors
/// If it cannot be written. The command has then failed.
pub fn print(line: impl Display) -> io::Result<()> {
    print_text(&format!("{line}\n"))
}

/// Prints lines of results on standard output.
///
/// # Errors
/// As those of [`print`].
pub fn print_text(text: &str) -> io::Result<()> {
    let mut out = results();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Standard output, for results that are written piece by piece. The caller must flush it.
pub fn results() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Writes the messages of `tracing` to standard error.
#[derive(Clone, Copy, Debug)]
pub struct Log;

/// Writes one message of `tracing`, which is a whole line.
#[derive(Debug)]
pub struct LogLine;

impl MakeWriter<'_> for Log {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine
    }
}

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        MESSAGES.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A queue for another descriptor. [`finish`] waits for it too.
pub fn queue<T: Target>(target: T) -> Queue<T> {
    let queue = Queue::new(target);
    let waited_for = queue.clone();
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    others.push(Box::new(move |deadline| waited_for.settle(deadline)));
    queue
}

/// Waits until all messages and events are written, for [`FLUSH_LIMIT`] at most. For the end of the
/// process, or before it executes another program.
pub fn finish() {
    settle(FLUSH_LIMIT);
}

fn settle(limit: Duration) {
    let deadline = Instant::now() + limit;
    // This never waits for the lock: a panic may come while it is held. Then only messages are waited for.
    if let Ok(others) = OTHERS.try_lock() {
        for settle in others.iter() {
            settle(deadline);
        }
    }
    MESSAGES.settle(deadline);
}

/// Ends the process, after all messages and events are written.
pub fn exit(status: i32) -> ! {
    finish();
    std::process::exit(status)
}

/// Returns `status`, after all messages and events are written.
pub fn end(status: ExitCode) -> ExitCode {
    finish();
    status
}

/// From now on a panic on any thread ends the whole process, so that the other side of a pair notices.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        say(describe(panic));
        settle(PANIC_FLUSH_LIMIT);
        std::process::abort();
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("?"));
    if backtrace.status() == BacktraceStatus::Captured {
        text = format!("{text}\nstack backtrace:\n{backtrace}");
    }
    text
}
