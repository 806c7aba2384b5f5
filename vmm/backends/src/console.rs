//! The host's side of the console: where the guest's text goes, and where its input comes from.

mod hurry;
mod terminal;

pub use hurry::Hurry;
pub use terminal::Terminal;

use lockstep_out as out;
use lockstep_out::{Queue, Target};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// End of transmission: what the guest reads when the input ends.
const EOT: u8 = 0x04;

/// Is the descriptor ready now? Does not wait.
fn ready_now(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<bool> {
    let mut set = [PollFd::from_borrowed_fd(fd, what)];
    match poll(&mut set, Some(&Timespec::default())) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Where the guest's console is (`--console`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleChoice {
    /// Standard input and output.
    Stdio,
    /// Output to this file, no input.
    File(PathBuf),
    /// Nowhere.
    None,
}

impl FromStr for ConsoleChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<ConsoleChoice, Self::Err> {
        Ok(match text {
            "stdio" => ConsoleChoice::Stdio,
            "none" => ConsoleChoice::None,
            path => ConsoleChoice::File(path.into()),
        })
    }
}

/// Bytes that a descriptor which is ready for writing accepts without blocking: PIPE_BUF (pipe(7)).
const READY_BYTES: usize = 4096;
/// Text is waited for this long, so that with a fast reader, what has left the machine has also left
/// the process. After a reader has missed the limit once, it is slow, and not waited for until it has
/// caught up.
const PATIENCE: Duration = Duration::from_millis(5);

/// A console whose reader may stop reading without stopping the writer: up to [`out::QUEUE_BYTES`] wait
/// for the reader.
#[derive(Debug)]
pub struct PatientConsole {
    /// `None` if there is no console.
    queue: Option<Queue<ConsoleOutput>>,
    slow: bool,
}

impl PatientConsole {
    /// A console that prints to `output`.
    pub fn new(output: ConsoleOutput) -> PatientConsole {
        PatientConsole {
            queue: output.fd().is_some().then(|| out::queue(output)),
            slow: false,
        }
    }

    /// Prints text. Returns when it is printed, or when the reader is too slow.
    pub fn write(&mut self, data: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let now = Instant::now();
        self.slow = self.slow && !queue.settle(now);
        queue.push(data.to_vec());
        self.slow = self.slow || !queue.settle(now + PATIENCE);
    }
}

impl Target for ConsoleOutput {
    const THREAD: &'static str = "console";
    const LINES: bool = false;

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd().expect("a console that is nowhere has no queue")
    }

    /// Adds nothing where text was lost: only what the guest printed belongs on its console.
    fn gap(&self, _: u64, _: &str) -> Vec<u8> {
        Vec::new()
    }

    fn failing(&self, why: &str) {
        // The machine must go on without its console.
        tracing::warn!("the console takes no text ({why}): what the guest prints is dropped");
    }

    fn recovered(&self, _: u64, why: &str) {
        tracing::warn!(
            "the console takes text again; what the guest printed meanwhile was dropped ({why})"
        );
    }
}

/// Where the guest's text goes.
#[derive(Debug)]
pub enum ConsoleOutput {
    /// To standard output.
    Stdout(io::Stdout),
    /// To a file.
    File(File),
    /// Nowhere.
    None,
}

impl ConsoleOutput {
    /// Opens it. Text is appended to a file that exists.
    pub fn open(choice: &ConsoleChoice) -> io::Result<ConsoleOutput> {
        Ok(match choice {
            ConsoleChoice::Stdio => ConsoleOutput::Stdout(io::stdout()),
            ConsoleChoice::File(path) => ConsoleOutput::File(out::append_to(path)?),
            ConsoleChoice::None => ConsoleOutput::None,
        })
    }

    /// The descriptor; `None` if there is no console.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            ConsoleOutput::Stdout(out) => Some(out.as_fd()),
            ConsoleOutput::File(file) => Some(file.as_fd()),
            ConsoleOutput::None => None,
        }
    }

    /// Prints text. Waits for a slow reader until `hurry` ends the wait; the rest of the text is then
    /// dropped.
    pub fn write(&mut self, data: &[u8], hurry: &Hurry) -> io::Result<()> {
        let Some(fd) = self.fd() else { return Ok(()) };
        let mut left = data;
        while !left.is_empty() {
            if !hurry.await_room(fd)? {
                return Ok(());
            }
            let part = &left[..left.len().min(READY_BYTES)];
            match hurry.during(|| rustix::io::write(fd, part)) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => {
                    let e = io::Error::from(e);
                    let what = format!("the console cannot be written ({e})");
                    return Err(io::Error::new(e.kind(), what));
                }
            }
        }
        Ok(())
    }
}

/// Where the guest's console input comes from: standard input, until it ends.
#[derive(Debug)]
pub struct ConsoleInput {
    stdin: Option<io::Stdin>,
    kind: Kind,
}

/// What the guest reads from.
#[derive(Debug)]
enum Kind {
    /// Text, which ends.
    Text,
    /// A serial line, which does not; with the terminal that it leads to, if it does.
    Line(Option<Terminal>),
}

impl ConsoleInput {
    /// Standard input for [`ConsoleChoice::Stdio`], nothing otherwise.
    pub fn open(choice: &ConsoleChoice) -> ConsoleInput {
        ConsoleInput {
            stdin: (*choice == ConsoleChoice::Stdio).then(io::stdin),
            kind: Kind::Text,
        }
    }

    /// From now on it is a serial line: it has no end that the guest would read, and if standard input is a
    /// terminal, that terminal is the guest's.
    pub fn be_a_line(&mut self) {
        let terminal = match &self.stdin {
            Some(_) => Terminal::take(),
            None => Ok(None),
        };
        let terminal = terminal.unwrap_or_else(|e| {
            tracing::warn!("the terminal stays as it is, a line at a time ({e})");
            None
        });
        self.kind = Kind::Line(terminal);
    }

    /// The descriptor to poll for input; `None` when no more will come.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().map(|stdin| stdin.as_fd())
    }

    /// Is there input now? Does not wait.
    pub fn is_readable(&self) -> io::Result<bool> {
        self.fd()
            .map_or(Ok(false), |fd| ready_now(fd, PollFlags::IN))
    }

    /// Reads up to `limit` bytes. Only when the descriptor is readable. The guest gets one EOT at the
    /// end of the text; an error counts as the end.
    pub fn read(&mut self, limit: usize) -> Vec<u8> {
        let Some(stdin) = &self.stdin else {
            return Vec::new();
        };
        let mut data = vec![0; limit];
        // Without the buffer of `Stdin`: `poll` does not see the bytes in it.
        let read = match stdin.as_fd().try_clone_to_owned() {
            Ok(fd) => File::from(fd).read(&mut data).unwrap_or(0),
            Err(_) => 0,
        };
        data.truncate(read);
        if read == 0 {
            self.stdin = None;
        }
        match &mut self.kind {
            Kind::Text if read == 0 => data.push(EOT),
            Kind::Line(Some(terminal)) => terminal.pass(&mut data),
            Kind::Text | Kind::Line(None) => {}
        }
        data
    }
}

#[cfg(test)]
mod tests;
