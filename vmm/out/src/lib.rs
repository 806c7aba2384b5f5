//! What the command says: the one module that writes to standard output and standard error.
//!
//! Standard error takes messages: a queue and a thread of its own write them, so that nobody waits for a
//! reader who does not read, and nobody fails with one who is gone. Standard output takes results: they
//! are written at once, and an error is the caller's. Panics are told through here too, before they end
//! the process.

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

/// The last messages and events have so long to reach their reader when the process ends.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// The same for a panic: the other side of a pair is to notice soon.
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

/// A queue that is waited for at the end.
type Settle = Box<dyn Fn(Instant) -> bool + Send>;

/// The queues besides [`MESSAGES`].
static OTHERS: Mutex<Vec<Settle>> = Mutex::new(Vec::new());

/// Says one line on standard error.
pub fn say(line: impl Display) {
    MESSAGES.push(format!("{line}\n").into_bytes());
}

/// Says a sentence on standard error, as `lockstep: …`.
pub fn tell(sentence: impl Display) {
    say(format_args!("lockstep: {sentence}"));
}

/// Prints a line of results on standard output.
///
/// # Errors
/// If it cannot be written: then the command has not done what it was for.
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

/// Standard output, for results that are not made in one piece. To be flushed.
pub fn results() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Where the log goes: standard error.
#[derive(Clone, Copy, Debug)]
pub struct Log;

/// One piece of the log: a whole line.
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

/// A queue for another descriptor, which [`finish`] waits for too.
pub fn queue<T: Target>(target: T) -> Queue<T> {
    let queue = Queue::new(target);
    let waited_for = queue.clone();
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    others.push(Box::new(move |deadline| waited_for.settle(deadline)));
    queue
}

/// Waits until everything that was said has left, for [`FLUSH_LIMIT`] at most: before the process ends,
/// or becomes another.
pub fn finish() {
    settle(FLUSH_LIMIT);
}

fn settle(limit: Duration) {
    let deadline = Instant::now() + limit;
    // Whoever says something now says it without us.
    if let Ok(others) = OTHERS.try_lock() {
        for settle in others.iter() {
            settle(deadline);
        }
    }
    MESSAGES.settle(deadline);
}

/// Ends the process from wherever this is called, with everything said.
pub fn exit(status: i32) -> ! {
    finish();
    std::process::exit(status)
}

/// The command's end: everything is said.
pub fn end(status: ExitCode) -> ExitCode {
    finish();
    status
}

/// From here on a panic on any thread ends the whole process: the other side of a pair must notice.
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
